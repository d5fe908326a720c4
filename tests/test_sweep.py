"""`python -m picogpt.train --sweep`: a run for each combination, a table and a picture, stopped and continued."""

from __future__ import annotations

import csv
import io
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picogpt.commands import cli, sweep, train
from picogpt.errors import UserError
from picogpt.training import picture
from picogpt.training.run import read_table
from tests.helpers import ENVIRONMENT, ROOT, snapshot
from tests.test_train_command import SMALL, TEXT

GRID = 'learning_rate = [1e-3, 1e30]\ntokenizer = ["characters", "shakespeare"]\n'
WORDS = ["text.txt", "--output_dir", "out", "--sweep", "grid.toml", "--clip", "0", *SMALL]


def run(*words: str) -> None:
    cli.run(train.main, list(words))


def rows(directory) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((directory / "sweep.csv").read_text())))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweep")
    (directory / "text.txt").write_text(TEXT, encoding="utf-8")
    (directory / "grid.toml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(picture, "draw_sweep", lambda *_: None)
        run(*WORDS)
    return directory


@pytest.fixture
def copy(swept, tmp_path, monkeypatch):
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picture, "draw_sweep", lambda *_: None)
    return tmp_path


def test_each_combination_is_a_run(swept):
    found = rows(swept / "out")
    assert {(row["learning_rate"], row["tokenizer"]) for row in found} == {
        (rate, kind) for rate in ("0.001", "1e+30") for kind in ("characters", "shakespeare")
    }
    characters = swept / "out" / "learning_rate=0.001,tokenizer=characters"
    assert read_table(characters / "log.csv")[-1]["step"] == 4
    assert "n_threads" not in (characters / "settings.toml").read_text()
    best, second, *failed = found
    assert float(best["loss_per_character"]) < float(second["loss_per_character"])
    for row in (best, second):
        run_directory = swept / "out" / f"learning_rate=0.001,tokenizer={row['tokenizer']}"
        loss = min(row["held_out_loss"] for row in read_table(run_directory / "log.csv"))
        length = len(TEXT) // 10 / len(np.load(run_directory / "held_out.npy"))
        assert (row["held_out_loss"], row["loss_per_character"]) == (f"{loss:.4g}", f"{loss / length:.4g}")
        assert row["step"] == "4" and row["note"] == ""
    assert all(row["note"].startswith("step 1: expected a finite loss") for row in failed)
    assert [row["held_out_loss"] for row in failed] == ["", ""]


def test_a_finished_sweep_is_only_shown_again(copy, capsys):
    (copy / "out" / "sweep.toml").write_text(GRID.replace(", 1e30", ""))
    before = snapshot(copy / "out" / "learning_rate=0.001,tokenizer=shakespeare")
    run("--output_dir", "out", "--resume")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4 and out[0] == "" and out[1].split()[:2] == ["learning_rate", "tokenizer"]
    assert "note" not in out[1] and out[2].split()[0] == "0.001"
    assert snapshot(copy / "out" / "learning_rate=0.001,tokenizer=shakespeare") == before


def test_runs_that_are_missing_or_unfinished_go_on(copy, capsys):
    (copy / "out" / "sweep.toml").write_text(GRID.replace("1e30", "2e-3").replace(', "shakespeare"', ""))
    shutil.rmtree(copy / "out" / "learning_rate=0.001,tokenizer=characters")
    run("--output_dir", "out", "--resume", "--n_threads", "2")
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in out[:2]] == ["1 of 2", "2 of 2"]
    names = {line.split(": ")[1] for line in out[:2] if ": held out " in line}
    assert names == {f"learning_rate={rate},tokenizer=characters" for rate in (0.001, 0.002)}
    assert [row["step"] for row in rows(copy / "out")] == ["4", "4"]


def test_ctrl_c_stops_all_runs_and_saves_them(copy):
    changed = {"--output_dir": "long", "--steps": "100000", "--n_threads": "2"}
    words = [sys.executable, "-m", "picogpt.train", *WORDS]
    for flag, value in changed.items():
        words[words.index(flag) + 1] = value
    (copy / "grid.toml").write_text("n_embd = [16, 24, 32]")
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        runs = [copy / "long" / f"n_embd={n}" for n in (16, 24)]
        while process.poll() is None and not all((path / "state.safetensors").exists() for path in runs):
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and stderr == b""
    assert not (copy / "long" / "n_embd=32").exists()
    for path in runs:
        assert read_table(path / "log.csv")
        with pytest.raises(UserError, match="expected a new directory, found a run"):
            train.check_new(path)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("", "expected lists of values, such as learning_rate"),
        ("n_embd = 64", r"expected a list of numbers or texts as n_embd, such as \[1, 2\], found 64"),
        ("n_embd = []", "expected a list of numbers or texts as n_embd"),
        ("n_embd = [[1]]", "expected a list of numbers or texts as n_embd"),
        ("n_embed = [1]", "unknown setting n_embed: did you mean n_embd"),
        ("output_dir = ['a', 'b']", "unknown setting output_dir"),
        ("n_embd = ['wide']", "--n_embd: expected a whole number, found 'wide'"),
        ("n_embd = [16, 17]", "n_head to divide n_embd 17"),
        ("dropout = [0.0, 1.5]", "dropout must be"),
        ("dropout = [", "expected TOML"),
    ],
)
def test_mistakes_cost_one_line_before_anything_is_run(tmp_path, monkeypatch, grid, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "grid.toml").write_text(grid)
    with pytest.raises(UserError, match=message) as caught:
        run(*WORDS)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_sweep_starts_in_a_new_directory_with_a_text(copy):
    with pytest.raises(UserError, match="out: expected a new directory, found a run: go on with --resume"):
        run(*WORDS)
    with pytest.raises(UserError, match=r"none\.txt: expected a file, found none: name a text file"):
        run("none.txt", "--output_dir", "new", "--sweep", "grid.toml")
    assert not (copy / "new").exists()


# the picture


def test_a_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    many = [{"n_embd": n, "tokenizer": kind, "loss": n / 100} for n in (16, 32) for kind in ("shakespeare", "1024")]
    for number, found in enumerate((many, many[:1])):
        picture.draw_sweep(found, ["n_embd", "tokenizer"], "loss", tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")
    picture.draw_sweep([], ["n_embd"], "loss", tmp_path / "none.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


@given(st.lists(st.sampled_from([1e-3, 2e-3, 1e-2, 64]), min_size=1, max_size=40))
def test_lines_do_not_cover_each_other(values):
    heights = picture.places(values)
    assert len({round(height, 9) for height in heights}) == len(values)
    axis = sorted(set(values))
    for value, height in zip(values, heights, strict=True):
        assert abs(height - picture.place(axis.index(value), len(axis))) <= picture.SPREAD / 2 + 1e-9
    assert sorted(heights) == [height for _, height in sorted(zip(values, heights, strict=True))]


def test_names_are_those_of_directories():
    assert sweep.name_of({"tokenizer": "./a b/c", "n_embd": 64}) == "tokenizer=._a_b_c,n_embd=64"
