"""A run that is interrupted, killed, or has no room continues to the same bits as one that was not disturbed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from picogpt import files
from picogpt.errors import UserError
from picogpt.training.run import LOG, STATE, Run, read_table
from picogpt.training.trainer import Trainer
from picogpt.weights import store, tensorfile
from tests import disks, small_run
from tests.helpers import ENVIRONMENT, ROOT, refused
from tests.small_run import EVERY, HPARAMS, SETTINGS, go_on, outcome


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a whole run leaves."""
    directory = small_run.prepare(tmp_path_factory.mktemp("runs") / "undisturbed")
    go_on(directory)
    return outcome(directory)


@pytest.fixture
def run(tmp_path):
    return small_run.prepare(tmp_path / "run")


class Counter:
    """A function that does something at its n-th call."""

    def __init__(self, n, function):
        self.n, self.function, self.calls = n, function, 0

    def __call__(self, *_):
        self.calls += 1
        if self.calls == self.n:
            self.function()


def test_a_run_leaves_a_model_a_log_and_its_state(undisturbed):
    assert [row["step"] for row in undisturbed["log"]] == ["3", "6"]
    assert [row["tokens"] for row in undisturbed["log"]] == ["240", "480"]
    losses = [float(row["held_out_loss"]) for row in undisturbed["log"]]
    assert losses[1] < losses[0] < 7
    assert {"params/weights.npy", LOG, STATE} <= set(undisturbed["files"])
    assert undisturbed["numbers"]["step"] == "6" and float(undisturbed["numbers"]["best"]) == pytest.approx(losses[1])
    assert undisturbed["state"].keys() == {"weights", "averaged", "mean", "square"}


# interrupted


