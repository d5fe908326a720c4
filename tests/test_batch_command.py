"""The batch command: what it reads, where the texts go, and that nothing is lost, mixed up or overwritten."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picogpt import gpt2, utils
from picogpt.commands import batch, cli, generate, results
from picogpt.encoder import Encoder
from picogpt.errors import UserError
from picogpt.model import Model
from picogpt.sampling import Sampling
from tests.disks import read_only
from tests.helpers import ENVIRONMENT, ROOT, TINY, make_model, refused, snapshot

pytestmark = pytest.mark.skipif(os.name == "nt", reason="devices, pipes and signals are those of POSIX")

PROMPTS = ["ROMEO:", "To be, or not to be", "", "JULIET: my lord", "  x", "é", "ROMEO:", "one more"]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    """Random weights: tiny, other (other weights), wider (another shape), ends (ends a text), slow (takes seconds)."""
    path = tmp_path_factory.mktemp("models")
    make_model(path)
    make_model(path, "other", seed=1)
    make_model(path, "wider", TINY | {"n_embd": 48})
    ends = make_model(path, "ends") / "encoder.json"
    vocabulary = json.loads(ends.read_text())
    likely = next(token for token, i in vocabulary.items() if i == 394)
    vocabulary |= {"<|endoftext|>": 394, likely: vocabulary["<|endoftext|>"]}
    ends.write_text(json.dumps(vocabulary))
    make_model(path, "slow", TINY | {"n_ctx": 2048, "n_layer": 32, "n_embd": 48})
    return path


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def place(tmp_path, monkeypatch, models_dir):
    """An empty directory to work in, with prompts.txt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICOGPT_MODELS_DIR", str(models_dir))
    write_prompts(PROMPTS)
    return tmp_path


def write_prompts(prompts, path="prompts.txt"):
    Path(path).write_bytes("".join(f"{prompt}\n" for prompt in prompts).encode(errors="surrogateescape"))


def go(output_file="out.jsonl", input_file="prompts.txt", n=4, model_size="tiny", **more):
    """The command within this process."""
    batch.main(str(input_file), output_file=output_file, n_tokens_to_generate=n, model_size=model_size, **more)


