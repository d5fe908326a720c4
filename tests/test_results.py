"""The output and the journal of a batch: what a run may find when it starts, and what an interrupted run leaves."""

from __future__ import annotations

import json
import os
import signal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picogpt.commands import journal, results
from picogpt.errors import UserError
from tests.first_run import limit_files
from tests.fuzz import TIMES
from tests.helpers import refused, snapshot

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and forks are those of POSIX")

PROMPTS = ["ROMEO:", "To be, or not to be", "", "caf\udce9", "  x", "é", "ROMEO:", "one more"]


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


TEXTS = [f"text {number}\né\x00" * (number % 3) for number in range(len(PROMPTS))]
SETTINGS = {"seed": 1, "some": (1, 2)}
MODEL = {"model_size": "any", "small files": "1"}
WEIGHTS = {"weights": "2"}
LINES = [json.dumps({"prompt": p, "text": t}).encode() + b"\n" for p, t in zip(PROMPTS, TEXTS, strict=True)]
WHOLE = b"".join(LINES)
orders = st.permutations(range(len(PROMPTS)))


def attempt(directory, order, complete=lambda number: None):
    """Run, and return the numbers that were there already. `complete` is called for each text that is kept."""
    with results.opened(str(directory / "out.jsonl"), PROMPTS) as out:
        out.check(SETTINGS, MODEL)
        there = set(out.there)
        out.begin(SETTINGS, MODEL | WEIGHTS)
        for number in order:
            if number not in there:
                out.add(number, TEXTS[number])
                complete(number)
    return there


def journal_of(order):
    """The bytes of the journal of a run, line by line."""
    lines = [{"journal": "picogpt batch 2", "settings": SETTINGS, "model": MODEL | WEIGHTS}]
    lines += [{"number": n, "prompt": PROMPTS[n], "text": TEXTS[n]} for n in order]
    return list(map(journal.sealed, lines))


@st.composite
def leftovers(draw):
    """An output and a journal (None: not there): of an interrupted run, cut, damaged, or anything."""
    lines = journal_of(draw(orders)[: draw(st.integers(0, 8))])
    of_run = b"".join(lines)
    there = [json.loads(line)["number"] for line in lines[1:]]
    n_in_order = next(n for n in range(9) if n not in there)
    of_output = b"".join(LINES[:n_in_order])
    states = st.none() | st.binary(max_size=40)

    def damaged(data):
        at = draw(st.integers(0, len(data)))
        return data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]

    def some(data):
        cut = data[: draw(st.integers(0, len(data)))]
        return draw(st.sampled_from([None, data, cut, cut, damaged(data)]) | states)

    return some(of_output), some(of_run)


def write(path, data):
    if data is not None:
        path.write_bytes(data)


@settings(max_examples=400 * TIMES)
@given(left=leftovers(), order=orders)
@example(left=(b'{"my":"one-line file"}', None), order=range(8))
@example(left=(WHOLE, None), order=range(8))
@example(left=(None, journal_of([3, 0])[0][:-1]), order=range(8))
@example(left=(LINES[0], b"".join(journal_of([0, 0]))), order=range(8))
@example(left=(LINES[0], b"".join(journal_of([0])).replace(b"\n", b"\r\n")), order=range(8))
def test_any_earlier_files_are_resumed_or_left_alone(tmp_path_factory, left, order):
    directory = tmp_path_factory.mktemp("left")
    output, run_ = directory / "out.jsonl", directory / "out.jsonl.run"
    write(output, left[0])
    write(run_, left[1])
    before = snapshot(directory)
    try:
        attempt(directory, order)
    except UserError:
        assert snapshot(directory) == before
    else:
        assert output.read_bytes() == WHOLE
        assert WHOLE.startswith(left[0] or b"")
        kept = (left[1] or b"").rpartition(b"\n")
        assert run_.read_bytes().startswith(kept[0] + kept[1])
        assert attempt(directory, order) == set(range(8))


@pytest.mark.parametrize("n_texts", [0, 3])
def test_a_journal_cut_at_any_byte(tmp_path, n_texts):
    output, run_ = tmp_path / "out.jsonl", tmp_path / "out.jsonl.run"
    lines = journal_of([0, 1, 5, 2, 7, 6, 3, 4][:n_texts])
    for end in range(len(b"".join(lines)) + 1):
        output.unlink(missing_ok=True)
        run_.write_bytes(b"".join(lines)[:end])
        if end < len(lines[0]):
            with refused(tmp_path, "out.jsonl.run: expected no file, or a batch's journal"):
                attempt(tmp_path, range(8))
        else:
            attempt(tmp_path, range(8))
            assert output.read_bytes() == WHOLE
            assert attempt(tmp_path, range(8)) == set(range(8))


