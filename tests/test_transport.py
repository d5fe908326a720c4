"""Servers that may answer anything: a file arrives whole, or one line says why not, in bounded time and memory."""

import hashlib
import http.client as http_client
import io
import itertools
import json
import os
import re
import tempfile
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from unittest import mock

import pytest
import requests
import urllib3
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from picogpt.errors import UserError
from picogpt.weights import download, transport
from picogpt.weights.openai import Known
from picogpt.weights.partial import Part
from tests.blob_server import BlobServer, Fault, RawServer
from tests.fuzz import TIMES

BODY = b"hello"
DIGITS = b"9" * 5000
KNOWN = Known(len(BODY))


@pytest.fixture(scope="module", autouse=True)
def no_sleep():
    with mock.patch.object(download.time, "sleep"), mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1"}):
        yield


@pytest.fixture(scope="module")
def server():
    with RawServer() as server:
        yield server


def ask(server, *answer, endless=(), known=KNOWN):
    """Download a file from a server that answers with these bytes, and then with others without end.

    Returns its bytes, or the message of the UserError, and the number of connections.
    """
    server.answer = lambda: itertools.chain(answer, itertools.cycle(endless))
    server.connections = 0
    with tempfile.TemporaryDirectory() as directory:
        part = Part(Path(directory, "file"))
        try:
            with transport.Session() as session:
                download.fetch(session, f"{server.url}/file", part, known, lambda path: None)
        except UserError as error:
            assert not part.goal.exists() and part.size <= (known.size or 0) + transport.CHUNK
            assert str(error).isprintable() and len(str(error)) < 1500
            return str(error), server.connections
        assert names(directory) == ["file"]
        return part.goal.read_bytes(), server.connections


def names(directory):
    return [path.name for path in Path(directory).iterdir()]