def start(*arguments, **streams):
    """The command as a process."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    environment = {**ENVIRONMENT, **os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)
    return subprocess.Popen([sys.executable, "-m", "picogpt.batch", *map(str, arguments)], env=environment, **streams)


def run(*arguments, **streams):
    """The command as a process, to its end: status, stdout, stderr."""
    with start(*arguments, **streams) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


SMALL = ("-m", "tiny", "-n", 4)


def expected(prompts, n=4, model_size="tiny", **sampling):
    """The expected bytes of the output, from each prompt alone."""
    encoder, hparams, params = utils.load_encoder_hparams_and_params(model_size)
    lines = []
    for prompt in prompts:
        start_ids, how = encoder.encode(prompt) or encoder.start_of_text(), Sampling(**sampling)
        ids = gpt2.generate(start_ids, params, hparams["n_head"], n, sampling=how, stop_id=encoder.end_of_text)
        lines.append(json.dumps({"prompt": prompt, "text": encoder.decode(ids)}) + "\n")
    return "".join(lines).encode()


def names(directory="."):
    return sorted(path.name for path in Path(directory).iterdir())


# prompts


def test_one_line_each_in_order(place):
    assert run("prompts.txt", *SMALL, "-b", 3) == (0, expected(PROMPTS), b"")
    assert names() == ["prompts.txt"]


NO_ENDS = "a\rb\x0bc\x0cd\x1ce\x1df\x1eg\x1fh\x85i\u2028j\u2029k"


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\n\ntwo", ["one", "", "two"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        (b"caf\xe9\n", ["caf\udce9"]),
        (NO_ENDS.encode(), [NO_ENDS]),
        (b"x" * 1_000_000 + b"\ny", ["x" * 1_000_000, "y"]),
    ],
)  # fmt: skip
def test_lines_of_text(tmp_path, content, prompts):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    assert batch.read_prompts(path) == prompts


@given(lines=st.lists(st.binary().map(lambda line: line.replace(b"\n", b""))), end=st.sampled_from([b"\n", b"\r\n"]))
def test_any_bytes_are_prompts(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_bytes(b"-" + b"".join(line + b"-" + end for line in lines))
    found = [prompt.encode(errors="surrogateescape") for prompt in batch.read_prompts(path)]
    assert b"\n".join([*found, b""]) == b"-" + b"".join(line + b"-\n" for line in lines) or found == [b"-"] * (
        not lines
    )


@pytest.mark.parametrize("prompts", [["caf\udce9 \udcff"], ["é\u2028\x1c", "\r-"], [], ["", ""]])
def test_every_prompt_is_continued_as_it_is(place, prompts):
    write_prompts(prompts)
    go()
    assert Path("out.jsonl").read_bytes() == expected(prompts)
    assert [json.loads(line)["prompt"] for line in Path("out.jsonl").read_text().splitlines()] == prompts


def test_jsonl_takes_strings_and_objects(place):
    Path("prompts.jsonl").write_bytes(b'"two\\nlines"\r\n{"prompt": "ROMEO:", "other": [1]}\n"caf\xe9 \\u00e9"\n')
    go(None, "prompts.jsonl")
    go("out.jsonl", "prompts.jsonl")
    assert Path("out.jsonl").read_bytes() == expected(["two\nlines", "ROMEO:", "caf\udce9 é"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, ["none.txt: cannot read the prompts: No such file"]),
        ("bad.jsonl", b'"one"\n{"prompt": ', ["bad.jsonl, line 2: expected JSON"]),
        ("bad.jsonl", b'"one"\n\n"two"', ["bad.jsonl, line 2: expected JSON"]),
        ("bad.jsonl", b'{"text": "x"}', ["line 1: expected a string or {\"prompt\": a string}, found {'text': 'x'}"]),
        ("bad.jsonl", b'{"prompt": 1}', ["line 1: expected a string or"]),
        ("bad.jsonl", b'{"prompt": "a", "prompt": "b"}', ["line 1: expected each key once"]),
        ("bad.jsonl", b"[" * 100_000, ["line 1: expected JSON"]),
        ("bad.jsonl", b'{"prompt": ' * 100_000, ["line 1: expected JSON"]),
        ("bad.jsonl", b"9" * 5000, ["line 1: expected JSON"]),
        ("bad.jsonl", b'"\\ud800"', ["line 1:", "U+D800"]),
        ("long.txt", b"short\n" + b"word " * 300, ["long.txt, line 2: the model sees 32 tokens"]),
    ],
)
def test_a_bad_input_is_reported_with_its_line(place, name, content, words):
    if content is not None:
        Path(name).write_bytes(content)
    with refused(place, *words):
        go(input_file=name)


def test_a_directory_as_input_is_refused(place):
    with refused(place, "cannot read the prompts: Is a directory"):
        go(input_file=place)


@pytest.mark.parametrize(("name", "value"), [("LARGEST", 50), ("MOST", 7)])
def test_an_endless_input_is_refused(place, monkeypatch, name, value):
    monkeypatch.setattr(batch, name, value)
    with refused(place, "found more: split it into several files"):
        go()


def test_an_input_of_the_largest_size_is_read(place, monkeypatch):
    monkeypatch.setattr(batch, "LARGEST", Path("prompts.txt").stat().st_size)
    monkeypatch.setattr(batch, "MOST", 8)
    go()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_devices_as_input(place):
    with refused(place, "expected at most 268 MB"):
        go(input_file="/dev/zero")
    go(input_file="/dev/null")
    assert Path("out.jsonl").read_bytes() == b""


def test_a_pipe_is_an_input(place):
    os.mkfifo("pipe")
    writer = threading.Thread(target=write_prompts, args=(PROMPTS, "pipe"))
    writer.start()
    go(input_file="pipe")
    writer.join()
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n": -1}, "n_tokens_to_generate must be 0 or more"),
        ({"batch_size": 0}, "batch_size must be 1 or more, found 0"),
        ({"model_size": "nosuchmodel"}, "unknown model 'nosuchmodel'"),
    ],
)
def test_settings_are_checked_before_weights_are_opened(place, monkeypatch, more, words):
    monkeypatch.setattr(utils, "load_params", lambda *_: pytest.fail("these weights are not needed"))
    with refused(place, words):
        go(**more)


def test_zero_tokens_give_empty_texts(place):
    go(n=0)
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS, 0)


# settings


def test_defaults_are_those_of_the_other_commands():
    ours, others = (inspect.signature(command.main).parameters for command in (batch, generate))
    shared = ours.keys() & others.keys()
    assert shared == {
        "n_tokens_to_generate", "model_size", "models_dir", "sampling", "stop", "json", "logprobs"
    }  # fmt: skip
    assert [ours[name].default for name in shared] == [others[name].default for name in shared]


@pytest.mark.parametrize(
    ("flags", "sampling"),
    [
        ((), {}),
        (("--top_k", 40, "--seed", 1), {"temperature": 1, "top_k": 40, "seed": 1}),
        (("-t", 0.7, "--top_p", 0.9, "-s", 2), {"temperature": 0.7, "top_p": 0.9, "seed": 2}),
    ],
)
def test_the_settings_are_those_of_the_other_commands(place, flags, sampling):
    assert run("prompts.txt", *SMALL, *flags) == (0, expected(PROMPTS, **sampling), b"")


@pytest.mark.parametrize(
    ("flags", "message"),
    [(("-t", 1, "-s", -1), b"seed must be a whole number"), (("-b", 0), b"batch_size must be 1 or more, found 0")],
)
def test_a_mistake_is_one_line_and_status_2(place, flags, message):
    status, out, err = run("prompts.txt", *SMALL, *flags, "-o", "out.jsonl")
    assert (status, out, err.count(b"\n")) == (2, b"", 1)
    assert err.startswith(b"python -m picogpt.batch: error: ")
    assert message in err
    assert names() == ["prompts.txt"]


@pytest.mark.parametrize("batch_size", [1, 3, 10**9])
def test_texts_do_not_depend_on_the_batch(place, batch_size):
    go(sampling=Sampling(1.0, seed=1), batch_size=batch_size)
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS, temperature=1.0, seed=1)


# output


def test_a_run_that_is_done_says_so(place, capsys):
    go()
    done = snapshot(place)
    assert done["out.jsonl"] == expected(PROMPTS)
    assert capsys.readouterr() == ("", "")
    go()
    assert capsys.readouterr() == ("", "8 of 8 were there already\n")
    assert snapshot(place) == done


def test_a_text_is_on_the_disk_before_the_output_has_it(place, monkeypatch):
    events = []
    real = results.write_whole
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append("sync"))
    monkeypatch.setattr(results, "write_whole", lambda *a: events.append("write") or real(*a))
    go()
    # the journal's first line, its name, what earlier runs have left (nothing); then each text twice
    assert "".join(event[0] for event in events) == "ss" + "w" + "sw" * 8


def test_a_run_with_more_prompts_resumes(place, capsys):
    write_prompts(PROMPTS[:3])
    go()
    write_prompts(PROMPTS)
    go()
    assert capsys.readouterr().err == "3 of 8 were there already\n"
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS)


def interrupted(monkeypatch, n_texts, error=KeyboardInterrupt, **how):
    """Run until n_texts texts are complete."""
    real, added = results.ResumableResults.add, []

    def add(self, number, text):
        if len(added) == n_texts:
            raise error
        real(self, number, text)
        added.append(number)

    with monkeypatch.context() as patch, suppress(error):
        patch.setattr(results.ResumableResults, "add", add)
        go(**how)
    return added


def test_texts_that_were_complete_out_of_order_are_kept(place, monkeypatch, capsys):
    added = interrupted(monkeypatch, 1, n=12, model_size="ends", batch_size=2)
    assert added == [1], "the second text should meet the end"
    assert not Path("out.jsonl").exists()  # it would be empty
    others = interrupted(monkeypatch, 9, n=12, model_size="ends")
    assert sorted(added + others) == list(range(8))
    go(n=12, model_size="ends")
    assert capsys.readouterr().err == "1 of 8 were there already\n8 of 8 were there already\n"
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS, 12, "ends")


@pytest.mark.parametrize(
    ("again", "words"),
    [
        ({"sampling": Sampling(1.0, seed=2)}, "expected --seed 1 as in the earlier run, found 2"),
        ({"sampling": Sampling(1.0)}, "expected --seed 1 as in the earlier run, found None"),
        ({"sampling": Sampling(0.5, seed=1)}, "expected --temperature 1.0 as in the earlier run, found 0.5"),
        ({"sampling": Sampling(1.0, 40, seed=1)}, "expected --top_k 0 as in the earlier run, found 40"),
        ({"sampling": Sampling(1.0, 0, 0.9, seed=1)}, "expected --top_p 1.0 as in the earlier run, found 0.9"),
        ({"n": 5}, "expected --n_tokens_to_generate 4 as in the earlier run, found 5"),
        ({"model_size": "other"}, "expected the model tiny as in the earlier run, found other, which is another"),
        ({"model_size": "wider"}, "expected the model tiny as in the earlier run, found wider, which is another"),
        ({"model_size": "ends"}, "expected the model tiny as in the earlier run, found ends, which is another"),
        ({"input_file": "changed.txt"}, "expected prompt 3 to be '' as in the earlier run, found 'x'"),
        ({"input_file": "shorter.txt"}, "expected prompt 3 to be '' as in the earlier run, found None"),
    ],
)
@pytest.mark.parametrize("n_texts", [3, 8])
def test_a_run_that_differs_from_the_earlier_one_is_refused(place, monkeypatch, capsys, n_texts, again, words):
    how = {"sampling": Sampling(1.0, seed=1)}
    interrupted(monkeypatch, n_texts, **how)
    write_prompts([*PROMPTS[:2], "x", *PROMPTS[3:]], "changed.txt")
    write_prompts(PROMPTS[:2], "shorter.txt")
    with refused(place, words):
        go(**how | again)
    capsys.readouterr()
    go(**how)
    assert capsys.readouterr().err == f"{n_texts} of 8 were there already\n"
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS, temperature=1.0, seed=1)


def test_a_model_of_another_shape_is_refused_before_its_weights_are_opened(place, monkeypatch):
    go()
    monkeypatch.setattr(utils, "load_params", lambda *_: pytest.fail("these weights are not needed"))
    with refused(place, "found wider, which is another"):
        go(model_size="wider")


def test_fingerprints_of_different_models_differ():
    def fingerprint(n_head=1, vocabulary=None, merges=("a b",)):
        return batch.fingerprint(
            Model(Encoder(vocabulary or {"a": 0, "b": 1, "ab": 2}, merges), {"n_head": n_head}, {})
        )

    others = [fingerprint(2), fingerprint(vocabulary={"a": 1, "b": 0, "ab": 2}), fingerprint(merges=())]
    assert len({fingerprint(), *others}) == 4
    assert fingerprint() == fingerprint()


def test_the_same_model_may_have_moved(place, models_dir):
    go()
    done = snapshot(place)
    go(model_size=str(models_dir / "tiny"))
    assert snapshot(place) == done


def test_a_resumed_run_without_a_seed_warns(place, monkeypatch, capsys):
    interrupted(monkeypatch, 3, sampling=Sampling(1.0))
    go(sampling=Sampling(1.0))
    assert capsys.readouterr().err == "3 of 8 were there already; without --seed, the others cannot be reproduced\n"
    texts = {json.loads(line)["text"] for line in Path("out.jsonl").read_bytes().splitlines()}
    assert len(texts) == 8, "one prompt is there twice"


# files that are not ours


FOREIGN = {
    "one line": b'{"my":"one-line file"}',
    "prompts": b"".join(json.dumps({"prompt": prompt}).encode() + b"\n" for prompt in PROMPTS),
    "texts of others": b'{"prompt": "ROMEO:", "text": "dear to me"}\n',
    "half a line of ours": b'{"prompt": "ROMEO:", "te',
    "one byte": b"\n",
    "brackets": b"[" * 100_000,
    "large": b"x" * 3_000_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_not_ours_is_refused(place, content):
    Path("out.jsonl").write_bytes(content)
    with refused(place, "out.jsonl: expected no file, an empty one, or the texts", "choose another --output_file"):
        go()
    with refused(place, "unknown model"):
        go(model_size="nosuchmodel")


@pytest.mark.parametrize("content", [b"", *FOREIGN.values()], ids=["empty", *FOREIGN])
def test_a_journal_that_is_not_ours_is_refused(place, content):
    Path("out.jsonl.run").write_bytes(content)
    with refused(place, "out.jsonl.run: expected no file, or a batch's journal, found another one"):
        go()


def test_other_texts_beside_a_journal_of_ours_are_refused(place):
    go()
    for content in (FOREIGN[name] for name in FOREIGN if name != "half a line of ours"):
        Path("out.jsonl").write_bytes(content)
        with refused(place, "out.jsonl: expected no file, an empty one, or the texts that"):
            go()


def test_the_input_as_output_is_refused(place):
    with refused(place, "prompts.txt: expected no file, an empty one, or the texts"):
        go("prompts.txt")
    Path("prompts.jsonl").write_bytes(FOREIGN["prompts"])
    with refused(place, "prompts.jsonl: expected no file, an empty one, or the texts"):
        go("prompts.jsonl", "prompts.jsonl")


def test_an_empty_file_is_accepted_as_output(place):
    Path("out.jsonl").touch()
    go()
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS)


def test_an_output_that_was_deleted_is_written_again(place):
    go()
    Path("out.jsonl").unlink()
    go()
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS)


def test_a_link_is_followed(place):
    Path("there").mkdir()
    Path("link.jsonl").symlink_to("there/out.jsonl")
    go("link.jsonl")
    assert Path("there/out.jsonl").read_bytes() == expected(PROMPTS)
    assert names("there") == ["out.jsonl", "out.jsonl.run"]
    go("there/out.jsonl")
    assert Path("link.jsonl").is_symlink()


def test_a_hard_link_stays_one(place):
    Path("out.jsonl").touch()
    os.link("out.jsonl", "second.jsonl")
    go()
    assert Path("second.jsonl").read_bytes() == expected(PROMPTS)
    with refused(place, "second.jsonl: expected no file"):
        go("second.jsonl")


@pytest.mark.parametrize(
    ("output_file", "words"),
    [
        (".", "Is a directory"),
        ("", "Is a directory"),
        ("/", "Is a directory"),
        ("none/out.jsonl", "No such file or directory"),
        ("prompts.txt/out.jsonl", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("x" * 252, "File name too long"),
        ("loop", "Too many levels of symbolic links"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(place, output_file, words):
    Path("loop").symlink_to("loop")
    with refused(place, words):
        go(output_file)


def test_a_read_only_directory_is_refused(place):
    Path("disk").mkdir()
    Path("disk/out.jsonl").touch()
    with read_only(place / "disk"), refused(place / "disk", "cannot write to it: "):
        go("disk/out.jsonl")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not stop root")
def test_a_read_only_file_is_refused(place):
    Path("out.jsonl").touch(mode=0o444)
    with refused(place, "Permission denied"):
        go()


# streams


def test_devices_take_lines(place):
    go("/dev/null")
    assert run("prompts.txt", *SMALL, "-o", "/dev/stdout") == (0, expected(PROMPTS), b"")
    with Path("redirected").open("ab") as file:
        file.write(b"before\n")
        file.flush()
        assert run("prompts.txt", *SMALL, "-o", "/dev/stdout", stdout=file) == (0, None, b"")
    assert Path("redirected").read_bytes() == b"before\n" + expected(PROMPTS)
    assert names() == ["prompts.txt", "redirected"]


def test_a_full_device_is_reported(place):
    with refused(place, "/dev/full: cannot write to it: No space left on device"):
        go("/dev/full")
    with Path("/dev/full").open("wb") as full:
        status, _, err = run("prompts.txt", *SMALL, stdout=full)
    assert (status, err) == (2, b"python -m picogpt.batch: error: cannot write to stdout: No space left on device\n")


def test_a_pipe_takes_lines(place):
    os.mkfifo("pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_bytes()))
    reader.start()
    go("pipe")
    reader.join()
    assert found == [expected(PROMPTS)]
    assert names() == ["pipe", "prompts.txt"]


def test_a_closed_pipe_raises_broken_pipe_error(place):
    os.mkfifo("pipe")
    reader = threading.Thread(target=lambda: Path("pipe").open("rb").close())
    reader.start()
    with pytest.raises(BrokenPipeError):
        go("pipe")
    reader.join()


def test_each_line_is_written_as_soon_as_it_is_complete(place):
    with start("prompts.txt", "-m", "slow", "-n", 40, "-b", 1) as process:
        assert json.loads(process.stdout.readline())["prompt"] == PROMPTS[0]
        assert process.poll() is None  # most texts are still to come
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


def test_the_bar_counts_tokens(place, monkeypatch):
    bars = []

    def progress(steps, total, unit, beside_text):
        bars.append((len(steps := list(steps)), total, unit, beside_text))
        return steps

    monkeypatch.setattr(cli, "progress", progress)
    go()
    go(None, n=3)
    write_prompts([*PROMPTS, "more"])
    go()
    assert bars == [(32, 32, "token", False), (24, 24, "token", True), (4, 4, "token", False)]


# two runs at once


def test_a_second_run_is_refused(place):
    Path("link").symlink_to("out.jsonl")
    with results.opened("out.jsonl", PROMPTS) as out:
        out.begin({}, {})
        os.link("out.jsonl", "second")
        for name in ("out.jsonl", "link", "second"):
            with refused(place, "another run is writing to it"):
                go(name)
        status, _, err = run("prompts.txt", *SMALL, "-o", "out.jsonl")
        assert (status, err.count(b"\n"), b"another run is writing to it" in err) == (2, 1, True)


def test_a_file_that_was_removed_while_it_was_locked_is_not_written(place, monkeypatch):
    real = results.files.try_to_lock
    monkeypatch.setattr(results.files, "try_to_lock", lambda *a, **k: Path("out.jsonl").unlink() or real(*a, **k))
    with pytest.raises(UserError, match="No such file"):
        go()
    assert names() == ["prompts.txt"]


# interruptions of the process: those of a run at any byte are in test_results.py

CODE = """
import os, signal, sys
from picogpt.__main__ import main
from tests.first_run import limit_files
kind, n = sys.argv.pop(1).split(":")
if kind == "sigint":
    from picogpt.commands import results
    real, count = results.write_whole, iter(range(100))
    results.write_whole = lambda *a: real(*a) if next(count) < int(n) else os.kill(os.getpid(), signal.SIGINT)
else:
    limit_files(int(n), deadly=kind == "byte")
main("batch")
"""


@pytest.mark.parametrize(
    ("fate", "status"),
    [("byte:700", -signal.SIGXFSZ), ("full:700", 2), ("sigint:3", -signal.SIGINT)],
)
def test_the_command_resumes_after_it_was_stopped(place, fate, status):
    arguments = ("prompts.txt", *SMALL, "-o", "out.jsonl")
    process = subprocess.run(
        [sys.executable, "-c", CODE, fate, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.returncode == status
    assert process.stderr.count(b"\n") == (status == 2)
    before = Path("out.jsonl").read_bytes()
    assert expected(PROMPTS).startswith(before)
    status, out, err = run(*arguments)
    assert (status, out) == (0, b"")
    assert err.endswith(b" of 8 were there already\n")
    assert Path("out.jsonl").read_bytes() == expected(PROMPTS)