@pytest.mark.parametrize("step", range(1, SETTINGS.steps + 1))
def test_ctrl_c_after_any_step(step, run, undisturbed):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go_on(run, on_step=Counter(step, lambda: signal.raise_signal(signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is before
    with tensorfile.TensorFile(run / STATE) as file:
        assert file.metadata["step"] == str(step)
    go_on(run)
    assert outcome(run) == undisturbed


def test_ctrl_c_twice_ends_at_once(run, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        go_on(run, on_step=Counter(4, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)]))
    with tensorfile.TensorFile(run / STATE) as file:
        assert file.metadata["step"] == "3"
    go_on(run)
    assert outcome(run) == undisturbed


@pytest.mark.parametrize("step", range(1, SETTINGS.steps + 1))
def test_an_end_without_a_checkpoint_after_any_step(step, run, undisturbed):
    def end():
        raise MemoryError

    with pytest.raises(MemoryError):
        go_on(run, on_step=Counter(step, end))
    go_on(run)
    assert outcome(run) == undisturbed


def test_interrupted_at_every_step(run, undisturbed):
    for _ in range(SETTINGS.steps):
        with pytest.raises(KeyboardInterrupt):
            go_on(run, on_step=Counter(1, lambda: signal.raise_signal(signal.SIGINT)))
    go_on(run)
    assert outcome(run) == undisturbed


def test_a_run_that_is_done_stays_as_it_is(run, undisturbed):
    go_on(run)
    steps = Counter(1, lambda: pytest.fail("a step too many"))
    go_on(run, on_step=steps)
    assert outcome(run) == undisturbed


@pytest.mark.parametrize(
    ("losses", "patience", "n_rows"),
    [
        ([4, 3, 2, 1], 1, 4),
        ([4, 3, 5, 1], 1, 3),
        ([4, 3, 3, 1], 1, 3),  # the same is not lower
        ([4, 3, 5, 1], 2, 4),
        ([4, 1, 5, 3, 2], 3, 5),
        ([1, 2, 3, 4, 5], 3, 4),
        ([1, 2, 3, 4, 5], 0, 5),
    ],
)
def test_a_run_ends_when_the_loss_has_not_been_lower_for_some_evaluations(losses, patience, n_rows, run, monkeypatch):
    settings = replace(SETTINGS, steps=EVERY * len(losses), patience=patience)
    left = iter(losses)

    class Scripted(Trainer):
        def loss(self, data):
            return float(next(left))

    monkeypatch.setattr(small_run, "Trainer", Scripted)
    go_on(run, settings)
    assert [row["held_out_loss"] for row in read_table(run / LOG)] == losses[:n_rows]
    before = outcome(run)
    go_on(run, settings)  # a resumed run has ended as well
    assert outcome(run) == before


def test_best_model_stays_when_later_ones_are_worse(run):
    settings = replace(SETTINGS, steps=9, average=0.0)
    losses = iter([2.0, 3.0, 2.5])

    class Scripted(Trainer):
        def loss(self, data):
            return next(losses)

    weights = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_run, "Trainer", Scripted)
        go_on(run, settings, on_row=lambda _: weights.append(store.open_tensors(run, HPARAMS)["wte"].copy()))
    assert (weights[0] == weights[1]).all() and (weights[1] == weights[2]).all()
    assert [row["held_out_loss"] for row in read_table(run / LOG)] == [2.0, 3.0, 2.5]
    assert Run(run).best == float("inf")
    again = Run(run)
    with Trainer(HPARAMS, settings, n_threads=1) as trainer:
        again.restore(trainer)
        assert (again.best, trainer.step, len(again.rows)) == (2.0, 9, 3)
        assert (trainer.weights.tensors["wte"] != weights[0]).any()


# killed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_killed_before_any_operation_on_files(tmp_path):
    command = [sys.executable, "-m", "tests.small_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


TEXT = "".join(f"{i % 7}, {'to be or not to be'[i % 11 :]};\n" for i in range(300))
FLAGS = [
    *("--tokenizer", "shakespeare", "--n_layer", "1", "--n_head", "2", "--n_embd", "12", "--n_ctx", "16"),
    *("--steps", "100", "--batch_size", "4", "--evaluate_every", "10", "--dropout", "0.2", "--average", "0.9"),
    *("--n_threads", "2"),
]


def command(directory, *arguments):
    return [sys.executable, "-m", "picogpt.train", "--output_dir", str(directory), *arguments]


def start(directory, *arguments):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(directory, *arguments), text=True, env=ENVIRONMENT, cwd=ROOT, **streams)


def finish(directory, *arguments):
    done = start(directory, *arguments)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    return out


def log(directory):
    return [[value for name, value in row.items() if "second" not in name] for row in read_table(directory / LOG)]


def contents(directory):
    with tensorfile.TensorFile(directory / STATE) as file:
        return {name: file.read(name).tobytes() for name in file.entries}, log(directory)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def whole(text_file):
    """The directory of a run that was not disturbed."""
    finish(text_file.parent / "whole", str(text_file), *FLAGS)
    return text_file.parent / "whole"


def test_a_process_that_is_interrupted_and_killed_is_resumed(whole, text_file, tmp_path):
    directory = tmp_path / "run"
    arguments, seen = [str(text_file)], []
    for number in (signal.SIGINT, signal.SIGKILL):
        process = start(directory, *arguments, *FLAGS)
        seen.append(process.stdout.readline())
        process.send_signal(number)
        rest, err = process.communicate(timeout=120)
        assert process.returncode == -number, err
        assert "Traceback" not in err
        seen += rest.splitlines(keepends=True)
        arguments = ["--resume"]
    out = finish(directory, *arguments, *FLAGS)
    steps = [int(re.match(r"step (\d+): ", line)[1]) for line in [*seen, *out.splitlines()]]
    assert steps == sorted(steps) and steps[0] == 10 and steps[-1] == 100
    assert len(steps) - len(set(steps)) <= 1  # a killed process may have printed more than it saved
    assert contents(directory) == contents(whole)


# a full disk


def test_a_disk_that_fills_up_costs_one_line_and_nothing_else(tmp_path, undisturbed):
    with disks.small_disk(tmp_path / "disk", megabytes=3) as disk:
        run = small_run.prepare(disk / "run")
        filler = disk / "filler"

        def fill():
            filler.write_bytes(bytes(shutil.disk_usage(disk).free - 50_000))

        with pytest.raises(UserError) as caught:
            go_on(run, on_step=Counter(4, fill))
        assert str(caught.value).startswith(f"cannot write to {run}: No space left on device")
        assert [row["step"] for row in read_table(run / LOG)] == [3]
        store.verify_params(run, HPARAMS)
        assert not list(run.glob(".*"))
        filler.unlink()
        go_on(run)
        assert outcome(run) == undisturbed


@pytest.mark.parametrize("when", ["params", LOG, STATE])
def test_a_write_that_fails_leaves_the_last_checkpoint(when, run, undisturbed, monkeypatch):
    """At the second evaluation. Whatever was written then is written again."""

    def fail(*_):
        raise OSError(28, "No space left on device")

    def break_it():
        if when == STATE:
            monkeypatch.setattr(tensorfile, "_write", fail)
        elif when == LOG:
            monkeypatch.setattr(files, "save_text", fail)
        else:
            monkeypatch.setattr(store, "_write", fail)

    with pytest.raises(
        UserError, match=r"cannot write to .*No space left.*: make room there, and go on with --resume"
    ) as caught:
        go_on(run, on_step=Counter(4, break_it))
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    with tensorfile.TensorFile(run / STATE) as file:
        assert file.metadata["step"] == "3"
    store.verify_params(run, HPARAMS)
    go_on(run)
    assert outcome(run) == undisturbed


def test_a_diverging_run_names_the_step_and_keeps_the_model(run):
    go_on(run, replace(SETTINGS, steps=3))
    with pytest.raises(UserError, match=r"^step [4-9]: expected a finite loss") as caught:
        go_on(run, replace(SETTINGS, steps=60, learning_rate=1e20, warmup_steps=0, clip=0.0, weight_decay=0.0))
    assert f"the model in {run} is " in str(caught.value) and str(caught.value).endswith("step 3")
    store.verify_params(run, HPARAMS)
    assert all(np.isfinite(row["held_out_loss"]) for row in read_table(run / LOG))


# damaged files


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    directory = small_run.prepare(tmp_path_factory.mktemp("ended") / "run")
    go_on(directory, replace(SETTINGS, steps=3))
    return directory


def damaged_states(ended):
    good = (ended / STATE).read_bytes()
    with tensorfile.TensorFile(ended / STATE) as file:
        tensors, numbers = {name: file.read(name) for name in file.entries}, dict(file.metadata)

    def saved(tensors, numbers):
        path = ended.parent / "made.safetensors"
        tensorfile.save(path, tensors, numbers)
        return path.read_bytes()

    return {
        "nothing": b"",
        "text": b"not a state at all, but a text that is longer than eight bytes",
        "cut": good[:-1],
        "cut in the header": good[:100],
        "longer": good + b"\0",
        "no numbers": saved(tensors, {}),
        "no step": saved(tensors, {name: value for name, value in numbers.items() if name != "step"}),
        "a step that is a word": saved(tensors, numbers | {"step": "three"}),
        "a step that is no number": saved(tensors, numbers | {"step": "nan"}),
        "an infinite step": saved(tensors, numbers | {"step": "inf"}),
        "a negative step": saved(tensors, numbers | {"step": "-3"}),
        "half a step": saved(tensors, numbers | {"step": "2.5"}),
        "fewer tensors": saved({"weights": tensors["weights"]}, numbers),
        "another model's": saved({name: tensor[:-1] for name, tensor in tensors.items()}, numbers),
    }


STATES = (
    "nothing", "text", "cut", "cut in the header", "longer", "no numbers", "no step", "a step that is a word",
    "a step that is no number", "an infinite step", "a negative step", "half a step", "fewer tensors",
    "another model's",
)  # fmt: skip


@pytest.mark.parametrize("damage", STATES)
def test_damaged_states_are_refused(damage, ended, run):
    (run / STATE).write_bytes(damaged_states(ended)[damage])
    with refused(run, "expected"):
        go_on(run)


LOGS = {
    "another header": "a,b,c\n1,2,3\n",
    "a missing column": "step,tokens,loss\n1,2,3\n",
    "a missing number": None,
    "a word": None,
    "bytes": b"\xff\xfe\x00\x01" * 10,
}


@pytest.mark.parametrize("damage", LOGS)
def test_damaged_logs_are_refused(damage, ended, run):
    shutil.copy(ended / STATE, run)
    good = (ended / LOG).read_text()
    made = LOGS[damage] or (good.rsplit(",", 1)[0] if damage == "a missing number" else good.replace("240", "many"))
    (run / LOG).write_bytes(made if isinstance(made, bytes) else made.encode())
    with refused(run, LOG):
        go_on(run)


@pytest.mark.parametrize("content", [None, b"", b"no array", np.lib.format.MAGIC_PREFIX + b"\x01\x00"])
def test_damaged_tokens_are_refused(content, run):
    if content is None:
        (run / "train.npy").unlink()
    else:
        (run / "train.npy").write_bytes(content)
    with refused(run, "train.npy", "expected token ids"):
        go_on(run)
