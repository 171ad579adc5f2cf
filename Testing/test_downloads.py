"""Downloads of named models, from a server on this computer."""

import hashlib
from dataclasses import replace

import pytest

from SlideSAMLib import catalogue, models
from SlideSAMLib.errors import Cancelled, InputError, ModelError
from SlideSAMLib.files import downloads
from Testing.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 12_000  # three megabytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serving(FileServer(CONTENT)) as running:
        yield running


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A models folder of its own for every test."""
    path = tmp_path / "models"
    monkeypatch.setenv("SLIDESAM_MODELS", str(path))
    return path


@pytest.fixture
def entry(server, monkeypatch):
    """The catalogue's 'sam-vit-b', served here and with the hash of CONTENT."""
    info = replace(models.model_info("sam-vit-b"), url=server.url, sha256=SHA256)
    monkeypatch.setitem(catalogue.CATALOGUE, info.name, info)
    return info


def test_download(server, entry, folder):
    seen = []
    path = models.download(entry.name, progress=lambda done, total: seen.append((done, total)))
    assert path == folder / entry.file and path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert sorted(p.name for p in folder.iterdir()) == ["hashes.json", entry.file]
    models.download(entry.name)
    assert len(server.ranges) == 1  # it is there already


def test_cancelled_and_resumed(server, entry, folder):
    calls = iter([False, False, True])
    with pytest.raises(Cancelled):
        models.download(entry.name, cancelled=lambda: next(calls))
    part = downloads.partial_path(entry.path)
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT) and not entry.installed
    seen = []
    path = models.download(entry.name, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and not part.exists()
    assert server.ranges == [None, f"bytes={kept}-"]
    assert seen[0] == (kept, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_connection_that_breaks_off(server, entry):
    server.stop_after = 1_000_000
    with pytest.raises(ModelError, match="goes on where it stopped"):
        models.download(entry.name)
    assert not entry.installed
    server.stop_after = None
    assert models.download(entry.name).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-"]


def test_a_server_without_ranges_starts_again(server, entry, folder):
    server.knows_ranges = False
    folder.mkdir()
    downloads.partial_path(entry.path).write_bytes(b"x" * 1000)
    assert models.download(entry.name).read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8"])
def test_a_web_page_does_not_replace_a_partial_file(server, entry, folder, kind):
    """Networks that ask for a login answer everything with a page, as if all were well."""
    folder.mkdir()
    part = downloads.partial_path(entry.path)
    part.write_bytes(CONTENT[:1000])
    server.page = kind
    with pytest.raises(ModelError, match="sent a web page instead of the file") as raised:
        models.download(entry.name)
    assert "log in" in str(raised.value) and "goes on where it stopped" in str(raised.value)
    assert part.read_bytes() == CONTENT[:1000]
    part.unlink()
    with pytest.raises(ModelError, match="sent a web page"):
        models.download(entry.name)
    assert not part.exists() and not entry.installed
    part.write_bytes(CONTENT[:1000])
    server.page = None
    assert models.download(entry.name).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000-"


def test_a_complete_partial_file_is_finished(server, entry, folder):
    folder.mkdir()
    downloads.partial_path(entry.path).write_bytes(CONTENT)
    assert models.download(entry.name).read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_starts_again(server, entry, folder):
    folder.mkdir()
    downloads.partial_path(entry.path).write_bytes(CONTENT + b"more")
    assert models.download(entry.name).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_wrong_hash(server, entry, folder):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelError, match="SHA-256 differs"):
        models.download(entry.name)
    assert not entry.installed and not downloads.partial_path(entry.path).exists()
    server.content = CONTENT
    assert models.download(entry.name).read_bytes() == CONTENT


def test_refusals_of_the_server(server, tmp_path):
    base = server.url.removesuffix("/file")
    with pytest.raises(ModelError, match="404"):
        downloads.fetch(f"{base}/nothing", tmp_path / "a")
    with pytest.raises(InputError, match="not an https address"):
        downloads.fetch(f"{base}/elsewhere", tmp_path / "a")
    assert downloads.fetch(f"{base}/moved", tmp_path / "a") == SHA256


def test_no_server(tmp_path):
    with FileServer(CONTENT) as closed:
        url = closed.url
    with pytest.raises(ModelError, match="check the connection"):
        downloads.fetch(url, tmp_path / "a")


@pytest.mark.parametrize("url", ["http://example.org/a", "ftp://127.0.0.1/a", "file:///etc/hosts"])
def test_only_https(tmp_path, url):
    with pytest.raises(InputError, match="not an https address"):
        downloads.fetch(url, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_unwritable_folder(server, entry, folder):
    folder.write_text("a file stands where the folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        models.download(entry.name)


@pytest.mark.parametrize("name", ["slidesam-b", "medsam-vit-b", "builtin"])
def test_models_without_an_address(name, monkeypatch, tmp_path):
    info = replace(models.model_info(name), file="absent.bin")
    monkeypatch.setitem(catalogue.CATALOGUE, name, info)
    with pytest.raises(InputError, match="no direct address"):
        models.download(name)