def line(number, prompt, text="x"):
    return journal.sealed({"number": number, "prompt": prompt, "text": text})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(0, PROMPTS[0], "one"), line(0, PROMPTS[0], "two")], "line 3: expected a text of an earlier run"),
        ([line(-1, PROMPTS[-1])], "line 2: expected prompt 0 to be 'one more' as in the earlier run, found None"),
        ([line(8, "x")], "line 2: expected prompt 9 to be 'x' as in the earlier run, found None"),
        ([line(0, "x")], "line 2: expected prompt 1 to be 'x' as in the earlier run, found 'ROMEO:'"),
        ([line("0", PROMPTS[0])], "line 2: expected a text of an earlier run"),
        ([line(0, PROMPTS[0]).replace(b'"x"', b'"y"')], "line 2: expected a text of an earlier run, found a line that"),
    ],
)
def test_a_journal_with_a_line_that_no_run_writes_is_refused(tmp_path, lines, words):
    (tmp_path / "out.jsonl.run").write_bytes(b"".join([*journal_of([]), *lines]))
    with refused(tmp_path, words):
        attempt(tmp_path, range(8))


@pytest.mark.parametrize("change", [{"journal": "picogpt batch 1"}, {"settings": 1}, {"model": None}])
def test_a_malformed_journal_is_refused(tmp_path, change):
    first = {"journal": "picogpt batch 2", "settings": SETTINGS, "model": MODEL | WEIGHTS} | change
    (tmp_path / "out.jsonl.run").write_bytes(journal.sealed(first))
    with refused(tmp_path, "out.jsonl.run: expected no file, or a batch's journal, found another one"):
        attempt(tmp_path, range(8))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", None, "--seed 1 as in the earlier run, found None"),
        ("new", 2, "--new None as in the earlier run, found 2"),
    ],
)
def test_a_setting_that_one_run_lacks_counts_as_different(tmp_path, monkeypatch, name, value, words):
    attempt(tmp_path, range(8))
    changed = {key: kept for key, kept in (SETTINGS | {name: value}).items() if kept is not None}
    monkeypatch.setitem(globals(), "SETTINGS", changed)
    with refused(tmp_path, words):
        attempt(tmp_path, range(8))


def test_only_a_new_and_empty_output_is_removed(tmp_path):
    for n_bytes in (0, len(LINES[0] + LINES[1])):
        with pytest.raises(KeyboardInterrupt), results.opened(str(tmp_path / "out.jsonl"), PROMPTS) as out:
            (tmp_path / "out.jsonl").touch()
            out.begin(SETTINGS, MODEL | WEIGHTS)
            if n_bytes:
                out.add(0, TEXTS[0])
                out.add(1, TEXTS[1])
            raise KeyboardInterrupt
        assert (tmp_path / "out.jsonl").exists() == bool(n_bytes)
    assert (tmp_path / "out.jsonl").stat().st_size == n_bytes
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(KeyboardInterrupt), results.opened(str(tmp_path / "empty.jsonl"), PROMPTS):
        raise KeyboardInterrupt
    assert (tmp_path / "empty.jsonl").exists()


def test_other_kinds_of_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(results.stat, "S_ISREG", lambda mode: False)
    with pytest.raises(UserError, match=r"out.jsonl: expected a file, a pipe or a terminal, found another device"):
        attempt(tmp_path, range(8))


def in_child(function):
    """Call a function in a forked process. Returns what it sent through its argument, and the exit status."""
    ours, theirs = os.pipe()
    if not (child := os.fork()):
        status = 1
        try:
            os.close(ours)
            function(lambda number: os.write(theirs, bytes([number])))
            status = 0
        except UserError:
            status = 2
        finally:
            os._exit(status)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        sent = file.read()
    return list(sent), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@settings(max_examples=60 * TIMES)
@given(runs=st.lists(st.tuples(orders, st.integers(0, 900), st.booleans()), min_size=1, max_size=4), last=orders)
def test_runs_that_are_killed_or_fill_the_disk_at_any_byte_lose_nothing(tmp_path_factory, runs, last):
    directory = tmp_path_factory.mktemp("killed")
    kept: set[int] = set()
    for order, n_bytes, deadly in runs:

        def limited(tell, order=order, n_bytes=n_bytes, deadly=deadly):
            limit_files(n_bytes, deadly)  # that one file may have
            attempt(directory, order, tell)

        complete, status = in_child(limited)
        assert status in (0, -signal.SIGXFSZ if deadly else 2)
        assert not kept & set(complete), "a text was made twice"
        kept |= set(complete)
        assert WHOLE.startswith((directory / "out.jsonl").read_bytes() if (directory / "out.jsonl").exists() else b"")
    there = attempt(directory, last)
    assert kept <= there
    assert (directory / "out.jsonl").read_bytes() == WHOLE


def test_a_killed_process_leaves_no_lock(tmp_path):
    def killed(tell):
        attempt(tmp_path, [4, 0, 1], lambda number: tell(number) if number else os.kill(os.getpid(), signal.SIGKILL))

    assert in_child(killed) == ([4], -signal.SIGKILL)
    assert attempt(tmp_path, range(8)) == {4, 0}


def test_a_full_disk_is_reported_and_keeps_what_fits(tmp_path):
    for n_bytes, words in [(50, "out.jsonl.run: cannot write to it: File too large"), (400, "cannot write")]:

        def limited(tell, n_bytes=n_bytes, words=words):
            limit_files(n_bytes, deadly=False)
            with pytest.raises(UserError, match=words):
                attempt(tmp_path, range(8))

        assert in_child(limited) == ([], 0)
        assert not list(tmp_path.glob(".*"))
