"""One engine in a separate process, for peers.py: python benchmarks/engine.py NAME MODEL_DIR WORK_DIR [PROMPT_IDS N]

Reads requests from stdin, one JSON line {"prompt": ids, "n": tokens} each, and answers with one JSON line: the greedy
tokens, the seconds to the first one, and the seconds to the last. With prompt and n as arguments it answers once and
exits, to time a whole command. An engine of several texts (TOGETHER) takes {"prompts": [ids], "n": tokens} and answers
with all tokens and the seconds to the last. The files of each engine are made in WORK_DIR once.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Engine = Callable[[list[int], int], Iterator[int]]
Together = Callable[[list[list[int]], int], list[list[int]]]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def arrays(model_dir: Path) -> dict[str, np.ndarray]:
    """OpenAI's names with dots, h0.attn.c_attn.w and so on, from picogpt's NumPy file."""
    array = np.load(model_dir / "params" / "weights.npy")
    tensors = json.loads((model_dir / "params" / "manifest.json").read_text())["tensors"]
    return {
        name.replace("/", "."): array[t["offset"] :][: math.prod(t["shape"])].reshape(t["shape"], order=t["order"])
        for name, t in sorted(tensors.items())
    }


def hparams(model_dir: Path) -> dict[str, int]:
    return json.loads((model_dir / "hparams.json").read_text())


def picogpt_params(model_dir: Path) -> tuple[Any, int]:
    """The weights and n_head, as picogpt's functions take them."""
    from picogpt import utils

    settings = utils.read_hparams(model_dir / "hparams.json")
    return utils.load_params(str(model_dir), model_dir.parent, settings), settings["n_head"]


def picogpt(model_dir: Path, _: Path, lookahead: bool = False) -> Engine:
    params, n_head = picogpt_params(model_dir)
    from picogpt import gpt2
    from picogpt.decoding import lookahead as ahead

    generate = ahead.generate if lookahead else gpt2.generate
    return lambda prompt, n: generate(prompt, params, n_head, n)


def picogpt_batch(model_dir: Path, _: Path) -> Together:
    params, n_head = picogpt_params(model_dir)
    from picogpt.decoding import batch

    def run(prompts: list[list[int]], n: int) -> list[list[int]]:
        return list(batch.in_order(batch.generate(prompts, params, n_head, n, batch_size=len(prompts))))

    return run


def picogpt_samples(model_dir: Path, _: Path) -> Together:
    """As many samples of the first prompt, to compare with: the prompt is computed once."""
    params, n_head = picogpt_params(model_dir)
    from picogpt import gpt2

    def run(prompts: list[list[int]], n: int) -> list[list[int]]:
        return list(map(list, zip(*gpt2.generate(prompts[0], params, n_head, n, nsamples=len(prompts)), strict=True)))

    return run


def picogpt_lookahead(model_dir: Path, work_dir: Path) -> Engine:
    return picogpt(model_dir, work_dir, lookahead=True)


def pico_original(model_dir: Path, work_dir: Path) -> Engine:
    """The tutorial's program, from the user's own clone of it in WORK_DIR/picoGPT."""
    sys.path.insert(0, str(work_dir / "picoGPT"))
    import tqdm

    import gpt2  # the clone's

    tqdm.tqdm = lambda steps, *_: steps
    params: dict[str, Any] = {"blocks": [{} for _ in range(hparams(model_dir)["n_layer"])]}
    for name, array in arrays(model_dir).items():
        *keys, last = name.split(".")
        node = params["blocks"][int(keys.pop(0)[1:])] if keys and keys[0][0] == "h" else params
        for key in keys:
            node = node.setdefault(key, {})
        node[last] = array
    return lambda prompt, n: iter(gpt2.generate(list(prompt), params, hparams(model_dir)["n_head"], n))


def exported(model_dir: Path, directory: Path, *how: str) -> Path:
    """The model in the format of another program, made by `python -m picogpt.export`."""
    if not directory.exists():
        from picogpt import utils

        utils.export(model_dir, directory, *how)
    return directory


def transformers_model(model_dir: Path, work_dir: Path) -> Any:
    import torch
    from transformers import GPT2LMHeadModel

    torch.set_num_threads(CORES)
    return GPT2LMHeadModel.from_pretrained(exported(model_dir, work_dir / "hf", "hf")).eval()


def transformers(model_dir: Path, work_dir: Path) -> Engine:
    import torch

    model = transformers_model(model_dir, work_dir)

    def run(prompt: list[int], n: int) -> Iterator[int]:
        with torch.inference_mode():
            ids, cache = torch.tensor([prompt]), None
            for _ in range(n):
                out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
                yield int(ids)

    return run


