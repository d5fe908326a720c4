"""python -m picogpt.train TEXT --sweep FILE.toml: a run for each combination of values, several side by side.

    sweep.toml settings.toml      the values, and all other settings
    NAME/ NAME.txt                the directory of each run, and what it printed
    sweep.csv sweep.png           what came of each run, the best first

Every run is a process of its own on one core, so a run that fails does not stop the others.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from picogpt import files
from picogpt.commands import arguments, cli, presets
from picogpt.commands.runs import characters_per_token, check_new
from picogpt.cores import n_cores
from picogpt.errors import UserError
from picogpt.model import open_model
from picogpt.training import picture
from picogpt.training.run import LOG, SETTINGS, read_table, save_toml
from picogpt.training.settings import Settings, Shape
from picogpt.weights.shapes import checked_hparams

GRID, TABLE, PICTURE = "sweep.toml", "sweep.csv", "sweep.png"
FIXED = {"text_file", "output_dir", "resume", "settings_file", "recipe", "sweep", "n_threads"}
LOSS = "loss_per_character"
RESULTS = ("held_out_loss", LOSS, "step", "seconds", "note")

Values = dict[str, Any]


def main(
    directory: Path, asked: Values, grid: Path, resume: bool, n_threads: int | None, flags: arguments.Flags
) -> None:
    """Begin a sweep or go on with it; then write the table and the picture. Raises UserError."""
    with files.only_one(directory):
        if not resume:
            begin(directory, asked, grid, flags)
        grid = directory / GRID
        runs = {name_of(values): values for values in combinations(grid, asked, flags)}
        waiting = {name: values for name, values in runs.items() if not is_done(directory / name, asked | values)}
        for number, name in enumerate(finished(directory, waiting, asked, n_threads or n_cores()), start=1):
            cli.write([f"{number} of {len(waiting)}: {name}: {in_words(result(directory, name, runs[name]))}"])
        rows = sorted((result(directory, name, values) for name, values in runs.items()), key=order)
        names = list(next(iter(runs.values())))
        with files.explained(directory, "make room there, and go on with --resume"):
            files.save_text(directory / TABLE, as_csv(rows, [*names, *RESULTS]))
        picture.draw_sweep([row for row in rows if row[LOSS] < math.inf], names, LOSS, directory / PICTURE)
        cli.write(["\n".join(["", *as_text(rows, [*names, *RESULTS])])])


def begin(directory: Path, asked: Values, grid: Path, flags: arguments.Flags) -> None:
    """Write the files that a sweep starts with. Raises UserError for all that can be wrong."""
    check_new(directory)
    combinations(grid, asked, flags)
    files.status(asked["text_file"], advice="name a text file in UTF-8")
    text = files.read_text(grid)
    with files.explained(directory, "make room there, or name another --output_dir"):
        directory.mkdir(parents=True, exist_ok=True)
        files.save_text(directory / GRID, text)
        save_toml(directory / SETTINGS, {name: value for name, value in asked.items() if value is not None})


def combinations(grid: Path, asked: Values, flags: arguments.Flags) -> list[Values]:
    """All combinations of the values in a file, each checked. Raises UserError."""
    lists = {}
    for name, values in presets.read_toml(grid).items():
        presets.check_name(name, {key: p for key, p in flags.items() if key not in FIXED}, grid)
        if not isinstance(values, list) or not values or not all(isinstance(v, str | int | float) for v in values):
            raise UserError(
                f"{grid}: expected a list of numbers or texts as {name}, such as [1, 2], found {files.quoted(values)}"
            )
        parse = arguments.parser_for(name, flags[name])
        lists[name] = list(dict.fromkeys(parse(str(value)) for value in values))
    if not lists:
        raise UserError(f"{grid}: expected lists of values, such as learning_rate = [1e-3, 2e-3], found none")
    found = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    for values in found:
        check(asked | values, grid)
    return found


def check(values: Mapping[str, Any], grid: Path) -> None:
    """Raise UserError if a run's settings are out of range."""
    Settings(**{name: values[name] for name in Settings.__dataclass_fields__})
    shape = {name: values[name] for name in Shape.__dataclass_fields__}
    checked_hparams({"n_vocab": 1, **shape}, grid)


def name_of(values: Values) -> str:
    """The name of a run's directory.

    >>> name_of({"learning_rate": 1e-3, "n_embd": 64})
    'learning_rate=0.001,n_embd=64'
    """
    return re.sub(r"[^\w.,=+-]", "_", ",".join(f"{name}={value}" for name, value in values.items()))


