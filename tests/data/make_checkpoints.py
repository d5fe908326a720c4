"""Write the checkpoints in tests/data/checkpoints, and what TensorFlow reads from them: expected.json.

    pip install tensorflow==1.15.5 "protobuf<3.21" "numpy<1.19"   # in an environment with Python 3.7
    python tests/data/make_checkpoints.py
    pip install tensorflow                                        # in another one; it was 2.21.0
    python tests/data/make_checkpoints.py

The first writes tf1-*, the second tf2-*; each adds its part to expected.json.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).resolve().parent / "checkpoints"
EXPECTED = HERE / "expected.json"
IS_TF1 = tf.__version__.startswith("1.")
v1 = tf.compat.v1


def gpt2(n_layer=12, n_embd=2, n_vocab=5, n_ctx=3):
    """The 148 names of OpenAI's 124M, with shapes that take little."""
    shapes = {"wte": [n_vocab, n_embd], "wpe": [n_ctx, n_embd], "ln_f/g": [n_embd], "ln_f/b": [n_embd]}
    for layer in range(n_layer):
        for name in ("ln_1", "ln_2"):
            shapes[f"h{layer}/{name}/g"] = shapes[f"h{layer}/{name}/b"] = [n_embd]
        for name, n_in, n_out in (
            ("attn/c_attn", 1, 3),
            ("attn/c_proj", 1, 1),
            ("mlp/c_fc", 1, 4),
            ("mlp/c_proj", 4, 1),
        ):
            shapes[f"h{layer}/{name}/w"] = [1, n_in * n_embd, n_out * n_embd]
            shapes[f"h{layer}/{name}/b"] = [n_out * n_embd]
    rng = np.random.RandomState(1)
    return {f"model/{name}": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def odd():
    """Shapes, numbers and names at the borders."""
    return {
        "scalar": np.float32(-0.0),
        "none": np.zeros([2, 0, 3], np.float32),
        "special": np.array([np.nan, np.inf, -np.inf, 1e-45, 3.4e38], np.float32),
        "a": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "a/long." + 40 * "name-" + "of/a_variable": np.ones(1, np.float32),
        "global_step": np.int64(7),
        "half": np.arange(3, dtype=np.float16),
    }


def save(name, tensors):
    """With a Saver, as OpenAI did."""
    with tf.Graph().as_default(), v1.Session() as session:
        values = enumerate(tensors.values())
        variables = [v1.get_variable(f"v{i}", initializer=value) for i, value in values]
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(dict(zip(tensors, variables)))  # noqa: B905 Python 3.7 has no strict=
        saver.save(session, str(HERE / name), write_meta_graph=False)
    (HERE / "checkpoint").unlink()  # it holds a full path


def save_objects(name):
    """With TensorFlow 2's Checkpoint, which adds a counter and a description of the objects."""
    model = tf.Module()
    model.wte, model.wpe = tf.Variable([[1.0, 2.0], [3.0, 4.0]]), tf.Variable([5.0])
    tf.train.Checkpoint(model=model).write(str(HERE / name))


def read(name):
    """{tensor: [dtype, shape, SHA-256 of the bytes]}, as TensorFlow reads it."""
    reader = tf.train.load_checkpoint(str(HERE / name))
    found = {}
    for tensor, shape in sorted(reader.get_variable_to_shape_map().items()):
        dtype, value = reader.get_variable_to_dtype_map()[tensor], reader.get_tensor(tensor)
        data = value if isinstance(value, bytes) else np.asarray(value).tobytes()
        found[tensor] = [dtype.name, shape, hashlib.sha256(data).hexdigest()[:16]]
    return found


def main():
    prefix = "tf1" if IS_TF1 else "tf2"
    HERE.mkdir(exist_ok=True)
    save(f"{prefix}-gpt2", gpt2())
    save(f"{prefix}-odd", odd())
    names = [f"{prefix}-gpt2", f"{prefix}-odd"]
    if not IS_TF1:
        save_objects("tf2-objects")
        names.append("tf2-objects")
    expected = json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {}
    expected.update({name: read(name) for name in names})
    parts = []
    for name, tensors in sorted(expected.items()):
        lines = ",\n".join(f"  {json.dumps(tensor)}: {json.dumps(values)}" for tensor, values in tensors.items())
        parts.append(f'"{name}": {{\n{lines}\n}}')
    EXPECTED.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


main()
