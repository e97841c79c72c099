"""Downloading checkpoints by HTTP: they arrive whole, are what they should be, and are asked for once.

urllib does it: a client library would add a dependency for redirects and proxies, which urllib handles, while
resuming, waiting and refusing wrong content would be written here all the same.
"""

import html
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from common.system.checksums import file_sha256
from common.system.output import write_json
from weights.manifest import LOCK, Checkpoint, lock

BLOCK = 1 << 16
CONNECTION = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be gone on the next try


@dataclass(frozen=True)
class Patience:
    """How long a download is tried."""

    tries: int = 5  # attempts in a row without a new byte
    wait: float = 2.0  # seconds before the second attempt, doubled each time
    longest: float = 120.0  # seconds, the most that is waited before an attempt
    timeout: float = 30.0  # seconds of silence after which a connection counts as cut


@dataclass(frozen=True)
class DownloadOutcome:
    """What became of one checkpoint."""

    state: str  # "present", "downloaded" or "failed"
    sha256: str = ""  # of the file, where it is there
    reasons: tuple[str, ...] = ()  # one line per source, where it failed


class Failed(Exception):
    """A source cannot give the file; the message says why."""


class Passing(Exception):
    """A fault that may be gone on the next try, after `wait` seconds if the server says so."""

    def __init__(self, message: str, wait: float | None = None):
        super().__init__(message)
        self.wait = wait


