"""Downloads over real sockets from a faulty server: either the right file arrives, or none."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from types import SimpleNamespace
from unittest import mock

import pytest

from picogpt import files, utils
from picogpt.errors import UserError
from picogpt.weights import download, openai, partial, transport
from picogpt.weights.partial import Part
from picogpt.weights.shapes import random_tensors
from picogpt.weights.source import Known
from tests import bundle_writer, disks, first_run
from tests.blob_server import BlobServer, Fault
from tests.helpers import ROOT, run, vocabulary_dir

BLOB = random.Random(0).randbytes(700_000)
OTHER = random.Random(1).randbytes(700_000)
PART = 18 << 14  # bytes that come before a cut, a multiple of what is read at once
REST = f"bytes={PART - download.OVERLAP}-"  # what is asked for then
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


ANY = Known()


@pytest.fixture
def waits(monkeypatch):
    """The seconds that would have been waited between attempts."""
    seconds = []
    monkeypatch.setattr(download.time, "sleep", seconds.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return seconds


@pytest.fixture
def server():
    with BlobServer({"blob": BLOB}) as server:
        yield server


def fetch(server, directory, known=ANY):
    """Download the blob and return what is in the directory, name -> bytes."""
    download.fetch_all(server.url, ["blob"], directory, lambda name: known)
    return contents(directory)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_a_file_arrives_whole_and_alone_and_a_line_says_so(server, waits, tmp_path, capsys):
    assert fetch(server, tmp_path / "new" / "dir") == {"blob": BLOB}
    assert capsys.readouterr().err.startswith(f"fetched 1 file into {tmp_path}/new/dir: 700 kB in ")
    assert waits == []


@pytest.mark.parametrize("kind", ["cut_at", "end_at"])
@pytest.mark.parametrize("at", [0, 1, 65_536, 500_000, 699_999])
def test_a_cut_connection_is_continued(server, waits, tmp_path, kind, at):
    server.faults["blob"] = [Fault(**{kind: at})]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert len(server.requests) == 2 and waits == [0.5]


def test_it_is_continued_with_a_range_from_what_is_on_disk_if_the_file_is_the_same(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART), Fault(end_at=7 << 14)]
    fetch(server, tmp_path)
    assert server.ranges("blob") == [None, REST, f"bytes={PART + (5 << 14)}-"]
    etag = f'"{hashlib.sha256(BLOB).hexdigest()[:16]}"'
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, etag, etag]


def test_cuts_at_random_bytes_are_survived_as_long_as_something_comes(server, waits, tmp_path):
    rng = random.Random(2)
    server.faults["blob"] = [Fault(cut_at=rng.randrange(30_000, 90_000)) for _ in range(12)]
    assert fetch(server, tmp_path) == {"blob": BLOB}


def test_the_few_bytes_that_would_be_asked_for_again_anyway_are_not_continued(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=at) for at in (100, download.OVERLAP, download.OVERLAP + 1)]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [None, None, None, "bytes=1-"]


def test_a_bar_shows_what_has_come_of_the_whole(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART)]
    with mock.patch.object(partial, "tqdm") as tqdm:
        fetch(server, tmp_path)
    bars = [(call.kwargs["total"], call.kwargs["initial"]) for call in tqdm.call_args_list]
    assert bars == [(700_000, 0), (700_000, PART)]
    assert sum(call.args[0] for call in tqdm.return_value.update.call_args_list) == 700_000


def test_a_later_run_continues_what_an_earlier_one_left(server, waits, tmp_path, capsys):
    server.faults["blob"] = [Fault(end_at=PART)] + [Fault(end_at=0)] * 9
    with pytest.raises(UserError, match=r"cannot fetch http://.*/blob \(.*\): run again to continue, put the file"):
        fetch(server, tmp_path)
    assert waits == [0.5, 1, 2, 4, 8]
    server.faults["blob"], server.requests = [], []
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [REST]
    assert "405 kB in" in capsys.readouterr().err


def test_what_is_whole_but_was_not_renamed_needs_no_request(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART)] + [Fault(end_at=0)] * 9
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    (tmp_path / "blob.part").write_bytes(BLOB)
    server.requests.clear()
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.requests == []


def test_what_is_whole_and_wrong_is_fetched_again_at_once(server, waits, tmp_path):
    server.files["blob"] = b"hello"
    (tmp_path / "blob.part").write_bytes(b"jelly")
    note = {"url": f"{server.url}/blob", "total": 5, "validator": None, "md5": None}
    (tmp_path / "blob.part.json").write_text(json.dumps(note))
    assert fetch(server, tmp_path, Known(5, hashlib.sha256(b"hello").hexdigest())) == {"blob": b"hello"}
    assert server.ranges("blob") == [None]


def test_a_part_without_its_note_or_longer_than_promised_is_not_trusted(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART)] + [Fault(end_at=0)] * 9
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    server.faults["blob"], server.requests = [], []
    note = (tmp_path / "blob.part.json").read_text()
    waits.clear()
    for part, text in ((BLOB + b"x", note), (BLOB[:1000], "{"), (BLOB[:1000], None), (OTHER[:1000], None)):
        (tmp_path / "blob.part").write_bytes(part)
        if text is not None:
            (tmp_path / "blob.part.json").write_text(text)
        assert fetch(server, tmp_path) == {"blob": BLOB}
        (tmp_path / "blob").unlink()
    assert server.ranges("blob") == [None] * 4 and waits == []


def test_a_server_that_is_busy_is_asked_again_when_it_says(server, waits, tmp_path, capsys):
    server.faults["blob"] = [
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=429),
        Fault(status=500, headers={"Retry-After": "?"}),
    ]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert waits == [7, 1, 2]
    assert "the server says 503 Service Unavailable: trying again in 7 s" in capsys.readouterr().err


def test_a_server_that_stays_busy_is_given_up(server, waits, tmp_path):
    server.faults["blob"] = [Fault(status=503)] * 99
    with pytest.raises(UserError, match="the server says 503 Service Unavailable"):
        fetch(server, tmp_path)
    assert len(server.requests) == 6


def test_a_wait_of_more_than_five_minutes_is_left_to_the_user(server, waits, tmp_path):
    server.faults["blob"] = [Fault(status=503, headers={"Retry-After": "300"})]
    server.faults["blob"] += [Fault(status=429, headers={"Retry-After": "301"})]
    with pytest.raises(UserError, match="asks to wait 301 s: run again after that"):
        fetch(server, tmp_path)
    assert waits == [300]


@pytest.mark.parametrize("status", [401, 403, 404, 418])
def test_an_answer_that_will_not_change_is_not_asked_for_again(server, waits, tmp_path, status):
    server.faults["blob"] = [Fault(status=status, body=HTML)]
    with pytest.raises(UserError, match=f"the server says {status}"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1 and contents(tmp_path) == {}


def test_a_stalled_server_is_asked_for_the_rest(server, waits, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "TIMEOUT", (5, 0.2))
    server.faults["blob"] = [Fault(stall_at=400_000)]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert int(server.ranges("blob")[1].removeprefix("bytes=").removesuffix("-")) >= 300_000


def test_a_server_that_ignores_ranges_sends_it_all_again(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART), Fault(ignore_range=True)]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST]


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-699999/700000",
        f"bytes {PART}-699999/700000",
        f"bytes {PART - download.OVERLAP}-699998/700000",
        f"bytes {PART - download.OVERLAP}-699999/700001",
        f"bytes {PART - download.OVERLAP}-699999/*",
        f"bytes {PART - download.OVERLAP}-699999/{'9' * 5000}",
        "bytes \xb2-3/4",
        "pages 1-2/3",
        None,
    ],
)
def test_a_wrong_content_range_is_not_believed(server, waits, tmp_path, content_range):
    server.faults["blob"] = [Fault(end_at=PART), Fault(headers={"Content-Range": content_range})]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST, None]


@pytest.mark.parametrize("known", [ANY, Known(700_000)])
def test_ranges_of_another_file_are_noticed_by_the_overlap(server, waits, tmp_path, known):
    server.etag = server.content_md5 = False  # so that only a date tells the two apart, and it is the same
    server.faults["blob"] = [Fault(end_at=PART), Fault(before=lambda: swap(server, "blob")), Fault(end_at=PART)]
    server.faults["blob"] += [Fault(before=lambda: swap(server, "blob", BLOB))]
    assert fetch(server, tmp_path, known) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST, None, REST, None]


@pytest.mark.parametrize("at", [PART - download.OVERLAP, PART - 1])
def test_one_different_byte_in_the_overlap_is_noticed(server, waits, tmp_path, at):
    server.etag = server.content_md5 = False
    other = bytearray(BLOB)
    other[at] ^= 1
    server.faults["blob"] = [Fault(end_at=PART), Fault(before=lambda: swap(server, "blob", bytes(other)))]
    assert fetch(server, tmp_path) == {"blob": bytes(other)}
    assert server.ranges("blob") == [None, REST, None]


def test_ranges_of_another_file_are_noticed_by_the_md5(server, waits, tmp_path):
    server.etag = False
    other = BLOB[:PART] + OTHER[PART:]
    server.faults["blob"] = [Fault(end_at=PART), Fault(before=lambda: swap(server, "blob", other))]
    assert fetch(server, tmp_path) == {"blob": other}
    assert server.ranges("blob") == [None, REST, None]


def test_what_another_mirror_promised_is_not_continued(server, waits, tmp_path):
    server.etag = server.content_md5 = False
    server.faults["blob"] = [Fault(end_at=PART)] + [Fault(end_at=0)] * 9
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    with BlobServer({"blob": OTHER}, etag=False, content_md5=False) as another:
        assert fetch(another, tmp_path) == {"blob": OTHER}
        assert another.ranges("blob") == [None]


def test_a_part_of_another_length_than_is_known_is_not_continued(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART)] + [Fault(end_at=0)] * 9
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    with pytest.raises(UserError, match="expected 600000 bytes, found 700000"):
        fetch(server, tmp_path, Known(600_000))
    assert server.ranges("blob")[-1] is None


def swap(server, path, data=OTHER):
    server.files[path] = data


def test_a_server_that_has_no_such_range_is_asked_for_the_whole(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART), Fault(status=416)]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST, None]


def test_a_file_that_changes_between_two_requests_is_fetched_again(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART), Fault(before=lambda: swap(server, "blob"))]
    assert fetch(server, tmp_path) == {"blob": OTHER}
    assert server.ranges("blob") == [None, REST]  # and was answered with status 200


def test_a_changed_file_is_seen_by_its_etag_if_the_server_does_not_know_if_range(server, waits, tmp_path):
    wrong = {"ETag": '"another"'}
    server.faults["blob"] = [Fault(end_at=PART), Fault(headers=wrong)]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST, None]


def test_a_rest_that_names_no_etag_is_taken_after_the_same_bytes(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART), Fault(headers={"ETag": None, "Last-Modified": None})]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST]


def test_it_starts_again_if_a_change_could_go_unnoticed(server, waits, tmp_path):
    silent = {"ETag": 'W/"weak"', "Last-Modified": None, "Content-MD5": None}
    server.faults["blob"] = [Fault(end_at=PART, headers=silent)]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob") == [None, None]


@pytest.mark.parametrize("length", ["699999", "700001"])
def test_a_length_that_is_not_the_known_one_is_refused(server, waits, tmp_path, length):
    server.faults["blob"] = [Fault(headers={"Content-Length": length})]
    with pytest.raises(UserError, match=f"expected 700000 bytes, found {length}: not OpenAI's file"):
        fetch(server, tmp_path, Known(700_000))
    assert contents(tmp_path) == {}


def test_a_length_that_promises_more_than_comes_never_makes_a_file(server, waits, tmp_path):
    server.faults["blob"] = [Fault(headers={"Content-Length": "700001"})] * 99
    with pytest.raises(UserError, match="cannot fetch"):
        fetch(server, tmp_path)
    assert "blob" not in contents(tmp_path)


def test_a_length_that_is_too_small_is_noticed_by_the_md5(server, waits, tmp_path):
    server.faults["blob"] = [Fault(headers={"Content-Length": "699999"})]
    with pytest.raises(UserError, match=r"expected MD5 .*, found .*: not the file that was promised"):
        fetch(server, tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("known", [Known(), Known(0)])
def test_an_empty_file_is_refused(server, waits, tmp_path, known):
    server.faults["blob"] = [Fault(body=b"")]
    with pytest.raises(UserError, match="found 0"):
        fetch(server, tmp_path, known)


def test_without_a_length_the_known_size_tells_a_cut(server, waits, tmp_path):
    server.faults["blob"] = [Fault(headers={"Content-Length": None}, end_at=PART)]
    assert fetch(server, tmp_path, Known(700_000)) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST]


def test_without_a_length_and_a_known_size_nothing_is_fetched(server, waits, tmp_path):
    server.faults["blob"] = [Fault(headers={"Content-Length": None})]
    with pytest.raises(UserError, match=r"expected a Content-Length, found none to notice a cut by"):
        fetch(server, tmp_path)
    assert contents(tmp_path) == {}


def test_no_more_is_taken_than_was_promised(server, waits, tmp_path):
    server.faults["blob"] = [Fault(headers={"Content-Length": None})]
    part = Part(tmp_path / "blob")
    with transport.Session() as session, pytest.raises(UserError, match="expected 100000 bytes, found 1"):
        download.fetch(session, f"{server.url}/blob", part, Known(100_000), lambda path: None)
    assert 100_000 < part.received <= 100_000 + transport.CHUNK and contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "limit"),
    [("hparams.json", 4096), ("checkpoint", 4096), ("model.ckpt.index", 1 << 20), ("model.ckpt.meta", 1 << 24)],
)
def test_a_small_file_of_unknown_size_has_a_limit(server, waits, tmp_path, name, limit):
    server.files = {name: b"\n" * (limit + 1)}
    for length in (str(limit + 1), "10000000000"):
        server.faults[name] = [Fault(headers={"Content-Length": length})]
        with pytest.raises(UserError, match=f"expected {limit} bytes at most, found {length}: not OpenAI's file"):
            download.fetch_all(server.url, [name], tmp_path, lambda name: ANY)
        assert contents(tmp_path) == {}
    for size, known in ((limit, ANY), (limit + 1, Known(limit + 1))):
        server.files = {name: bytes(size)}
        download.fetch_all(server.url, [name], tmp_path, lambda name, known=known: known, {name: lambda path: None})
        assert contents(tmp_path) == {name: bytes(size)}


INDEX = bundle_writer.index_of(a=bundle_writer.entry())
CHECKPOINT = b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'


@pytest.mark.parametrize(
    ("name", "right", "wrong", "message"),
    [
        ("hparams.json", json.dumps(openai.HPARAMS["774M"]).encode(), b'{"error": 404}', "n_vocab, found None"),
        (
            "hparams.json",
            json.dumps(openai.HPARAMS["1558M"]).encode(),
            b"[" * 4000,
            "brackets nested too deeply|Expecting",
        ),
        ("encoder.json", b'{"a": 0}', b"[]", r"expected a JSON object, found \[\]"),
        ("vocab.bpe", b"#version: 0.2\n", b"version" * 9, "expected #version first, found b'versionversionversio':"),
        ("checkpoint", CHECKPOINT, b'model_checkpoint_path: "../x"\n', "expected model.ckpt, found b'model_check"),
        ("model.ckpt.index", INDEX, INDEX + b"x", "expected the index of a TensorFlow checkpoint"),
        ("model.ckpt.meta", b"\n\x00", b"{}", "expected a graph, found b'{}'"),
    ],
)
def test_a_wrong_file_does_not_get_the_name(server, waits, tmp_path, name, right, wrong, message):
    looks = {"hparams.json": utils.read_hparams}
    server.files = {name: wrong}
    with pytest.raises(UserError, match=message) as error:
        download.fetch_all(server.url, [name], tmp_path, lambda name: ANY, looks)
    assert str(error.value).startswith(f"{server.url}/{name}: expected ") and "not the file that was" in str(
        error.value
    )
    assert contents(tmp_path) == {}
    server.files = {name: right}
    download.fetch_all(server.url, [name], tmp_path, lambda name: ANY, looks)
    assert contents(tmp_path) == {name: right}


def test_any_json_does_not_become_a_models_hparams(waits, tmp_path, monkeypatch):
    hparams = json.dumps(openai.HPARAMS["774M"]).encode()
    tokenizer = {f"774M/{name}": (vocabulary_dir() / name).read_bytes() for name in openai.TOKENIZER}
    with BlobServer({"774M/hparams.json": b'{"message": "hello"}', **tokenizer}) as server:
        monkeypatch.setenv("PICOGPT_WEIGHTS_URL", server.url)
        with pytest.raises(UserError, match=f"{server.url}/774M/hparams.json: expected "):
            utils.load_encoder_and_hparams("774M", tmp_path)
        server.files["774M/hparams.json"] = hparams
        assert utils.load_encoder_and_hparams("774M", tmp_path)[1] == openai.HPARAMS["774M"]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_with_status_200_is_refused(server, waits, tmp_path, kind):
    server.faults["blob"] = [Fault(body=HTML, headers={"Content-Type": kind})]
    with pytest.raises(UserError, match="found a web page"):
        fetch(server, tmp_path)
    assert contents(tmp_path) == {}


def test_a_web_page_in_the_middle_of_a_download_leaves_what_is_there(server, waits, tmp_path):
    page = Fault(body=HTML, headers={"Content-Type": "text/html"})
    server.faults["blob"] = [Fault(end_at=PART), page]
    with pytest.raises(UserError, match="found a web page"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path) == {"blob": BLOB}
    assert server.ranges("blob")[-1] == REST


def test_a_checksum_that_differs_is_refused_and_nothing_stays(server, waits, tmp_path):
    for known, headers, message in (
        (Known(sha256="0" * 64), {}, f"expected SHA-256 {'0' * 64}, found {hashlib.sha256(BLOB).hexdigest()}"),
        (Known(), {"Content-MD5": b64encode(b"0" * 16).decode()}, "expected MD5 MDAwMDAwMDAwMDAwMDAwMA=="),
    ):
        server.faults["blob"] = [Fault(headers=headers)]
        with pytest.raises(UserError, match=message):
            fetch(server, tmp_path, known)
        assert contents(tmp_path) == {}


def test_a_continued_file_with_a_wrong_checksum_is_fetched_again_once(server, waits, tmp_path):
    server.faults["blob"] = [Fault(end_at=PART)]
    (tmp_path / "blob.part").touch()
    known = Known(700_000, hashlib.sha256(BLOB).hexdigest())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "_wait", lambda *_: (tmp_path / "blob.part").write_bytes(OTHER[:PART]))
        assert fetch(server, tmp_path, known) == {"blob": BLOB}
    assert server.ranges("blob") == [None, REST, None]


def test_an_encoded_body_is_refused(server, waits, tmp_path):
    server.faults["blob"] = [Fault(headers={"Content-Encoding": "gzip"})]
    with pytest.raises(UserError, match="found it encoded as gzip"):
        fetch(server, tmp_path)


def test_a_redirect_is_followed_but_not_out_of_https(server, waits, tmp_path):
    server.faults["blob"] = [Fault(status=302, headers={"Location": "/blob"})]
    assert fetch(server, tmp_path) == {"blob": BLOB}
    (tmp_path / "blob").unlink()
    server.faults["blob"] = [Fault(status=302, headers={"Location": "http://example.com/blob"})]
    with pytest.raises(UserError, match="expected a redirect to https, found one to http://example"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("url", ["http://example.com", "ftp://localhost", "file:///etc", "https://", "https://[", "x"])
def test_a_mirror_must_be_https_unless_it_is_this_machine(monkeypatch, url):
    monkeypatch.setenv("PICOGPT_WEIGHTS_URL", url)
    with pytest.raises(UserError, match="expected an https address"):
        download.weights_url()


@pytest.mark.parametrize(
    "url", ["https://example.com/gpt-2/", "http://localhost:80", "http://127.8.0.1", "http://[::1]:8"]
)
def test_a_mirror_may_be_named(monkeypatch, url):
    monkeypatch.setenv("PICOGPT_WEIGHTS_URL", url)
    assert download.weights_url() == url.rstrip("/")


def test_a_password_in_the_mirrors_address_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("PICOGPT_WEIGHTS_URL", "https://me:secret@example.com")
    with pytest.raises(UserError, match="netrc") as error:
        download.weights_url()
    assert "secret" not in str(error.value)


def test_no_server_at_all_is_reported_in_one_line_and_leaves_nothing_to_trust(tmp_path):
    with BlobServer({}) as server:
        url = server.url
    done = run("hi", "--models_dir", str(tmp_path), env={"PICOGPT_WEIGHTS_URL": url, "NO_PROXY": "127.0.0.1"})
    *tries, error = done.stderr.decode().splitlines()
    assert done.returncode == 2 and done.stdout == b""
    assert len(tries) == 2 and all("Connection refused: trying again in" in line for line in tries)
    assert error.startswith(f"gpt2.py: error: cannot fetch {url}/124M/hparams.json (Failed to establish")
    assert "put the file into" in error and "--model_size shakespeare" in error
    assert not [*tmp_path.iterdir()]


def test_too_little_space_is_reported_before_the_first_byte(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=900_000_000))
    hparams = openai.HPARAMS["124M"]
    message = r"expected 996 MB of free disk \(498 MB to fetch, 498 MB converted\), found 900 MB: "
    with pytest.raises(UserError, match=message + re.escape(files.ROOM)):
        utils.load_params("124M", tmp_path, hparams)


# first runs as processes


def start(models_dir, server, *die_at):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.first_run", str(models_dir), *die_at],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PICOGPT_WEIGHTS_URL": server.url, "NO_PROXY": "127.0.0.1"},
    )


@pytest.fixture
def store():
    with BlobServer({f"124M/{name}": data for name, data in first_run.published().items()}) as store:
        yield store


def check_clean_run(models_dir, store):
    """One more run must succeed and leave only the server's files, byte for byte, and the weights."""
    process = start(models_dir, store)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found = contents(models_dir / "124M")
    assert found == {path.removeprefix("124M/"): data for path, data in store.files.items()}
    assert [path.name for path in (models_dir / "124M").iterdir() if path.is_dir()] == ["params"]
    process = start(models_dir, store)  # and this one needs nothing any more
    assert process.communicate(timeout=60) == (out, "") and process.returncode == 0