def is_done(run: Path, values: Mapping[str, Any]) -> bool:
    """Whether a run has come to its last step."""
    rows = read_table(run / LOG)
    return bool(rows) and rows[-1]["step"] >= values["steps"]


def finished(directory: Path, runs: Mapping[str, Values], asked: Values, n_at_once: int) -> Iterator[str]:
    """Do runs side by side, and yield the name of each when it has ended. Ctrl-C stops them all."""
    processes: list[subprocess.Popen[bytes]] = []
    stopping = Event()

    def work(name: str) -> str:
        with (directory / f"{name}.txt").open("ab") as printed:
            process = subprocess.Popen(
                command(directory / name, asked | runs[name]), stdin=subprocess.DEVNULL, stdout=printed,
                stderr=subprocess.STDOUT, env=environment(), start_new_session=True,
            )  # fmt: skip
        processes.append(process)
        if stopping.is_set():  # since this run was about to begin
            interrupt(process)
        process.wait()
        return name

    pool = ThreadPoolExecutor(n_at_once)
    try:
        for done in as_completed([pool.submit(work, name) for name in runs]):
            yield done.result()
    except BaseException:
        stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in [*processes]:
            interrupt(process)
        raise
    finally:
        pool.shutdown()


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Let a run save a checkpoint and end."""
    with suppress(OSError, ValueError):  # it has ended; or this is Windows, where Ctrl-C reaches it anyway
        process.send_signal(signal.SIGINT)


def command(run: Path, values: Mapping[str, Any]) -> list[str]:
    """The words that begin a run, or go on with it."""
    words = [sys.executable, "-m", "picogpt.train", f"--output_dir={run}", "--n_threads=1"]
    if files.is_there(run / SETTINGS):
        return [*words, "--resume"]
    return [*words, *(f"--{name}={value}" for name, value in values.items() if value is not None and name != "sweep")]


def environment() -> dict[str, str]:
    """That of this process, in which the same picogpt is found."""
    paths = [str(cli.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def result(directory: Path, name: str, values: Values) -> Values:
    """What came of a run: its best loss on held-out text, per token and per character, and why it ended early."""
    rows = read_table(directory / name / LOG)
    printed = directory / f"{name}.txt"
    last = (files.read_text(printed, 1 << 26) if files.is_there(printed) else "").rstrip().rpartition("\n")[2]
    note = last.partition("error: ")[2]
    if not rows:
        return {**values, "held_out_loss": math.inf, LOSS: math.inf, "step": 0, "seconds": 0, "note": note or "no loss"}
    best = min(rows, key=lambda row: row["held_out_loss"])
    loss = best["held_out_loss"]
    per_character = loss / length_of_tokens(directory / name)
    found = {"held_out_loss": loss, LOSS: per_character, "step": int(best["step"]), "seconds": rows[-1]["seconds"]}
    return {**values, **found, "note": note}


def length_of_tokens(run: Path) -> float:
    """The mean number of characters of a token of the text held out."""
    model = open_model(run.absolute())
    return characters_per_token(model, np.load(run / "held_out.npy", mmap_mode="r"))


def order(row: Values) -> float:
    return float(row[LOSS])


def in_words(row: Values) -> str:
    end = f"held out {row['held_out_loss']:.4f} ({row[LOSS]:.4f} per character)" if row[LOSS] < math.inf else ""
    return ", ".join(filter(None, [end, row["note"]]))


def as_csv(rows: list[Values], columns: list[str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: shown(row[name]) for name in columns} for row in rows)
    return out.getvalue()


def as_text(rows: list[Values], columns: list[str]) -> list[str]:
    """Rows in aligned columns. A column that is empty everywhere is left out.

    >>> as_text([{"n_embd": 64, "loss": 1.25, "note": ""}, {"n_embd": 8, "loss": 2.5, "note": ""}], ["n_embd", "loss"])
    ['n_embd  loss', '    64  1.25', '     8   2.5']
    """
    columns = [name for name in columns if any(shown(row[name]) for row in rows)]
    cells = [columns, *([shown(row[name]) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return [line.rstrip() for line in lines]


def shown(value: Any) -> str:
    """A value in a table.

    >>> shown(1.23456789), shown(64), shown(float("inf"))
    ('1.235', '64', '')
    """
    return "" if value == math.inf else f"{value:.4g}" if isinstance(value, float) else str(value)
