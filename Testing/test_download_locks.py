"""Only one program at a time downloads a file; a lock whose program is gone is taken over."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from SlideSAMLib import downloads
from SlideSAMLib.errors import ModelError

ROOT = Path(__file__).parent.parent
CONTENT = bytes(range(256)) * 2000
SCRIPT = "import sys; from pathlib import Path; from SlideSAMLib.downloads import fetch; "
SCRIPT += "fetch(sys.argv[1], Path(sys.argv[2]))"


@pytest.fixture
def server():
    """Sends the half of CONTENT, and the rest when `server.go` is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            if start:
                last = len(CONTENT) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(CONTENT)}")
            self.end_headers()
            half = len(CONTENT) // 2
            self.wfile.write(CONTENT[start:half])
            self.server.go.wait(20)
            self.wfile.write(CONTENT[max(start, half) :])

        def log_message(self, *arguments):
            """Quiet."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.go = threading.Event()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    running.url = f"http://127.0.0.1:{running.server_port}/file"
    yield running
    running.go.set()
    running.shutdown()
    running.server_close()


def wait(until):
    end = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def lock_of(target):
    return target.with_name(target.name + ".lock")


def test_two_programs_do_not_destroy_each_others_download(server, tmp_path):
    target = tmp_path / "file.pth"
    other = subprocess.Popen([sys.executable, "-c", SCRIPT, server.url, target], cwd=ROOT)
    try:
        wait(lambda: lock_of(target).exists() and lock_of(target).read_text())
        with pytest.raises(ModelError, match="is being downloaded by another program") as caught:
            downloads.fetch(server.url, target)
        assert str(caught.value).endswith(".")
        server.go.set()
        assert other.wait(20) == 0
    finally:
        other.kill()
        other.wait()
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_a_lock_whose_program_was_killed_is_taken_over(server, tmp_path):
    target = tmp_path / "file.pth"
    other = subprocess.Popen([sys.executable, "-c", SCRIPT, server.url, target], cwd=ROOT)
    wait(lambda: lock_of(target).exists() and lock_of(target).read_text())
    other.kill()
    other.wait()
    assert lock_of(target).exists()
    server.go.set()
    downloads.fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_two_threads_of_one_program(server, tmp_path):
    target, made = tmp_path / "file.pth", []
    thread = threading.Thread(target=lambda: made.append(downloads.fetch(server.url, target)))
    thread.start()
    wait(lambda: downloads.partial_path(target).exists())
    with pytest.raises(ModelError, match="is being downloaded"):
        downloads.fetch(server.url, target)
    server.go.set()
    thread.join(20)
    assert made and target.read_bytes() == CONTENT


@pytest.mark.parametrize("text", [str(os.getpid()), ""])
def test_a_lock_that_nobody_holds(server, tmp_path, text):
    """The number of a program that is gone may be that of this one; it may have written none."""
    target = tmp_path / "file.pth"
    lock_of(target).write_text(text)
    os.utime(lock_of(target), (0, 0))
    server.go.set()
    downloads.fetch(server.url, target)
    assert target.read_bytes() == CONTENT and not lock_of(target).exists()


def test_windows_lets_nobody_delete_a_lock_that_is_held(server, tmp_path, monkeypatch):
    """There no process is asked: its number may not be signalled, and deleting fails instead."""
    from SlideSAMLib import locks

    target = tmp_path / "file.pth"
    lock_of(target).write_text("1")
    monkeypatch.setattr(locks.sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("this ends a process on Windows"))
    unlink = Path.unlink

    def held(self, missing_ok=False):
        if self == lock_of(target):
            raise PermissionError(13, "being used by another process", str(self))
        unlink(self, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(ModelError, match="another program"):
        patch.setattr(Path, "unlink", held)
        downloads.fetch(server.url, target)
    server.go.set()
    downloads.fetch(server.url, target)
    assert target.read_bytes() == CONTENT
