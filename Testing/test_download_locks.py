"""Only one program at a time downloads a file; a lock ends with the program that holds it."""

import errno
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.files import downloads, locks
from Testing.file_server import FileServer, serving

ROOT = Path(__file__).parent.parent
CONTENT = bytes(range(256)) * 2000
SCRIPT = "import sys; from pathlib import Path; from SlideSAMLib.files.downloads import fetch; "
SCRIPT += "fetch(sys.argv[1], Path(sys.argv[2]))"
# Takes the lock of a file again and again; fails where two programs have it at once.
TURNS = """
import sys, time
from pathlib import Path
from SlideSAMLib.errors import ModelError
from SlideSAMLib.files.locks import alone_with
inside, turns, end = Path(sys.argv[1] + ".inside"), 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    try:
        with alone_with(Path(sys.argv[1])):
            inside.touch(exist_ok=False)
            time.sleep(0)
            inside.unlink()
            turns += 1
    except ModelError:
        time.sleep(0)
print(turns)
"""


class Waiting(FileServer):
    """Sends the half of CONTENT, and the rest when `go` is set."""

    def __init__(self):
        super().__init__(CONTENT)
        self.go = threading.Event()

    def send(self, write, start):
        half = len(CONTENT) // 2
        write(CONTENT[start:half])
        self.go.wait(20)
        write(CONTENT[max(start, half) :])


@pytest.fixture
def server():
    with serving(Waiting()) as running:
        yield running
        running.go.set()


def wait(until):
    end = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def lock_of(target):
    return target.with_name(target.name + ".lock")


def downloading(server, target):
    """Another program that downloads `target`; it has its lock, and waits for `server.go`."""
    other = subprocess.Popen([sys.executable, "-c", SCRIPT, server.url, target], cwd=ROOT)
    wait(lambda: downloads.partial_path(target).exists())
    return other


def test_two_programs_do_not_destroy_each_others_download(server, tmp_path):
    target = tmp_path / "file.pth"
    other = downloading(server, target)
    try:
        with pytest.raises(ModelError, match="is being downloaded by another program") as caught:
            downloads.fetch(server.url, target)
        assert str(caught.value).endswith(".") and str(lock_of(target)) in str(caught.value)
        server.go.set()
        assert other.wait(20) == 0
    finally:
        other.kill()
        other.wait()
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_a_lock_whose_program_was_killed_is_taken_over(server, tmp_path):
    target = tmp_path / "file.pth"
    other = downloading(server, target)
    other.kill()
    other.wait()
    assert lock_of(target).exists()
    server.go.set()
    downloads.fetch(server.url, target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_the_number_of_a_killed_program_is_used_again(server, tmp_path):
    target = tmp_path / "file.pth"
    other = downloading(server, target)
    other.kill()
    other.wait()
    left = lock_of(target).read_text()
    lock_of(target).write_text(left.replace(str(other.pid), str(os.getppid())))
    server.go.set()
    downloads.fetch(server.url, target)
    assert target.read_bytes() == CONTENT


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


@pytest.mark.parametrize("text", ["", "1", str(os.getpid()), str(os.getppid())])
def test_a_lock_file_that_nobody_holds(server, tmp_path, text):
    """It was made just now, or it carries the number of a program that has others today."""
    target = tmp_path / "file.pth"
    lock_of(target).write_text(text)
    server.go.set()
    downloads.fetch(server.url, target)
    assert target.read_bytes() == CONTENT and not lock_of(target).exists()


def test_never_two_at_once(tmp_path):
    """Four programs take and give back one lock, each as often as it can."""
    words = [sys.executable, "-c", TURNS, str(tmp_path / "file.pth"), "2"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    others = [subprocess.Popen(words, **options) for _ in range(4)]
    for other in others:
        out, err = other.communicate(timeout=60)
        assert other.returncode == 0, err
        assert int(out) > 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_lock_file_that_goes_before_it_is_locked(tmp_path, monkeypatch, again):
    """Whoever had it has just given it back; somebody else may have made it anew."""
    target, lock = tmp_path / "file.pth", locks._lock
    lock_of(target).touch()

    def late(handle):
        monkeypatch.setattr(locks, "_lock", lock)
        lock_of(target).unlink()
        if again:
            lock_of(target).touch()
        lock(handle)

    monkeypatch.setattr(locks, "_lock", late)
    with locks.alone_with(target):
        assert lock_of(target).exists()
        with pytest.raises(ModelError, match="is being downloaded"), locks.alone_with(target):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(server, tmp_path, monkeypatch, code):
    """There whoever makes the lock file has it, and one that is left must be deleted by hand."""
    target = tmp_path / "file.pth"

    def refuses(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks, "_lock", refuses)
    server.go.set()
    with locks.alone_with(target):
        with pytest.raises(ModelError, match="or was when a program ended") as caught:
            downloads.fetch(server.url, target)
        assert f"delete '{lock_of(target)}'" in str(caught.value)
        assert lock_of(target).exists() and not target.exists()
    downloads.fetch(server.url, target)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]
    lock_of(target).touch()  # as a killed program leaves it
    with locks.alone_with(target, needed=False):
        assert target.read_bytes() == CONTENT


def test_other_errors_of_a_lock_are_told(server, tmp_path, monkeypatch):
    def fails(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(locks, "_lock", fails)
    server.go.set()
    with pytest.raises(InputError, match="cannot be written"):
        downloads.fetch(server.url, tmp_path / "file.pth")
    assert not downloads.partial_path(tmp_path / "file.pth").exists()


def test_locks_of_windows(server, tmp_path, monkeypatch):
    """There a byte of the file is locked, and nobody deletes a file that is open."""
    import fcntl

    target, opened = tmp_path / "file.pth", set()
    msvcrt = types.ModuleType("msvcrt")
    msvcrt.LK_NBLCK = 2

    def locking(handle, mode, count):
        assert (mode, count) == (msvcrt.LK_NBLCK, 1)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None
        opened.add(handle)

    def close(handle):
        opened.discard(handle)
        os_close(handle)

    def unlink(self, missing_ok=False):
        if self == lock_of(target) and opened:
            raise PermissionError(errno.EACCES, "being used by another process", str(self))
        path_unlink(self, missing_ok)

    msvcrt.locking, os_close, path_unlink = locking, os.close, Path.unlink
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setattr(locks.sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("this ends a process on Windows"))
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(Path, "unlink", unlink)
    lock_of(target).touch()
    server.go.set()
    with locks.alone_with(target):
        assert opened
        with pytest.raises(ModelError, match="another program"):
            downloads.fetch(server.url, target)
    downloads.fetch(server.url, target)
    assert target.read_bytes() == CONTENT and not lock_of(target).exists()