def http(*headers, status=b"200 OK", body=BODY):
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"", body])


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "answer",
    [
        http(),
        http(b"Content-Length: 5"),
        http(b"Content-Length: " + DIGITS),
        http(b"Content-Length: \xb2"),
        http(b"Content-Length: -5"),
        http(b"Content-Length: 5", b"Content-MD5: is no MD5", b'ETag: "a\r\n b"'),
        http(
            b"Content-Length: 5", b"Set-Cookie: a=b; max-age=" + DIGITS + b"; expires=Fri, 31 Dec 9999999 23:59:59 GMT"
        ),
        http(b"Content-Length: 5", b"Content-Type: ;;=\xff;charset=\xb2"),
        http(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"),
        http(CHUNKED, body=b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n"),
        http(CHUNKED, body=b"".join(b"1\r\n%c\r\n" % c for c in BODY) + b"0\r\n\r\n"),
    ],
)
def test_odd_headers_do_not_matter(server, answer):
    assert ask(server, answer) == (BODY, 1)


@pytest.mark.parametrize(
    ("answer", "message", "connections"),
    [
        (http(b"Retry-After: " + DIGITS, status=b"503 Busy"), "the server says 503 Busy", 6),
        (http(b"Retry-After: \xb2", status=b"503 Busy"), "the server says 503 Busy", 6),
        (http(b"Retry-After: Fri, 31 Dec 9999999 23:59:59 GMT", status=b"503 Busy"), "the server says 503 Busy", 6),
        (http(b"Retry-After: Fri, 31 Dec 2030 23:59:59 +9999999999", status=b"503 Busy"), "the server says 503", 6),
        (http(b"Retry-After: Fri, 31 Dec 2030 23:59:59 +" + b"9" * 24, status=b"503 Busy"), "the server says 503", 6),
        (http(b"Retry-After: Fri, 31 Dec 99999999999999999999 23:59:59 GMT", status=b"503 B"), "server says 503", 6),
        (http(b"Retry-After: Fri, 31 Dec 2999 23:59:59 GMT", status=b"503 Busy"), "asks to wait 3", 1),
        (http(b"Retry-After: 999999999999999999", status=b"503 Busy"), "asks to wait 1000000000000000000 s", 1),
        (http(status=b"404 \x1b[2J\x85" + b"x" * 9999), r"the server says 404 \x1b[2J", 1),
        (http(status=DIGITS), "expected HTTP, found 'HTTP/1.1 9", 3),
        (b"\x00\x01", r"expected HTTP, found '\x00\x01'", 3),
        (b"HTTP/9.9 200 OK\r\n\r\n", "expected HTTP, found 'HTTP/9.9'", 3),
        (b"", "Remote end closed connection without response", 3),
        (http(b"Content-Length: 5", b"Content-Length: 6"), "unmatching values", 1),
        (http(b"Content-Length: 6"), "expected 5 bytes, found 6: not OpenAI's file", 1),
        (http(b"Content-Length: 10000000000"), "expected 5 bytes, found 10000000000", 1),
        (http(b"Content-Length: 5", b"Content-Encoding: gzip"), "found it encoded as gzip", 1),
        (http(b"Content-Length: 5", b"Content-Encoding: \x1b" + b"x" * 9999), r"found it encoded as \x1bxx", 1),
        (http(b"Content-Length: 5", b"Content-Type: text/html" + b"x" * 9999), "found a web page (text/htmlxx", 1),
        (http(b"Content-Length: 5", b"Content-Type: Text/HTML"), "found a web page (Text/HTML)", 1),
        (http(status=b"206 Partial Content"), "the server's ranges do not fit", 6),
        (http(b"Content-Range: bytes 0-4/" + DIGITS, status=b"206 Partial Content"), "ranges do not fit", 6),
        (http(b"Content-Range: bytes 0-4/5", status=b"206 Partial Content"), "ranges do not fit", 6),
        (http(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n"), "expected a length, found -5", 3),
        (http(CHUNKED, body=b"-1\r\nhello"), "expected a length, found -1", 3),
        (http(CHUNKED, body=b"f" * 4000 + b"\r\nhello"), "IncompleteRead", 3),
        (http(CHUNKED, body=b"6\r\nhello!\r\n0\r\n\r\n"), "expected 5 bytes, found 6: not the file", 1),
        (http(CHUNKED, body=b"4\r\nhell\r\n0\r\n\r\n"), "expected 5 bytes, found 4", 6),
        (http(b"Location: http://[::1", status=b"302 Found"), "Invalid IPv6 URL", 1),
        (http(b"Location: https://127.0.0.1:99999999", status=b"302 Found"), "Failed to parse", 1),
        (http(b"Location: http://example.com/", status=b"302 Found"), "expected a redirect to https, found one to", 1),
        (http(b"Location: //example.com/", status=b"307 Temporary Redirect"), "found one to http://example.com/", 1),
        (http(b"Location: file:///etc/hosts", status=b"302 Found"), "found one to file:///etc/hosts", 1),
        (http(b"Location: \xff", status=b"308 Permanent Redirect"), "more than 10 redirects", 11),
        (http(b"Location: x" + b"y" * 60_000, status=b"302 Found"), "more than 10 redirects", 11),
    ],
)  # fmt: skip
def test_other_answers_are_reported_in_one_line(server, answer, message, connections):
    found = ask(server, answer)
    assert message in found[0] and found[1] == connections


@pytest.mark.parametrize(
    ("answer", "endless", "message", "connections"),
    [
        (b"", b"H" * 9000, "got more than 65536 bytes when reading status line", 3),
        (b"HTTP/1.1 200 OK\r\nA: ", b"x" * 9000, "got more than 65536 bytes when reading header line", 3),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1500, "got more than 100 headers", 3),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 400, "endless headers", 3),
        (http(body=b""), b"x" * 9000, "expected 5 bytes, found", 1),
        (http(CHUNKED, body=b""), b"9\r\n012345678\r\n" * 700, "expected 5 bytes, found", 1),
        (http(CHUNKED, body=b""), b"1;" + b"x" * 60_000 + b"\r\nh\r\n", "expected 5 bytes, found 6", 1),
        (http(CHUNKED, body=b""), b"1;" + b"x" * 66_000, "Response chunk size line", 3),
        (http(CHUNKED, body=b"-1\r\n"), b"x" * 9000, "expected a length, found -1", 3),
        (http(CHUNKED, body=b"5\r\nhello\r\n0\r\n"), b"A: b\r\n" * 1500, "endless headers", 6),
        (http(b"Location: http://[::1", status=b"302 Found"), b"x" * 9000, "Invalid IPv6 URL", 1),
        (http(status=b"404 Not Found"), b"x" * 9000, "the server says 404 Not Found", 1),
    ],
)
def test_endless_answers_are_given_up(server, answer, endless, message, connections):
    found = ask(server, answer, endless=[endless])
    assert message in found[0] and found[1] == connections


def test_no_line_is_read_to_its_end_and_nothing_without_a_length():
    with transport.Session() as session:
        reader = transport._Reader(transport._Raw(io.BytesIO(b"x" * 300_000), session))
        assert [len(reader.readline(*size)) for size in ((5,), (0,), (), (None,), (-1,), (1 << 20,))] == [5, 0] + [
            65_537
        ] * 4
        for size in ((), (None,), (-1,), (-5,)):
            with pytest.raises(http_client.HTTPException, match="expected a length"):
                reader.read(*size)
        assert reader.read(5) == b"xxxxx" and reader.read(0) == b""


def test_endless_answers_through_a_proxy_are_given_up(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", server.url)
        server.answer = lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 400)
        with pytest.raises(transport.NetworkError) as error, transport.Session() as session:
            transport.request(session, f"{scheme}://example.com/", {}).__enter__()
        # a tunnel's answer is an error unless it is 200
        assert ("endless headers" if scheme == "http" else "Tunnel connection failed: 100") in str(error.value)


def test_a_tunnel_with_endless_headers_is_given_up(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("https_proxy", server.url)
    server.answer = lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"A: b\r\n" * 1500))
    with pytest.raises(transport.NetworkError, match=r"endless headers|more than 100"), transport.Session() as session:
        transport.request(session, "https://example.com/", {}).__enter__()


