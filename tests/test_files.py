"""Reading files that may contain anything: every file gives a value or one line, at once."""

import json
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from picogpt import errors, files
from picogpt.errors import UserError
from tests.helpers import ROOT


def told(function, *arguments, **keywords):
    """The one line of the error that a function raises."""
    with pytest.raises(UserError) as error:
        function(*arguments, **keywords)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.json"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected JSON, found Expecting value"),
        (b"{", "expected JSON, found Expecting property name"),
        (b"\xff{}", "expected UTF-8, found invalid start byte at byte 0"),
        ("\ufeff{}".encode(), "expected JSON, found Unexpected UTF-8 BOM"),
        (b"[" * 100_000, "expected JSON, found brackets nested too deeply"),
        (b'{"a":' * 100_000, "expected JSON, found brackets nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected JSON, found a number of thousands of digits"),
        (b"[" * 100 + b"]" * 100, "expected a JSON object, found [[[[[[[...]]]]]]]"),
        (b'["\\ud800\\u001b"]', r"expected a JSON object, found ['\ud800\x1b']"),
        (b'{"a\\u001b": 1, "b": {}, "a\\u001b": 1}', r"expected each key once, found 'a\x1b' twice"),
        (b'{"a": {"b": 1, "b": 2}}', "expected each key once, found 'b' twice"),
        (b'"' + b"x" * 5000 + b'"', "expected a JSON object, found 'xxxx"),
        (b" " * (1 << 20) + b"{}", "expected at most 1.05 MB, found more"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_no_json_object_is_reported_in_one_short_line(path, data, message):
    path.write_bytes(data)
    found = told(files.read_object, path, advice="fetch it again")
    assert found.startswith(f"{path}: {message}") and found.endswith(": fetch it again")
    assert len(found) < len(str(path)) + 200


def test_a_file_of_just_the_limit_is_read(path):
    path.write_bytes(b'{"a": 1}')
    assert files.read_object(path, 8) == {"a": 1}
    assert "expected at most 7 bytes, found more" in told(files.read_object, path, 7)


def test_a_key_that_is_there_twice_can_be_left_to_the_caller(path):
    path.write_text('{"a": 1, "a": 2}')
    assert files.read_object(path, unique=False) == {"a": 2}


@pytest.mark.parametrize("kind", ["pipe", "directory", "/dev/zero", "/dev/full", "/dev/stdin", "socket"])
def test_pipes_and_devices_are_refused_at_once(tmp_path, path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        import socket

        os.chdir(tmp_path)  # its path may have some 100 bytes only
        socket.socket(socket.AF_UNIX).bind(path.name)
    else:
        path.symlink_to(kind)
    script = f"from picogpt import files; files.read_bytes({str(path)!r})"
    arguments = [sys.executable, "-c", script]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.PIPE, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert f"UserError: {path}: expected a file, found a directory" in last or "cannot read it: No such device" in last


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "expected a file, found none"), ("x" * 300, "cannot read it: File name too long"),
     ("a\0b", "embedded null"), ("here/x", "cannot read it: Not a directory"),
     ("loop", "cannot read it: Too many levels"), ("\x1b[31m\n", r"\x1b[31m : expected a file, found none"),
     (os.fsdecode(b"\xff"), r"\udcff: expected a file, found none")],
)  # fmt: skip
def test_a_path_that_is_no_file_is_reported(tmp_path, name, message):
    (tmp_path / "here").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert message in told(files.read_bytes, tmp_path / name)


def test_unreadable_files_are_told_apart_from_bad_ones(tmp_path, path, monkeypatch):
    path.write_text("{}")
    for code in (5, 12, 13, 23, 24):
        monkeypatch.setattr(files.os, "open", lambda *_, code=code: (_ for _ in ()).throw(OSError(code, "so")))
        with pytest.raises(files.UnreadableError, match=f"x.json: cannot read it: so: {files.LATER}"):
            files.read_object(path)
    monkeypatch.undo()
    if os.access("/proc/self/mem", os.R_OK):  # a file that opens and gives an error when it is read
        for read in (files.read_bytes, lambda path: files.digest(path, "sha256")):
            with pytest.raises(files.UnreadableError, match="mem: cannot read it: Input/output error"):
                read("/proc/self/mem")
    for wrong in (tmp_path, tmp_path / "none", tmp_path / ("x" * 300)):
        with pytest.raises(UserError) as error:
            files.read_object(wrong)
        assert type(error.value) is UserError


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | values.map(json.dumps))
@example("[" * 100_000)
@example('{"a": 1, "a": 1}')
@example("1" * 5000)
@example('"\\ud800"')
def test_any_text_is_a_value_or_one_line(text):
    try:
        assert json.dumps(files.json_from(text, "x")) == json.dumps(json.loads(text))
    except UserError as error:
        assert str(error).startswith("x: expected ") and str(error).isprintable()
        with pytest.raises(UserError):
            files.json_object_from(text, "x")


@given(values)
def test_a_quoted_value_is_short_and_printable(value):
    assert files.quoted(value).isprintable() and len(files.quoted(value)) < 10_000


@given(st.text())
def test_a_message_is_one_line_whatever_it_quotes(text):
    message = str(UserError(text))
    assert message.isprintable()
    message.encode("utf-8")
    assert message == text or not text.isprintable()
    assert errors.printable(message) == message


# locks


def test_of_two_threads_one_waits_and_says_so_and_nothing_is_left(tmp_path, monkeypatch):
    order, waits = [], threading.Event()
    monkeypatch.setattr(files, "note", lambda text: waits.set() if "waiting" in text else None)

    def second():
        with files.only_one(tmp_path / "a" / "model"):
            order.append("second")

    thread = threading.Thread(target=second)
    with files.only_one(tmp_path / "a" / "model"):
        assert [path.name for path in (tmp_path / "a").iterdir()] == [".model.lock"]
        thread.start()
        assert waits.wait(60)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_many_threads_take_the_lock_one_after_another(tmp_path):
    counter, most = [0], [0]

    def work():
        for _ in range(20):
            with files.only_one(tmp_path / "a" / "b" / "model"):
                counter[0] += 1
                most[0] = max(most[0], counter[0])
                (tmp_path / "a" / "b").stat()
                counter[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_written_within_a_lock_stays(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.only_one(tmp_path / "a" / "model"):
        (tmp_path / "a" / "model").mkdir()
        (tmp_path / "a" / "model" / "x").touch()
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model"]


def test_a_lock_that_cannot_be_taken_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / ".model.lock").mkdir()
    for directory, reason in (
        (tmp_path / "model", "Is a directory"),
        ("/proc/model", "No such file or directory"),
        (tmp_path / ("x" * 300) / "model", "File name too long"),
    ):
        message = told(files.only_one(tmp_path.__class__(directory)).__enter__)
        assert message.startswith(f"cannot write to {directory}: {reason}: {files.ROOM}")
    fcntl = pytest.importorskip("fcntl", reason="Windows locks in another way")
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    assert "cannot write to" in told(files.only_one(tmp_path / "other").__enter__)


def test_sizes():
    sizes = {0: "0 bytes", 999: "999 bytes", 999.7: "1 kB", 1000: "1 kB", 12345678: "12.3 MB", 999_700_000: "1.00 GB"}
    assert {n: files.size(n) for n in sizes} == sizes