def test_a_first_run_reads_the_weights_without_other_libraries(store, tmp_path):
    """The process of first_run.py cannot import them."""
    out, err = start(tmp_path, store).communicate(timeout=60)
    wte = dict(random_tensors(first_run.HPARAMS, seed=1))["wte"]
    assert out == f"hello {float(wte[31373].sum())}\n", err
    check_clean_run(tmp_path, store)


def test_killed_ten_times_at_random_bytes_of_the_download_it_still_ends_with_the_right_files(store, tmp_path):
    rng = random.Random(3)
    path = f"124M/{openai.DATA}"
    for _ in range(10):
        store.reached.clear()
        store.requests.clear()
        part = tmp_path / "124M" / f"{openai.DATA}.part"
        before = part.stat().st_size if part.exists() else 0
        store.faults[path] = [Fault(stall_at=rng.randrange(0, 320_000))]
        process = start(tmp_path, store)
        assert store.reached.wait(60)
        process.kill()
        process.communicate(timeout=60)
        assert store.ranges(path) == [f"bytes={before - download.OVERLAP}-" if before > download.OVERLAP else None]
    assert before > 0
    check_clean_run(tmp_path, store)


def test_killed_ten_times_while_converting_it_still_ends_with_the_right_weights(store, tmp_path):
    rng = random.Random(4)
    names = ["kill:wte", "kill:wpe", "kill:h0/ln_1/g", "kill:h1/mlp/c_fc/w", "kill:ln_f/b"]
    for die_at in [*names, *(f"byte:{rng.randrange(1, 3_200_000)}" for _ in range(5))]:
        process = start(tmp_path, store, die_at)
        _, err = process.communicate(timeout=60)
        assert process.returncode < 0, err
        assert not (tmp_path / "124M" / "params").exists()
    check_clean_run(tmp_path, store)


