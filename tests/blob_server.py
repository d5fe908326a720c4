"""A blob store on loopback that goes wrong on demand: real sockets, and faults that happen at an exact byte.

    with BlobServer({"124M/encoder.json": b"..."}) as server:
        server.faults["124M/encoder.json"] = [Fault(cut_at=1000), Fault(status=503)]

The faults of a path are used up one a request, in order; then it is served as it should be.
"""

from __future__ import annotations

import email.utils
import re
import socket
import struct
import threading
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import md5, sha256
from http.server import ThreadingHTTPServer

from tests.loopback import Handler, Loopback


@dataclass
class Fault:
    """What is different about one answer; a Fault() alone changes nothing."""

    status: int | None = None  # an error with this status instead of the file
    headers: dict[str, str | None] = field(default_factory=dict)  # sent instead of the right ones; None leaves one out
    body: bytes | None = None  # sent instead of the file
    cut_at: int | None = None  # the connection is reset after this many bytes of the body
    end_at: int | None = None  # the connection is closed in good order after this many
    stall_at: int | None = None  # nothing more comes after this many, until the client goes away
    ignore_range: bool = False
    before: Callable[[], object] = lambda: None  # called when the request has come


class _Handler(Handler):
    owner: BlobServer

    def do_GET(self):  # noqa: N802 http.server calls it
        path = self.path.lstrip("/")
        fault = self.owner.faults[path].pop(0) if self.owner.faults[path] else Fault()
        self.owner.requests.append((path, dict(self.headers.items())))
        fault.before()
        if fault.status is not None or path not in self.owner.files:
            self._answer(fault.status or 404, {}, fault.body or b"no", fault)
        elif fault.body is not None:
            self._answer(200, {}, fault.body, fault)
        else:
            self._serve(self.owner.files[path], fault)

    def _serve(self, data: bytes, fault: Fault) -> None:
        headers = {"Last-Modified": email.utils.formatdate(len(data), usegmt=True)}
        if self.owner.etag:
            headers["ETag"] = f'"{sha256(data).hexdigest()[:16]}"'
        md5_of_all = {"Content-MD5": b64encode(md5(data).digest()).decode()} if self.owner.content_md5 else {}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range", headers.get("ETag"))
        if not asked or fault.ignore_range or condition not in (headers.get("ETag"), headers["Last-Modified"]):
            self._answer(200, headers | md5_of_all, data, fault)
        elif (start := int(asked[1])) >= len(data):
            self._answer(416, headers | {"Content-Range": f"bytes */{len(data)}"}, b"", fault)
        else:
            content_range = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self._answer(206, headers | content_range, data[start:], fault)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers | fault.headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        stops = [at for at in (fault.cut_at, fault.end_at, fault.stall_at) if at is not None]
        self.wfile.write(body[: stops[0]] if stops else body)
        self.wfile.flush()
        if stops or fault.headers:
            self.close_connection = True
        if stops:
            self.owner.reached.set()
        if fault.cut_at is not None:  # linger 0: the close is a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault.stall_at is not None:
            self.connection.recv(1)  # returns when the client has gone


class BlobServer(Loopback):
    """Serves `files`, path -> bytes; `requests` lists (path, headers); `reached` is set when a fault's byte is sent."""

    handler = _Handler

    def __init__(self, files: dict[str, bytes], etag: bool = True, content_md5: bool = True):
        self.files, self.etag, self.content_md5 = dict(files), etag, content_md5
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.reached = threading.Event()

    def prepare(self, server: ThreadingHTTPServer) -> None:
        # little is under way, so what has been sent has nearly all been received
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
        server.handle_error = lambda *_: None  # clients that go away are expected

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of the requests for a path, in order."""
        return [headers.get("Range") for asked, headers in self.requests if asked == path]


class RawServer:
    """Sends bytes, which need not be HTTP, to every client, and counts the connections.

    `answer()` are parts of them, which are sent one after another until there are no more or the client goes away.
    """

    def __init__(self, answer: Callable[[], Iterable[bytes]] = tuple):
        self.answer = answer
        self.connections = 0

    def __enter__(self) -> RawServer:
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # clients that go away are expected
            asked = b""
            while b"\r\n\r\n" not in asked and not asked.startswith(b"\x16"):  # a TLS handshake has no lines
                if not (more := connection.recv(1 << 16)):
                    return
                asked += more
            for part in self.answer():
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            while connection.recv(1 << 16):  # the client closes first: a close with bytes unread would be a reset
                pass