def obtain(
    entry: Checkpoint,
    folder: Path,
    base_url: str | None = None,
    local: Path | None = None,
    patience: Patience = Patience(),
) -> DownloadOutcome:
    """Bring one checkpoint into a folder.

    It comes from a local file, else from base_url/FILE, else from its own addresses in order. Nothing happens
    where the file is there and right. Several processes may do this at once: the later ones wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / entry.file
    with locked(folder / f".{entry.file}.lock"):
        if target.is_file():
            return _present(entry, target)
        part = folder / f"{entry.file}.part"
        if local is not None:
            sources = [str(local)]
        else:
            own = () if base_url is None else (f"{base_url.rstrip('/')}/{entry.file}",)
            sources = [*own, *entry.addresses]
        reasons = []
        for source in sources:
            try:
                if local is not None:
                    _copy(local, part)
                else:
                    _download(source, part, entry, patience)
                sha256 = _verify(entry, part, folder)
            except Failed as error:
                reasons.append(f"{source}: {error}")
                if _length(part) == 0:  # nothing to go on from
                    _remove(part)
                continue
            os.replace(part, target)
            _notes(part).unlink(missing_ok=True)
            _record(entry, target, sha256, source)
            return DownloadOutcome("downloaded", sha256)
        return DownloadOutcome("failed", reasons=tuple(reasons))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes.

    The system lets go of it when a process ends, however it ends, so none is ever stale.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process has {path}: waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _present(entry: Checkpoint, target: Path) -> DownloadOutcome:
    try:
        sha256 = _verify(entry, target, target.parent)
    except Failed as error:
        return DownloadOutcome(
            "failed", reasons=(f"{target}: {error}; if you do not need it, remove it and start again",)
        )
    if entry.name not in lock(target.parent):
        _record(entry, target, sha256, str(target))
    return DownloadOutcome("present", sha256)


def _verify(entry: Checkpoint, path: Path, folder: Path) -> str:
    """Return the sha256 of a file that is what the manifest and an earlier download say.

    Raises Failed for another one, which is removed if it is a partial file.
    """
    size, sha256 = path.stat().st_size, file_sha256(path)
    recorded = lock(folder).get(entry.name, {}).get("sha256")
    if size == 0:
        fault = "is empty"
    elif page := _web_page(_first_bytes(path)):
        fault = f"is a web page, not the file ({page})"
    elif entry.size is not None and size != entry.size:
        fault = f"has {size} bytes, not {entry.size}"
    elif entry.sha256 is not None and not sha256.startswith(entry.sha256):
        fault = f"has sha256 {sha256[: len(entry.sha256)]}, not {entry.sha256}"
    elif recorded is not None and sha256 != recorded:
        fault = (
            f"is no longer the file of sha256 {recorded} that {folder / LOCK} has; if the change is meant, "
            "remove that entry"
        )
    else:
        return sha256
    if path.suffix == ".part":
        _remove(path)
    raise Failed(fault)


def _record(entry: Checkpoint, target: Path, sha256: str, source: str) -> None:
    with locked(target.parent / f".{LOCK}.lock"):
        known = lock(target.parent)
        known[entry.name] = {
            "file": entry.file,
            "size": target.stat().st_size,
            "sha256": sha256,
            "source": source,
        }
        write_json(target.parent / LOCK, dict(sorted(known.items())))


def _copy(local: Path, part: Path) -> None:
    _notes(part).unlink(missing_ok=True)  # so that no download goes on from half a copy
    try:
        shutil.copyfile(local, part)
    except OSError as error:
        raise Failed(f"cannot be read ({error.strerror})") from None


def _download(address: str, part: Path, entry: Checkpoint, patience: Patience) -> None:
    """Fill the partial file up to its end, over as many connections as it takes."""
    failures, most = 0, _length(part)
    while True:
        try:
            return _attempt(address, part, entry, patience.timeout)
        except Passing as error:
            fault, asked = str(error), error.wait
        except ValueError as error:
            raise Failed(f"is no address ({error})") from None
        except CONNECTION as error:
            fault, asked = f"{type(error).__name__}: {error}", None
        length = _length(part)
        failures = failures + 1 if length <= most else 1
        most = max(most, length)
        if failures >= patience.tries:
            raise Failed(f"{fault}; given up after {failures} tries")
        wait = min(patience.wait * 2 ** (failures - 1), patience.longest) if asked is None else asked
        if wait > patience.longest:
            raise Failed(f"{fault}; the server asks to come back in {wait:.0f} s")
        time.sleep(wait)


def _attempt(address: str, part: Path, entry: Checkpoint, timeout: float) -> None:
    """Download over one connection.

    It goes on from a partial file only if the server confirms that the file is still the same.
    """
    offset, notes = _resumable(address, part)
    if offset and offset == notes["total"]:
        return  # ended between its last byte and its name
    headers = {"User-Agent": "tta-iqa", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": notes["validator"]}
    with _opened(urllib.request.Request(address, headers=headers), part, timeout) as response:
        total = _total(response)
        if response.status != 206:
            offset = 0
        elif _first(response) != offset or (total, _validator(response.headers)) != (
            notes["total"],
            notes["validator"],
        ):
            part.unlink()
            raise Passing("goes on with another file, or elsewhere in it")
        block = response.read(BLOCK)
        if response.headers.get_content_type() == "text/html" or (not offset and _web_page(block)):
            raise Failed(f"answers with a web page, not the file ({_web_page(block) or 'no title'})")
        if entry.size is not None and total is not None and total != entry.size:
            raise Failed(f"has {total} bytes, not {entry.size}")
        if not offset:
            _notes(part).unlink(missing_ok=True)  # never the notes of one file beside the bytes of another
        with (
            part.open("r+b" if offset else "wb") as file,
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=entry.name, leave=False) as bar,
        ):
            if not offset:
                write_json(
                    _notes(part),
                    {"address": address, "validator": _validator(response.headers), "total": total},
                )
            file.seek(offset)
            while block:
                file.write(block)
                bar.update(len(block))
                block = response.read(BLOCK)
            length = file.tell()
            file.flush()
            os.fsync(file.fileno())
    if total is not None and length != total:
        raise Passing(f"cut off at byte {length} of {total}")


def _opened(request: urllib.request.Request, part: Path, timeout: float) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the partial file is no part of what is there now
                part.unlink(missing_ok=True)
                raise Passing("has less than was already downloaded") from None
            message = f"HTTP {error.code} {error.reason}"
            if error.code not in PASSING:
                page = _web_page(error.read(BLOCK))
                raise Failed(message + (f" ({page})" if page else "")) from None
            raise Passing(message, _retry_after(error.headers.get("Retry-After"))) from None


def _resumable(address: str, part: Path) -> tuple[int, dict]:
    """Return from which byte to go on (0: start again), and what was noted when the download began."""
    try:
        notes = json.loads(_notes(part).read_text(encoding="utf-8"))
        resumable = notes["address"] == address and notes["validator"] and "total" in notes
    except (OSError, ValueError, KeyError, TypeError):
        return 0, {}
    return (_length(part), notes) if resumable else (0, {})


RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def _first(response: http.client.HTTPResponse) -> int | None:
    """Return the byte with which a partial answer begins."""
    span = RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(span[1]) if span else None


def _total(response: http.client.HTTPResponse) -> int | None:
    """Return the length of the whole file as the server has it, None if it does not say."""
    if response.status == 206:
        span = RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return int(span[2]) if span else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _validator(headers: http.client.HTTPMessage) -> str:
    """Return what If-Range may hold: a strong ETag, else the time of the last change, else nothing."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _web_page(first: bytes) -> str:
    """Return the title of an HTML page by its first bytes, empty for anything else.

    No checkpoint begins with <.
    """
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not re.match(rb"<(!doctype|html|head|\?xml|!--)", text, re.IGNORECASE):
        return ""
    title = re.search(rb"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return html.unescape(title[1].decode("utf-8", "replace")).strip()[:80] if title else "no title"


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BLOCK)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)
