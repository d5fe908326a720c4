"""Requests to servers that are not trusted.

Whatever a server answers, `request` gives an Answer or raises NetworkError, in bounded time and memory. Every byte
passes through a `_Reader`, which limits the length of lines and refuses a read without a length. Before each read,
`Patience` checks how long the file has taken. Headers become numbers and short strings of known form, or None.
Redirects are followed here, and only to https or this machine; their bodies are not read.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, time
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of data
REDIRECTS = 10
CHUNK = 1 << 14  # bytes; the most that an interruption loses
LONGEST_LINE = (1 << 16) + 1  # bytes; what http.client asks for, one more than it takes
LONGEST_REASON = 300  # characters of a server's message that are shown
LINES = 1 << 18  # bytes of lines (status, headers, sizes of chunks) in an answer, besides three quarters of all bytes
PATIENCE = 1800  # seconds for a file, and one more for each SLOWEST bytes of it
SLOWEST = 1 << 10

# the accepted forms of headers: an ETag that changes with the bytes (a weak one, W/"...", may not), a date
ETAG = r'"[\x20\x21\x23-\x7e]{0,200}"'
DATE = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
VALIDATOR = re.compile(rf"{ETAG}|{DATE}", re.ASCII)
MD5 = re.compile(r"[A-Za-z0-9+/]{22}==")


class NetworkError(Exception):
    """Why there is no answer, or only a part of it; `final` if another attempt would not help."""

    def __init__(self, reason: str, final: bool = False):
        super().__init__(reason[:LONGEST_REASON])
        self.final = final


class Patience:
    """Limits the time for one file: PATIENCE seconds, and more only while more of it arrives than ever before."""

    def __init__(self, there: int = 0):
        self.furthest, self.started = there, monotonic()

    def reached(self, there: int) -> None:
        self.furthest = max(self.furthest, there)

    def check(self) -> None:
        """Raise NetworkError if the time is over."""
        seconds = monotonic() - self.started
        if seconds > PATIENCE + self.furthest / SLOWEST:
            raise NetworkError(f"only {self.furthest} bytes in {seconds:.0f} s", final=True)


class Answer(NamedTuple):
    """A server's answer. Missing and malformed headers are None."""

    status: int
    reason: str
    kind: str  # Content-Type
    encoding: str
    length: int | None
    range: tuple[int, int, int] | None  # first byte, last byte, length of the whole
    validator: str | None
    md5: str | None
    wait: float | None  # seconds until another request is welcome
    chunks: Iterator[bytes]


class Session(requests.Session):
    """A session of requests that limits answers by `patience` and does not follow redirects by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.patience = Patience()
        self.headers["Accept-Encoding"] = "identity"  # lengths and ranges are those of the file itself
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, because requests would read the body of a redirect to its end, whatever its length."""


@contextmanager
def request(session: Session, url: str, headers: Mapping[str, str | None]) -> Iterator[Answer]:
    """A server's answer. Headers that are None are not sent. Raises NetworkError, here or while chunks are read."""
    with _one_kind_of_error():
        response = _follow(session, url, headers)
    with response:
        yield _answer(response)


def _follow(session: Session, url: str, headers: Mapping[str, str | None]) -> requests.Response:
    for _ in range(REDIRECTS + 1):
        session.patience.check()
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        if not response.is_redirect:
            return response
        response.close()
        # header values are bytes, which http.client takes for Latin-1
        target = quote(response.headers["Location"].encode("latin-1"), safe="!#$%&'()*+,/:;=?@[]~")
        url = urljoin(url, target)
        if not is_safe(url):
            raise NetworkError(f"expected a redirect to https, found one to {url}: use another mirror", final=True)
    raise NetworkError(f"more than {REDIRECTS} redirects", final=True)


