"""Downloading one file: resumable, checked, complete or not at all. No torch here."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ..errors import Cancelled, InputError, ModelError
from .locks import alone_with
from .whole_files import file_sha256

Progress = Callable[[int, int | None], None]
Cancelling = Callable[[], bool]

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without an answer
_LOCAL = ("127.0.0.1", "localhost")


def partial_path(target: Path) -> Path:
    """Where an unfinished download of `target` waits to be resumed."""
    return target.with_name(target.name + ".part")


def fetch(
    url: str,
    target: Path,
    sha256: str | None = None,
    progress: Progress | None = None,
    cancelled: Cancelling | None = None,
) -> str:
    """Download `url` to `target`, resuming what an earlier try left; returns its SHA-256.

    progress : called with (bytes so far, bytes in all or None).
    cancelled : asked between chunks; what has arrived is kept for the next try.

    Raises
    ------
    Cancelled
        On request.
    InputError
        The address is not https (http is accepted for this computer only), or the target cannot
        be written.
    ModelError
        The server does not answer, refuses, breaks off, or sends a web page or a file with another
        SHA-256; or another program is downloading the file.
    """
    _check_address(url)
    part = partial_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone_with(target):
            _receive(url, part, progress, cancelled)
            actual = file_sha256(part, cancelled)
            if sha256 is not None and actual != sha256:
                part.unlink()
                raise ModelError(
                    f"The downloaded '{target.name}' is not the expected file (its SHA-256 "
                    "differs) and was deleted: try again, and tell the maintainers if it happens "
                    "twice."
                )
            os.replace(part, target)
    except OSError as error:
        raise InputError(f"'{target}' cannot be written: {error.strerror or error}.") from error
    return actual


def _receive(url: str, part: Path, progress: Progress | None, cancelled: Cancelling | None) -> None:
    """Bring the partial file to its full length."""
    start = part.stat().st_size if part.exists() else 0
    response = _open(url, start)
    if response is None:  # nothing is left to send
        return
    with response:
        if response.headers.get_content_type() == "text/html":  # never what a model is sent as
            raise ModelError(
                f"The server sent a web page instead of the file '{url}', as networks that ask for "
                "a login do: log in with a web browser and try again, a download that was begun "
                "goes on where it stopped."
            )
        resumed = response.status == 206 and _first_byte(response) == start
        done = start if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        if progress is not None:
            progress(done, total)
        with part.open("ab" if resumed else "wb") as file:
            while True:
                if cancelled is not None and cancelled():
                    raise Cancelled(f"The download of '{url}' was cancelled.")
                chunk = _read(response, url)
                if not chunk:
                    break
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise _broken(url, "it broke off")


def _open(url: str, start: int) -> http.client.HTTPResponse | None:
    """The server's answer from byte `start` on; None where it says that nothing is left."""
    headers = {"User-Agent": "SlideSAM", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    handlers: list[urllib.request.BaseHandler] = [_SafeRedirects()]
    if urllib.parse.urlsplit(url).hostname in _LOCAL:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:
                whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
                # A partial file of another length belongs to another file: start again.
                return None if whole and int(whole[1]) == start else _open(url, 0)
            raise ModelError(
                f"The server refused the download of '{url}' ({error.code} {error.reason}): try "
                "again later, or fetch the file by hand."
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _broken(url, str(getattr(error, "reason", error))) from error


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _broken(url, str(error)) from error


def _broken(url: str, reason: str) -> ModelError:
    return ModelError(
        f"The download of '{url}' failed ({reason}): check the connection and try again, it goes "
        "on where it stopped."
    )


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in _LOCAL
    if parts.scheme != "https" and not local:
        raise InputError(f"'{url}' is not an https address: models are fetched over https only.")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https addresses only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