def transformers_batch(model_dir: Path, work_dir: Path) -> Together:
    """The prompts are padded on their left, as its documentation says."""
    import torch

    model = transformers_model(model_dir, work_dir)
    settings: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}

    def run(prompts: list[list[int]], n: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            texts = model.generate(ids, attention_mask=mask, min_new_tokens=n, max_new_tokens=n, **settings)
        return texts[:, longest:].tolist()

    return run


def ctranslate2_generator(model_dir: Path, work_dir: Path, precision: str) -> tuple[Any, dict[int, str]]:
    """CTranslate2's model, and the symbols that it takes instead of ids."""
    import ctranslate2

    converted = work_dir / f"ctranslate2-{precision}"
    if not converted.exists():
        source = str(exported(model_dir, work_dir / "hf", "hf"))
        ctranslate2.converters.TransformersConverter(source).convert(str(converted), quantization=precision)
    generator = ctranslate2.Generator(str(converted), compute_type=precision, intra_threads=CORES)
    symbols = {token_id: symbol for symbol, token_id in json.loads((model_dir / "encoder.json").read_text()).items()}
    return generator, symbols


def ctranslate2(model_dir: Path, work_dir: Path, precision: str = "float32") -> Engine:
    generator, symbols = ctranslate2_generator(model_dir, work_dir, precision)

    def run(prompt: list[int], n: int) -> Iterator[int]:
        words = [symbols[token_id] for token_id in prompt]
        for step in generator.generate_tokens(words, max_length=n, min_length=n, sampling_topk=1):
            yield step.token_id

    return run


def ctranslate2_batch(model_dir: Path, work_dir: Path) -> Together:
    generator, symbols = ctranslate2_generator(model_dir, work_dir, "float32")

    def run(prompts: list[list[int]], n: int) -> list[list[int]]:
        words = [[symbols[token_id] for token_id in prompt] for prompt in prompts]
        how = {"min_length": n, "sampling_topk": 1, "include_prompt_in_result": False}
        return [result.sequences_ids[0] for result in generator.generate_batch(words, max_length=n, **how)]

    return run


def ctranslate2_int8(model_dir: Path, work_dir: Path) -> Engine:
    return ctranslate2(model_dir, work_dir, "int8")


def llama_cpp(model_dir: Path, work_dir: Path, dtype: str = "f32") -> Engine:
    from llama_cpp import Llama

    file = exported(model_dir, work_dir / f"gguf-{dtype}", "gguf", dtype) / f"model-{dtype}.gguf"
    # by default it decodes on half of the cores
    threads = {"n_threads": CORES, "n_threads_batch": CORES}
    llama = Llama(str(file), n_ctx=hparams(model_dir)["n_ctx"], n_batch=1024, n_ubatch=512, verbose=False, **threads)

    def run(prompt: list[int], n: int) -> Iterator[int]:
        llama.reset()
        tokens = llama.generate(prompt, top_k=1, temp=0.0, repeat_penalty=1.0)
        return (next(tokens) for _ in range(n))

    return run


def llama_cpp_f16(model_dir: Path, work_dir: Path) -> Engine:
    return llama_cpp(model_dir, work_dir, "f16")


def llama_cpp_q8_0(model_dir: Path, work_dir: Path) -> Engine:
    return llama_cpp(model_dir, work_dir, "q8_0")


def reading_weights(model_dir: Path, _: Path) -> Engine:
    """Not an engine: every "token" is one reading of all weights."""
    from benchmarks.measure import reading

    read = reading(array for name, array in arrays(model_dir).items() if array.ndim == 2 and name != "wpe")
    return lambda prompt, n: (int(read() * 0) for _ in range(n))


ENGINES = {
    "picogpt": picogpt,
    "picogpt, look-ahead": picogpt_lookahead,
    "picoGPT": pico_original,
    "transformers": transformers,
    "CTranslate2 float32": ctranslate2,
    "CTranslate2 int8": ctranslate2_int8,
    "llama.cpp f32": llama_cpp,
    "llama.cpp f16": llama_cpp_f16,
    "llama.cpp q8_0": llama_cpp_q8_0,
    "reading the weights": reading_weights,
}


TOGETHER = {
    "picogpt.batch": picogpt_batch,
    "picogpt, samples of one prompt": picogpt_samples,
    "transformers, batch": transformers_batch,
    "CTranslate2 float32, batch": ctranslate2_batch,
}


def timed_together(engine: Together, prompts: list[list[int]], n: int) -> dict[str, Any]:
    start = time.perf_counter()
    tokens = engine(prompts, n)
    return {"tokens": tokens, "total": time.perf_counter() - start}


def timed(engine: Engine, prompt: list[int], n: int) -> dict[str, Any]:
    start = time.perf_counter()
    ids = engine(prompt, n)
    tokens = [next(ids)]
    first = time.perf_counter() - start
    tokens += ids
    return {"tokens": tokens, "first": first, "total": time.perf_counter() - start}


def main(name: str, model_dir: str, work_dir: str, prompt: str = "", n: str = "") -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    answers = sys.stdout
    sys.stdout = sys.stderr  # for anything else that an engine prints
    engine: Any = (ENGINES | TOGETHER)[name](Path(model_dir), Path(work_dir))
    if prompt:
        print(json.dumps(timed(engine, json.loads(prompt), int(n))), file=answers)
        return
    answer = timed_together if name in TOGETHER else timed
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(engine, **json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