def test_of_two_first_runs_at_once_one_works_and_the_other_waits_and_says_so(store, tmp_path):
    path = f"124M/{openai.DATA}"
    second = []
    store.faults[path] = [Fault(before=lambda: second.append(wait_for_second()))]

    def wait_for_second():
        process = start(tmp_path, store)
        line = process.stderr.readline()
        assert line == f"waiting for another process that is at work on {tmp_path / '124M'}\n"
        return process

    first = start(tmp_path, store)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert second[0].communicate(timeout=60) == (out, "") and second[0].returncode == 0
    assert len(store.requests) == 7
    check_clean_run(tmp_path, store)


def test_a_disk_that_fills_up_is_reported_and_what_has_come_is_continued(store, tmp_path):
    with disks.small_disk(tmp_path / "disk", megabytes=10) as disk:
        filler = disk / "filler"
        free_then = 1_000_000
        path = f"124M/{openai.DATA}"
        store.faults[path] = [Fault(before=lambda: filler.write_bytes(bytes(shutil.disk_usage(disk).free - free_then)))]
        check_message(start(disk, store), f"cannot write to {disk / '124M'}: No space left on device: {files.ROOM}")
        filler.unlink()
        continued_at = (disk / "124M" / f"{openai.DATA}.part").stat().st_size
        assert continued_at > free_then // 2
        check_clean_run(disk, store)
        assert store.ranges(path) == [None, f"bytes={continued_at - download.OVERLAP}-"]


