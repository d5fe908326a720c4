"""What the tests' servers of HTTP share: each runs in a thread of this process, on a port of 127.0.0.1 that is free."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers requests with connections that stay open, and prints nothing."""

    owner: Any  # the Loopback whose handler this is
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


class Loopback:
    """A server for the time of a `with` block. A subclass says by which `handler` it answers."""

    handler: type[Handler]

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (self.handler,), {"owner": self}))
        self._server.daemon_threads = True
        self.prepare(self._server)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def prepare(self, server: ThreadingHTTPServer) -> None:
        """Settings that must be made before the first client comes."""

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