# time


class Clock:
    """A clock that advances by `tick` seconds whenever it is read."""

    def __init__(self, tick=0.0):
        self.now, self.tick = 1000.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def test_patience_is_longer_only_for_a_file_that_grows(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(transport, "monotonic", clock)
    patience = transport.Patience(10 * transport.SLOWEST)
    clock.now += transport.PATIENCE + 10
    patience.check()
    clock.now += 0.1
    with pytest.raises(transport.NetworkError, match="only 10240 bytes in 1810 s") as error:
        patience.check()
    assert error.value.final
    for there in (11, 5, 11):
        patience.reached(there * transport.SLOWEST)
        patience.check()
    clock.now += 1
    with pytest.raises(transport.NetworkError):
        patience.check()


@pytest.mark.parametrize("answer", [b"", http(body=b""), http(CHUNKED, body=b"ffffff\r\n")])
def test_a_server_that_trickles_is_given_up(server, monkeypatch, answer):
    monkeypatch.setattr(transport, "monotonic", Clock(60.0))
    message, connections = ask(server, answer, endless=[b"H"], known=Known(1 << 23))
    assert re.search(r"only \d+ bytes in \d{4} s", message) and connections == 1


def test_a_server_that_cuts_after_each_piece_is_given_up(server, monkeypatch):
    monkeypatch.setattr(transport, "monotonic", Clock(60.0))
    message, connections = ask(server, http(status=b"503 Busy"), known=Known(1 << 23))
    assert "the server says 503" in message and connections == 6
    lengths = itertools.count(30_000, 20_000)
    server.answer = lambda: [http(body=bytes(next(lengths)))]
    monkeypatch.setattr(transport, "SLOWEST", 1 << 20)
    with tempfile.TemporaryDirectory() as directory, pytest.raises(UserError, match=r"only \d+ bytes in \d+ s"):
        download.fetch_all(server.url, ["file"], Path(directory), lambda name: Known(1 << 23))


def test_bytes_count_as_they_come():
    with BlobServer({"file": bytes(100_000)}) as server, tempfile.TemporaryDirectory() as directory:
        server.faults["file"] = [Fault(end_at=50_000)]
        with transport.Session() as session:
            part = Part(Path(directory, "file"))
            download.fetch(session, f"{server.url}/file", part, Known(), lambda path: None)
            assert session.patience.furthest == 100_000
        assert part.received == 100_000  # those that came twice are not counted


def test_a_tls_error_is_not_tried_again(server):
    server.answer, server.connections = (lambda: [b"this is no TLS"]), 0
    url = server.url.replace("http:", "https:")
    with tempfile.TemporaryDirectory() as directory, pytest.raises(UserError, match=r"cannot fetch .*SSL") as error:
        download.fetch_all(url, ["file"], Path(directory), lambda name: KNOWN)
    assert server.connections == 1 and str(error.value).isprintable()


def test_a_certificate_store_that_is_missing_is_reported(server, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with tempfile.TemporaryDirectory() as directory, pytest.raises(UserError, match=r"cannot fetch .*/no/such/file"):
        download.fetch_all("https://127.0.0.1:1", ["file"], Path(directory), lambda name: KNOWN)


@pytest.mark.parametrize(
    ("error", "reason", "final"),
    [
        (requests.ConnectionError(), "ConnectionError", False),
        (requests.ConnectionError(OSError("no\nroute")), "no", False),
        (requests.exceptions.SSLError("no"), "no", True),
        (requests.exceptions.InvalidURL("no"), "no", True),
        (urllib3.exceptions.SSLError("no"), "no", True),
        (urllib3.exceptions.HTTPError("x" * 999), "x" * 300, False),
        (http_client.HTTPException("no"), "no", False),
        (TimeoutError(), "TimeoutError", False),
    ],
)
def test_errors_of_all_libraries_become_one(error, reason, final):
    with mock.patch.object(transport.Session, "get", side_effect=error), pytest.raises(transport.NetworkError) as found:
        transport.request(transport.Session(), "https://example.com/", {}).__enter__()
    assert (str(found.value), found.value.final) == (reason, final)


# redirects


def test_each_request_and_redirect_asks_for_the_plain_file():
    with BlobServer({"file": bytes(100_000), "caf%C3%A9": bytes(100_000)}) as server:
        to = {"Location": "caf\xc3\xa9"}
        server.faults["file"] = [Fault(status=302, headers=to), Fault(status=307, headers=to)]
        server.faults["caf%C3%A9"] = [Fault(end_at=50_000)]
        with tempfile.TemporaryDirectory() as directory:
            download.fetch_all(server.url, ["file"], Path(directory), lambda name: KNOWN._replace(size=None))
            assert Path(directory, "file").read_bytes() == bytes(100_000)
    assert [path for path, _ in server.requests] == ["file", "caf%C3%A9"] * 2
    assert [headers.get("Accept-Encoding") for _, headers in server.requests] == ["identity"] * 4
    asked = f"bytes={50_000 - download.OVERLAP}-"
    assert [headers.get("Range") for _, headers in server.requests] == [None, None, asked, asked]


# anything at all

NUMBERS = st.one_of(
    st.integers(-10, 10).map(lambda n: b"%d" % n),
    st.sampled_from([DIGITS, b"\xb2", b"5", b"0x5", b"1e3", b"+5", b"5,5"]),
)
DATES = st.datetimes(timezones=st.just(timezone.utc)).map(lambda date: format_datetime(date, usegmt=True).encode())
VALUES = st.one_of(
    NUMBERS,
    DATES,
    st.binary(max_size=40).map(lambda value: value.replace(b"\n\r\n", b"")),
    st.builds(b"bytes %b-%b/%b".__mod__, st.tuples(NUMBERS, NUMBERS, NUMBERS)),
    st.sampled_from(b'chunked gzip identity close / //[ http://[::1 "tag" W/"tag" text/html'.split()),
)
NAMES = st.sampled_from(
    b"Content-Length Content-Range Content-Type Content-Encoding Content-MD5 Transfer-Encoding ETag Last-Modified"
    b" Location Retry-After Connection Set-Cookie Link Date WWW-Authenticate Refresh X".split()
)
HEADERS = st.lists(st.tuples(NAMES, VALUES).map(b": ".join), max_size=5)
STATUS = st.one_of(
    st.sampled_from([200, 206, 302, 308, 416, 429, 503, 100, 204, 304, 401]).map(lambda status: b"%d OK" % status),
    st.binary(max_size=10),
)
SLOW = settings(max_examples=100 * TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(status=STATUS, headers=HEADERS, body=st.one_of(st.just(BODY), st.binary(max_size=12)))
def test_any_headers(server, status, headers, body):
    found, connections = ask(server, http(*headers, status=status, body=body))
    assert connections <= 11 * 6 and (isinstance(found, str) or found == body[:5])


@SLOW
@given(st.binary(max_size=200))
@example(b"HTTP/1.1 200\r\n\r\nhello")
def test_any_bytes(server, answer):
    found, connections = ask(server, answer)
    assert connections <= 11 * 6 and (isinstance(found, str) or answer.endswith(found))


CHUNKS = st.lists(
    st.tuples(st.one_of(NUMBERS, st.binary(max_size=9)), st.binary(max_size=9)).map(b"\r\n".join), max_size=5
)


@SLOW
@given(CHUNKS, st.booleans())
def test_any_chunks(server, chunks, ends):
    answer = http(CHUNKED, body=b"".join(chunk + b"\r\n" for chunk in chunks) + b"0\r\n\r\n" * ends)
    found, connections = ask(server, answer)
    assert connections <= 6 and (isinstance(found, str) or len(found) == 5)


def test_a_date_in_retry_after_is_waited_for(server):
    for seconds, asked in ((-100, "0"), (100, "(99|100)")):
        date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True).encode()
        with mock.patch.object(download.time, "sleep") as sleep:
            ask(server, http(b"Retry-After: " + date, status=b"503 Busy"))
        assert all(re.fullmatch(asked, f"{call.args[0]:.0f}") for call in sleep.mock_calls) and sleep.call_count == 5


# what is on disk

BLOB = bytes(range(256)) * 200
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["URL", '"tag"', 51200]),
    lambda children: st.lists(children, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from(["url", "total", "validator", "md5", "x"])


@pytest.fixture(scope="module")
def blobs():
    with BlobServer({"file": BLOB}) as server:
        yield server


def note(**fields):
    return json.dumps({"url": "URL", "total": len(BLOB), "validator": '"tag"', "md5": None} | fields).encode()


@SLOW
@given(st.one_of(st.binary(max_size=40), st.dictionaries(FIELDS, JSON).map(lambda fields: note(**fields))))
@example(b"[" * 100_000)
@example(note(total=str(len(BLOB))))
@example(note(total=True))
@example(note(total=int(DIGITS[:1000])))
@example(note().replace(b"51200", DIGITS))
@example(note(validator="漢"))
@example(note(validator='"\xff"'))
@example(note(validator=7))
@example(note(validator='"a"\nX: y'))
@example(note(md5=7))
@example(note(md5="x"))
@example(note(url=None))
def test_any_note_about_a_part(blobs, text):
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "file.part").write_bytes(BLOB[:40_000])
        Path(directory, "file.part.json").write_bytes(text.replace(b"URL", f"{blobs.url}/file".encode()))
        download.fetch_all(blobs.url, ["file"], Path(directory), lambda name: Known(len(BLOB)))
        assert names(directory) == ["file"] and Path(directory, "file").read_bytes() == BLOB


def in_place_of(path, kind, others):
    others.write_bytes(b"mine")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(others)
    elif kind == "broken link":
        path.symlink_to(others.with_name("none"))
    elif kind == "hard link":
        path.hardlink_to(others)


@pytest.mark.parametrize("name", ["file.part", "file.part.json", "file.part.json.new"])
@pytest.mark.parametrize("kind", ["pipe", "link", "broken link", "hard link"])
def test_what_is_in_the_place_of_a_part_does_not_matter_and_is_not_written_to(blobs, tmp_path, name, kind):
    directory, others = tmp_path / "model", tmp_path / "others"
    directory.mkdir()
    in_place_of(directory / name, kind, others)
    blobs.requests.clear()
    download.fetch_all(blobs.url, ["file"], directory, lambda name: Known(len(BLOB)))
    assert names(directory) == ["file"] and (directory / "file").read_bytes() == BLOB
    assert others.read_bytes() == b"mine" and not (tmp_path / "none").exists() and blobs.ranges("file") == [None]


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to"])
def test_a_part_with_a_second_name_is_not_added_to(blobs, tmp_path, link):
    (tmp_path / "kept").write_bytes(BLOB[:40_000])
    getattr(tmp_path / "file.part", link)(tmp_path / "kept")
    (tmp_path / "file.part.json").write_bytes(note(url=f"{blobs.url}/file", validator=None))
    blobs.requests.clear()
    known = Known(len(BLOB), hashlib.sha256(BLOB).hexdigest())
    download.fetch_all(blobs.url, ["file"], tmp_path, lambda name: known)
    assert (tmp_path / "file").read_bytes() == BLOB and (tmp_path / "kept").read_bytes() == BLOB[:40_000]
    assert blobs.ranges("file") == [None]


def test_an_empty_part_of_an_empty_file_is_not_whole(blobs, tmp_path):
    (tmp_path / "file.part.json").write_bytes(note(url=f"{blobs.url}/file", total=0))
    download.fetch_all(blobs.url, ["file"], tmp_path, lambda name: Known())
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == BLOB


@pytest.mark.parametrize("name", ["file.part", "file.part.json"])
def test_a_directory_in_the_place_of_a_part_is_reported(blobs, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").touch()
    with pytest.raises(UserError, match=f"{name}: expected a file, found a directory: move it away"):
        download.fetch_all(blobs.url, ["file"], tmp_path, lambda name: Known(len(BLOB)))
    assert (tmp_path / name / "mine").exists()