def test_a_write_that_fails_is_reported_and_what_has_come_is_continued(store, tmp_path):
    check_message(start(tmp_path, store, "full:1000000"), f"cannot write to {tmp_path / '124M'}: File too large")
    check_clean_run(tmp_path, store)
    assert store.ranges(f"124M/{openai.DATA}") == [None, f"bytes={1_000_000 - download.OVERLAP}-"]


def test_a_write_that_fails_while_converting_is_reported_and_leaves_nothing(store, tmp_path):
    assert start(tmp_path, store, "kill:wte").wait(60) < 0  # all is fetched
    check_message(start(tmp_path, store, "full:1000000"), f"cannot write to {tmp_path / '124M'}: File too large")
    check_clean_run(tmp_path, store)


def test_a_disk_that_is_too_small_is_reported_before_the_first_byte(store, tmp_path):
    with disks.small_disk(tmp_path / "disk", megabytes=6) as disk:
        check_message(start(disk, store), f"{disk / '124M'}: expected 6.4")
        assert store.ranges(f"124M/{openai.DATA}") == []


def test_a_read_only_models_directory_is_reported(store, tmp_path):
    with disks.read_only(tmp_path):
        check_message(start(tmp_path, store), f"cannot write to {tmp_path / '124M'}: ")


def check_message(process, beginning):
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert err.splitlines()[-1].startswith(f"first_run.py: error: {beginning}"), err
    assert "Traceback" not in err
