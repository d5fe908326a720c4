"""`python -m picogpt.train` as its users call it: flags, files with settings, mistakes, and what it writes."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import picogpt
from picogpt.commands import arguments, cli, presets, train
from picogpt.errors import UserError
from picogpt.training import picture
from picogpt.training.run import read_table
from picogpt.training.settings import Settings
from picogpt.training.trainer import Trainer
from tests.disks import small_disk
from tests.helpers import ENVIRONMENT, ROOT, SHAKESPEARE, snapshot

TEXT = "First Citizen:\nWe are accounted poor citizens, the patricians good.\n\nAll:\nSpeak, speak! It's 1607.\n" * 20
SMALL = [
    *("--n_layer", "1", "--n_head", "2", "--n_embd", "16", "--n_ctx", "16"),
    *("--batch_size", "4", "--steps", "4", "--evaluate_every", "2", "--n_threads", "1"),
]
MODEL = ["encoder.json", "hparams.json", "params", "vocab.bpe"]
RUN = sorted([*MODEL, "held_out.npy", "log.csv", "settings.toml", "state.safetensors", "train.npy"])


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def run(*words: str) -> None:
    cli.run(train.main, list(words))


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr(picture, "draw", lambda run: None)


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_start_that_was_killed_can_begin_again(text):
    run("text.txt", "--output_dir", "whole", *SMALL)
    (text / "out").mkdir()
    for name in ("encoder.json", "hparams.json", "train.npy"):
        (text / "out" / name).write_bytes(b"half")
    (text / "out" / ".held_out.npy.new").write_bytes(b"")
    run("text.txt", "--output_dir", "out", *SMALL)
    assert {*names(text / "whole")} <= {*names(text / "out")}
    assert (text / "out" / "train.npy").read_bytes() == (text / "whole" / "train.npy").read_bytes()


def test_a_run_is_a_model_that_works(text, capsys):
    run("text.txt", "--output_dir", "out", *SMALL)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 2", "step 4"]
    rows = read_table(text / "out" / "log.csv")
    assert [row["step"] for row in rows] == [2, 4] and rows[1]["tokens"] == 4 * 4 * 16
    loss = rows[1]["held_out_loss"]
    assert f"held out {loss:.4f} ({loss:.4f} per character)" in lines[1]
    assert names(text / "out") == RUN
    model = picogpt.load("./out")
    assert model.hparams == {"n_vocab": len(set(TEXT)), "n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 1}
    assert len(model.generate("First", 5)) == 5
    ids = [*np.load(text / "out" / "train.npy"), *np.load(text / "out" / "held_out.npy")]
    assert model.decode(ids) == TEXT and len(np.load(text / "out" / "held_out.npy")) == len(TEXT) // 10


@pytest.mark.parametrize("kind", ["characters", "bytes", "300", "shakespeare", "./other"])
def test_losses_per_character_can_be_compared(text, kind, capsys):
    if kind == "300":
        pytest.importorskip("tokenizers", reason="tokenizers learns a BPE")
    if kind == "./other":
        run("text.txt", "--output_dir", "other", "--tokenizer", "bytes", *SMALL)
    run("text.txt", "--output_dir", "out", "--tokenizer", kind, *SMALL)
    held_out = np.load(text / "out" / "held_out.npy")
    loss = read_table(text / "out" / "log.csv")[-1]["held_out_loss"] * len(held_out) / (len(TEXT) // 10)
    assert f"({loss:.4f} per character)" in capsys.readouterr().out.splitlines()[-1]


def test_a_sample_is_shown_at_each_evaluation(text, capsys):
    run("text.txt", "--output_dir", "out", "--sample", "All:", *SMALL)
    out = capsys.readouterr().out
    assert out.count("\nAll:") == 2 and out.startswith("step 2")
    run("text.txt", "--output_dir", "again", "--sample", "All:", *SMALL)
    speeds = [line for line in out.splitlines() if "tokens/s" not in line]
    assert [line for line in capsys.readouterr().out.splitlines() if "tokens/s" not in line] == speeds


def test_training_starts_from_another_model(text, capsys):
    run("text.txt", "--output_dir", "out", "--start_from", "shakespeare", *SMALL[6:], "--learning_rate", "1e-9")
    origin, tuned = picogpt.load("shakespeare", SHAKESPEARE.parent), picogpt.load("./out")
    assert tuned.hparams == origin.hparams and tuned.encode(TEXT) == origin.encode(TEXT)
    assert np.allclose(tuned.params["wte"], origin.params["wte"], atol=1e-6)
    stored = presets.read_toml(text / "out" / "settings.toml")
    assert {name: stored[name] for name in ("n_layer", "n_head", "n_embd", "n_ctx", "own_head")} == {
        "n_layer": 6, "n_head": 6, "n_embd": 192, "n_ctx": 16, "own_head": False,
    }  # fmt: skip
    assert "tokenizer" not in stored


def test_a_smaller_context_or_the_same_size_may_stand_beside_start_from(text, capsys):
    run("text.txt", "--output_dir", "first", *SMALL)
    run("text.txt", "--output_dir", "second", "--start_from", "./first", *SMALL[:6], "--n_ctx", "8", *SMALL[8:])
    assert presets.read_toml(text / "second" / "settings.toml")["n_ctx"] == 8
    assert picogpt.load("./second").hparams["n_ctx"] == 16
    run("text.txt", "--output_dir", "third", "--start_from", "./first", *SMALL[8:])
    stored = presets.read_toml(text / "third" / "settings.toml")
    assert [stored[name] for name in ("n_layer", "n_head", "n_embd", "n_ctx")] == [1, 2, 16, 16]
    run("--output_dir", "third", "--resume")
    with pytest.raises(UserError, match="--n_layer: expected 1, with which the run in third was started, found 6"):
        run("--output_dir", "third", "--resume", "--n_layer", "6")


def test_settings_come_from_flags_before_files_before_recipes(text, monkeypatch):
    (text / "a.toml").write_text('n_embd = 24\nlearning_rate = 3e-4\ntokenizer = "bytes"\nsteps = 9\n')
    recipes = text / "recipes"
    recipes.mkdir()
    (recipes / "mine.toml").write_text("n_embd = 32\ndropout = 0.25\n")
    monkeypatch.setattr(presets, "RECIPES", recipes)
    run("text.txt", "--output_dir", "out", "--settings_file", "a.toml", "--recipe", "mine", *SMALL[:4], *SMALL[6:])
    stored = presets.read_toml(text / "out" / "settings.toml")
    expected = {"n_embd": 24, "learning_rate": 3e-4, "tokenizer": "bytes", "steps": 4, "dropout": 0.25, "n_layer": 1}
    assert {name: stored[name] for name in expected} == expected
    assert stored["text_file"] == "text.txt"


@pytest.mark.parametrize("name", ["gpt1", "gpt2", "gpt3"])
def test_a_recipe_fills_in_the_settings_of_a_paper(name):
    flags = arguments.flags_of(train.main)
    values = presets.with_files({"recipe": name, "text_file": "text.txt", "output_dir": "out"}, flags)
    parsed = {key: arguments.parser_for(key, flags[key])(text) for key, text in values.items()}
    shape = train.Shape(**{key: parsed[key] for key in parsed if key in train.Shape.__dataclass_fields__})
    settings = Settings(**{key: parsed[key] for key in parsed if key in Settings.__dataclass_fields__})
    assert (shape.n_layer, shape.n_head, shape.n_embd) == (12, 12, 768)
    assert shape.n_ctx == {"gpt1": 512, "gpt2": 1024, "gpt3": 2048}[name]
    assert settings.warmup_steps < settings.steps
    if name == "gpt3":
        n_tokens = np.cumsum([settings.batch_size_at(step) * 2048 for step in range(20000)])
        assert n_tokens[0] == 32768 and n_tokens[settings.growth_steps] == pytest.approx(4e9, rel=5e-3)
        assert n_tokens[settings.warmup_steps] == pytest.approx(375e6, rel=2e-2)
        assert 4e9 + (settings.steps - settings.growth_steps) * 256 * 2048 == pytest.approx(260e9, rel=1e-3)


FROM = ["--start_from", "./trained"]
BAD = [
    ([], ["expected --output_dir, found none"]),
    (["text.txt"], ["expected --output_dir, found none"]),
    (["--output_dir", "out"], ["expected a text file, found none"]),
    (["none.txt"], ["none.txt: expected a file, found none"]),
    (["."], ["expected a file, found a directory"]),
    (["latin.txt"], ["latin.txt: expected UTF-8"]),
    (["empty.txt"], ["expected a text"]),
    (["short.txt"], ["the text to train on: expected a text longer than a window of 16 tokens, found 9 tokens"]),
    (["text.txt", "--held_out", "0.001"], ["the text held out: expected a text longer than a window"]),
    (["text.txt", "--held_out", "1"], ["held_out must lie between 0 and 1, found 1.0"]),
    (["text.txt", "--steps", "0"], ["steps must be 1 or more"]),
    (["text.txt", "--dropout", "1"], ["dropout must be"]),
    (["text.txt", "--evaluate_every", "0"], ["evaluate_every must be 1 or more"]),
    (["text.txt", "--n_threads", "0"], ["n_threads must be 1 or more"]),
    (["text.txt", "--n_head", "3"], ["n_head to divide n_embd 16, found 3"]),
    (["text.txt", "--n_layer", "0"], ["1 to", "as n_layer, found 0"]),
    (["text.txt", "--tokenizer", "letters"], ["tokenizer: expected characters, bytes, a number", "'letters'"]),
    (["text.txt", "--tokenizer", "12"], ["257 to 1048576 tokens"]),
    (["text.txt", "--start_from", "./none"], ["./none"]),
    (["text.txt", *FROM, "--n_layer", "2"], ["--n_layer: expected 1 beside --start_from ./trained, found 2: leave it"]),
    (["text.txt", *FROM, "--n_embd", "8"], ["--n_embd: expected 16 beside --start_from ./trained, found 8: leave it"]),
    (["text.txt", *FROM, "--n_head", "4"], ["--n_head: expected 2 beside --start_from ./trained, found 4: leave it"]),
    (["text.txt", *FROM, "--n_ctx", "17"], ["--n_ctx: expected 16 or less beside --start_from ./trained, found 17"]),
    (["text.txt", *FROM, "--own_head"], ["--own_head: expected False beside --start_from ./trained, found True"]),
    (["text.txt", *FROM, "--tokenizer", "characters"], ["--tokenizer: expected none beside --start_from ./trained"]),
    (["text.txt", "--sample", "é"], ["cannot be encoded with this vocabulary"]),
    (["text.txt", "--sample", "a" * 16], ["sees 16 tokens"]),
    (["text.txt", "--sample", ""], ["one token or more"]),
    (["other.txt", "--tokenizer", "./trained"], ["cannot be encoded with this vocabulary", "has no token for 'é'"]),
    (["text.txt", "--settings_file", "none.toml"], ["none.toml: expected a file"]),
    (["text.txt", "--settings_file", "bad.toml"], ["bad.toml: expected TOML"]),
    (["text.txt", "--settings_file", "unknown.toml"], ["unknown setting n_embed: did you mean n_embd?"]),
    (["text.txt", "--settings_file", "list.toml"], ["expected a number, a text, true or false as n_embd, found [4]"]),
    (["text.txt", "--recipe", "gpt5"], ["--recipe: expected", "found 'gpt5'"]),
    (["text.txt", "--output_dir", "text.txt"], ["text.txt: expected a new or empty directory, found a file"]),
    (["text.txt", "--output_dir", "files"], ["files: expected a new or empty directory, found files"]),
    (["text.txt", "--output_dir", "trained"], ["found a run: go on with --resume"]),
    (["--resume"], ["--resume: expected --output_dir, found none"]),
    (["--resume", "--output_dir", "out"], ["settings.toml: expected a file, found none: name the directory of a run"]),
    (["--resume", "--output_dir", "trained", "--n_embd", "8"], ["--n_embd: expected 16", "found 8: leave it out"]),
    (["--resume", "--output_dir", "trained", "--start_from", "124M"], ["--start_from: expected none", "leave it out"]),
    (["--resume", "--output_dir", "trained", "--settings_file", "steps.toml"], ["--steps: expected 4", "found 5"]),
    (["text.txt", "--learning_rate", "1e30", "--clip", "0"], ["step 1: expected a finite loss", "a smaller learn"]),
]


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("mistakes")
    for name, content in {
        "text.txt": TEXT, "other.txt": TEXT + "é", "short.txt": "too short!", "empty.txt": "", "bad.toml": "n_embd = ",
        "unknown.toml": "n_embed = 4", "list.toml": "n_embd = [4]", "steps.toml": "steps = 5",
    }.items():  # fmt: skip
        (directory / name).write_text(content, encoding="utf-8")
    (directory / "latin.txt").write_bytes(b"caf\xe9 " * 100)
    (directory / "files").mkdir()
    (directory / "files" / "mine").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        run("text.txt", "--output_dir", "trained", *SMALL)
    return directory


@pytest.mark.parametrize(("words", "expected"), BAD, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_costs_one_line_and_changes_nothing(mistakes, monkeypatch, words, expected, recwarn, capsys):
    monkeypatch.chdir(mistakes)
    before = {p.name: snapshot(p) if p.is_dir() else p.read_bytes() for p in mistakes.iterdir() if p.name != "lost"}
    where = [] if "--output_dir" in words or words in ([], ["text.txt"], ["--resume"]) else ["--output_dir", "lost"]
    small = [] if "--resume" in words else [*SMALL]
    for flag in {*words} & {*small}:
        if flag.startswith("--"):
            del small[small.index(flag) :][:2], small[small.index(flag) : small.index(flag) + 2]
    with pytest.raises(UserError) as caught:
        run(*words, *where, *small)
    for word in expected:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value) and not recwarn.list and capsys.readouterr().err == ""
    after = {p.name: snapshot(p) if p.is_dir() else p.read_bytes() for p in mistakes.iterdir() if p.name != "lost"}
    assert after == before
    if "--learning_rate" not in words:
        assert not (mistakes / "lost").exists()


def test_a_full_disk_costs_one_line_and_loses_nothing(text):
    with small_disk(text / "disk", 3) as disk:
        (disk / "filler").write_bytes(bytes(2_900_000))
        with pytest.raises(UserError, match=r"No space left on device.*make room") as caught:
            run("text.txt", "--output_dir", "disk/out", *SMALL[:4], "--n_embd", "64", *SMALL[6:])
        assert "\n" not in str(caught.value)
        (disk / "filler").unlink()
        run("--output_dir", "disk/out", "--resume")
        assert picogpt.load("./disk/out").generate("First", 3)


def test_a_finished_run_says_so(text, capsys):
    run("text.txt", "--output_dir", "out", *SMALL)
    before = snapshot(text / "out")
    capsys.readouterr()
    run("--output_dir", "out", "--resume", "text.txt", "--n_embd", "16")
    assert capsys.readouterr().err.startswith("out: all 4 steps were done before")
    assert snapshot(text / "out") == before


def test_a_run_without_progress_ends_early_and_says_so(text, capsys):
    many = ["100" if word == "4" and before == "--steps" else word for before, word in pairwise(["", *SMALL])]
    many += ["--learning_rate", "1e-9", "--min_learning_rate", "0", "--patience", "3"]
    run("text.txt", "--output_dir", "out", *many)
    before, said = snapshot(text / "out"), capsys.readouterr()
    n_lines = len(said.out.splitlines())
    assert 4 <= n_lines < 50
    assert said.err == f"out: ended at step {2 * n_lines}, 3 evaluations after the best one\n"
    run("--output_dir", "out", "--resume")
    assert capsys.readouterr() == ("", said.err)
    assert snapshot(text / "out") == before


def test_without_matplotlib_a_line_says_so(text, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run(str(text / "text.txt"), "--output_dir", str(text / "out"), *SMALL)
    assert capsys.readouterr().err == 'no loss.png: it needs matplotlib: pip install "picogpt-numpy[train]"\n'
    assert names(text / "out") == RUN


def test_ctrl_c_saves_and_resume_goes_on(text, monkeypatch, capsys):
    real, steps = Trainer.train, []

    def press(trainer, *rest):
        steps.append(trainer.step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(trainer, *rest)

    monkeypatch.setattr(Trainer, "train", press)
    with pytest.raises(KeyboardInterrupt):
        run("text.txt", "--output_dir", "out", *SMALL)
    run("--output_dir", "out", "--resume")
    assert steps == [0, 1, 2, 3]
    assert [row["step"] for row in read_table(text / "out" / "log.csv")] == [2, 4]


# as a process


def command(*words: str, **how) -> subprocess.CompletedProcess:
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "picogpt.train", *words], capture_output=True, env=environment, timeout=120, **how
    )


def test_the_command_writes_lines_to_stdout_alone(text):
    done = command("text.txt", "--output_dir", "out", "--tokenizer", "bytes", *SMALL)
    drawn = names(text / "out") == sorted([*RUN, "loss.png"])
    assert done.returncode == 0 and (done.stderr == b"" if drawn else b"it needs matplotlib" in done.stderr)
    assert done.stdout.count(b"\n") == 2 and done.stdout.startswith(b"step 2: loss 5.5")


def test_a_mistake_is_one_line_with_status_2(text):
    done = command("text.txt", "--output_dir", "out", *SMALL, "--learning_rate", "1e30", "--clip", "0")
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.startswith(b"python -m picogpt.train: error: step 1: expected a finite loss, found ")
    assert done.stderr.count(b"\n") == 1


def test_a_terminal_shows_a_progress_bar(text):
    pty = pytest.importorskip("pty", reason="a terminal is needed")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    there, here = pty.openpty()
    fcntl.ioctl(here, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    words = [sys.executable, "-m", "picogpt.train", "text.txt", "--output_dir", "out", *SMALL]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=here, env=environment, timeout=120)
    shown = os.read(there, 1 << 16).decode()
    os.close(here)
    os.close(there)
    assert done.returncode == 0 and "/4" in shown and "step" in shown
    assert json.loads((text / "out" / "hparams.json").read_text())["n_layer"] == 1


def test_the_package_gives_its_four_names_when_they_are_asked_for():
    import picogpt.training as package
    from picogpt.training import model, settings, trainer

    assert package.train is trainer.train and package.Trainer is trainer.Trainer
    assert package.Settings is settings.Settings and package.loss_and_grads is model.loss_and_grads
    assert {*package.__all__} <= {*dir(package)}
    with pytest.raises(AttributeError, match="no attribute 'fit_all'"):
        package.fit_all  # noqa: B018
    words = [sys.executable, "-c", "import sys, picogpt.training; print('numpy' in sys.modules)"]
    done = subprocess.run(words, capture_output=True, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.stdout == b"False\n"
