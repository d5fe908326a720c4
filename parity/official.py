"""The official side: run the src/ of a clone of openai/gpt-2, unchanged, on Python 3.7 and TensorFlow 1.15.

    python3.7 official.py JOB.json REPORT.json

Nothing of picogpt is imported. A job names the clone ("gpt2_repo") and a task. ours.py does the same tasks with picogpt
and writes reports of the same form:

- "continue": greedy continuations of "prompts" by the model in "model_dir". If that directory has no TensorFlow
  checkpoint, one is made in "scratch_dir" from tensors.npz there, which has the names of model.py's variables.
- "encode": token ids of "texts" with the vocabulary in "model_dir", and the texts of those ids.
- "filter": the ids that top-k and top-p keep, for each of "rows" (logits) and each of "settings".
"""

import hashlib
import json
import os
import sys
import warnings
from pathlib import Path

N_TOP = 5  # candidates of each generated token that are reported


def continuations(job):
    import tensorflow as tf
    from encoder import get_encoder
    from model import default_hparams, model
    from sample import sample_sequence

    model_dir = Path(job["model_dir"])
    encoder = get_encoder(model_dir.name, str(model_dir.parent))
    hparams = default_hparams()
    hparams.override_from_dict(json.loads((model_dir / "hparams.json").read_text()))
    checkpoint = tf.train.latest_checkpoint(str(model_dir)) or make_checkpoint(job, hparams)

    with tf.Session(graph=tf.Graph()) as session:
        context = tf.placeholder(tf.int32, [1, None])
        output = sample_sequence(hparams=hparams, length=job["n_tokens"], context=context, batch_size=1, top_k=1)
        logits = model(hparams=hparams, X=context, reuse=tf.AUTO_REUSE)["logits"][0]
        tf.train.Saver().restore(session, checkpoint)
        prompts = []
        for prompt in job["prompts"]:
            prompt_ids = encoder.encode(prompt)
            all_ids = session.run(output, {context: [prompt_ids]})[0].tolist()
            rows = session.run(logits[len(prompt_ids) - 1 : -1], {context: [all_ids]})  # one per generated token
            prompts.append(
                {
                    "prompt": prompt,
                    "prompt_ids": prompt_ids,
                    "new_ids": all_ids[len(prompt_ids) :],
                    "text": encoder.decode(all_ids[len(prompt_ids) :]),
                    "logits": session.run(logits[-1], {context: [prompt_ids]}).tolist(),
                    "top": [[[int(i), float(row[i])] for i in row.argsort()[::-1][:N_TOP]] for row in rows],
                }
            )
    return {"prompts": prompts}


def make_checkpoint(job, hparams):
    """Save the tensors of tensors.npz as a TensorFlow checkpoint, with the graph that model.py builds."""
    import numpy as np
    import tensorflow as tf
    from model import model

    tensors = np.load(str(Path(job["scratch_dir"], "tensors.npz")))
    with tf.Session(graph=tf.Graph()) as session:
        model(hparams=hparams, X=tf.placeholder(tf.int32, [1, None]))
        variables = {v.op.name[len("model/") :]: v for v in tf.global_variables()}
        if set(tensors.files) != set(variables):
            sys.exit(f"tensors.npz: tensors differ from model.py's: {sorted(set(tensors.files) ^ set(variables))}")
        for name, variable in variables.items():
            variable.load(tensors[name].reshape(variable.shape.as_list()), session)  # matrices are [1, n_in, n_out]
        tf.train.Saver().save(session, str(Path(job["scratch_dir"], "model.ckpt")), write_meta_graph=False)
    return tf.train.latest_checkpoint(job["scratch_dir"])


def encodings(job):
    from encoder import get_encoder

    model_dir = Path(job["model_dir"])
    encoder = get_encoder(model_dir.name, str(model_dir.parent))
    all_ids = [encoder.encode(text) for text in job["texts"]]
    return {"ids": all_ids, "texts": [encoder.decode(ids) for ids in all_ids]}


def kept_sets(job):
    """Filter in the order of sample_sequence. One row at a time: the official top_p_logits mixes up rows of a batch."""
    import numpy as np
    import tensorflow as tf
    from sample import top_k_logits, top_p_logits

    kept = []
    with tf.Session(graph=tf.Graph()) as session:
        for row in job["rows"]:
            logits = tf.constant([row], tf.float32)
            filtered = []
            for setting in job["settings"]:
                x = logits / tf.to_float(setting["temperature"])
                filtered.append(top_p_logits(top_k_logits(x, k=setting["top_k"]), p=setting["top_p"]))
            kept.append([np.flatnonzero(x[0] != np.float32(-1e10)).tolist() for x in session.run(filtered)])
    return {"kept": kept}


TASKS = {"continue": continuations, "encode": encodings, "filter": kept_sets}


def world(src):
    """Versions, and the SHA-256 of every file of the official code that was imported."""
    import numpy
    import tensorflow

    paths = [src / name for name in ("encoder.py", "model.py", "sample.py")]
    return {
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "tensorflow": tensorflow.__version__,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths},
    }


def main(job_path, report_path):
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    src = Path(job["gpt2_repo"], "src")
    sys.path.insert(0, str(src))
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.filterwarnings("ignore")
    import tensorflow as tf

    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    report = dict(TASKS[job["task"]](job), world=world(src))
    Path(report_path).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
