"""A server on this computer from which tests download a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `content` at /file and notes the ranges asked for; what it does can be varied."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        self.stop_after: int | None = None
        self.page: str | None = None  # the content type of a page that is sent instead of anything

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"

    def send(self, write: Callable[[bytes], object], start: int) -> None:
        """Send the content from there on; for a server that takes its time."""
        write(self.content[start : self.stop_after])


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.ranges.append(asked)
        if server.page is not None:
            self._head(200, {"Content-Type": server.page, "Content-Length": "18"})
            self.wfile.write(b"<html>login</html>")
            return
        if self.path == "/elsewhere":
            return self._head(302, {"Location": "http://example.org/file"})
        if self.path == "/moved":
            return self._head(302, {"Location": server.url})
        if self.path != "/file":
            return self.send_error(404)
        whole = len(server.content)
        start = int(asked[6:-1]) if asked and server.knows_ranges else 0
        if start >= whole:
            return self._head(416, {"Content-Range": f"bytes */{whole}"})
        headers = {"Content-Length": str(whole - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        self._head(206 if start else 200, headers)
        try:
            server.send(self.wfile.write, start)
        except ConnectionError:
            return  # the other side had enough

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """The server, running."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