def is_safe(url: str) -> bool:
    """Whether nobody on the way can change the answer: by https, or from this machine."""
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        return False
    return bool(host) and (scheme == "https" or (scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer(response: requests.Response) -> Answer:
    headers = response.headers
    return Answer(
        status=response.status_code,
        reason=(response.reason or "")[:LONGEST_REASON],
        kind=headers.get("Content-Type", "")[:LONGEST_REASON],
        encoding=headers.get("Content-Encoding", "identity")[:LONGEST_REASON],
        length=whole(headers.get("Content-Length", "")),
        range=_content_range(headers.get("Content-Range", "")),
        validator=matching(VALIDATOR, headers.get("ETag")) or matching(VALIDATOR, headers.get("Last-Modified")),
        md5=matching(MD5, headers.get("Content-MD5")),
        wait=_seconds(headers.get("Retry-After", "")),
        chunks=_chunks(response),
    )


def _chunks(response: requests.Response) -> Iterator[bytes]:
    with _one_kind_of_error():
        yield from response.raw.stream(CHUNK, decode_content=False)


def whole(text: str) -> int | None:
    """A whole number of up to 18 digits, else None.

    >>> whole("12"), whole("-1"), whole("²"), whole("9" * 5000)
    (12, None, None, None)
    """
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def matching(pattern: re.Pattern[str], value: object) -> str | None:
    """The value if it is a string of this form, else None."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _content_range(text: str) -> tuple[int, int, int] | None:
    found = re.fullmatch("bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _seconds(text: str) -> float | None:
    """The seconds of a Retry-After header, which is a number or a date."""
    if (seconds := whole(text)) is not None:
        return seconds
    try:
        return max(0, email.utils.parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, IndexError, OverflowError, OSError):  # it raises all of these
        return None


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Turn the errors of requests, and of the libraries that it uses, into NetworkError."""
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
        final = isinstance(error, (ValueError, requests.exceptions.SSLError, urllib3.exceptions.SSLError))
        raise NetworkError(_innermost(error), final) from None


def _innermost(error: BaseException) -> str:
    """The first line of the innermost cause of an error of requests."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    reason = getattr(error, "reason", None)
    lines = str(reason if isinstance(reason, Exception) else error).splitlines()
    if type(error) in (http.client.BadStatusLine, http.client.UnknownProtocol):
        return f"expected HTTP, found {error.args[0]!r}"
    return re.sub(r"^HTTPS?Connection\(.*?\): ", "", lines[0]) if lines else type(error).__name__


class _Adapter(HTTPAdapter):
    """An adapter whose connections, direct or through a proxy, read answers through a _Reader."""

    def __init__(self, session: Session):
        self.session = session
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _read_by(self.session, self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            _read_by(self.session, manager)
        return manager


def _read_by(session: Session, manager: Any) -> None:
    """Let all connections of a pool manager read through a _Reader."""
    response = type("Response", (_Response,), {"session": session})
    pools = {}
    for scheme, pool in manager.pool_classes_by_scheme.items():
        connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"response_class": response})
        pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": connection})
    manager.pool_classes_by_scheme = pools


class _Response(http.client.HTTPResponse):
    session: Session

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        self.fp = _Reader(_Raw(self.fp.detach(), self.session))


class _Raw(io.RawIOBase):
    """The bytes of a socket, with a check of the session's patience before each read."""

    def __init__(self, source: io.RawIOBase, session: Session):
        self.source, self.session, self.received = source, session, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.session.patience.check()
        n_bytes = self.source.readinto(buffer)
        self.received += n_bytes or 0
        return n_bytes

    def close(self) -> None:
        self.source.close()
        super().close()


class _Reader(io.BufferedReader):
    """The stream that http.client reads an answer from. It limits each line, all lines together, and each read."""

    def __init__(self, raw: _Raw):
        super().__init__(raw)
        self.source, self.lines = raw, 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:  # a chunk of size -1 would be read without a limit
            raise http.client.HTTPException(f"expected a length, found {size}")
        return super().read(size)

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size if size is not None and 0 <= size < LONGEST_LINE else LONGEST_LINE)
        self.lines += len(line)
        if self.lines > LINES + 0.75 * self.source.received:
            raise http.client.HTTPException("endless headers")
        return line
