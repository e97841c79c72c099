"""Downloading checkpoints by HTTP: they arrive whole, are what they should be, and are asked for once.

urllib does it: a client library would add a dependency for redirects and proxies, which urllib handles, while
resuming, waiting and refusing wrong content would be written here all the same. No server is trusted to end,
to hurry, or to send what it says.
"""

import html
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from common.system.checksums import file_sha256
from common.system.errors import UserError
from common.system.files import need_file, read_text
from common.system.locks import locked
from common.system.output import make_folders, sync, sync_folder, write_json
from common.system.text import counted, printable, shortened
from weights.manifest import LOCK, Checkpoint, lock
from weights.networks import BACKBONES

BLOCK = 1 << 16
LARGEST = 2 << 30  # bytes of a file whose size is not known; the largest network here has 0.6 GiB
CONNECTION = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be gone on the next try


@dataclass(frozen=True)
class Patience:
    """How long a download is tried."""

    tries: int = 5  # attempts in a row that bring less than `least`
    wait: float = 2.0  # seconds before the second attempt, doubled each time
    longest: float = 120.0  # seconds, the most that is waited before an attempt
    timeout: float = 30.0  # seconds of silence after which a connection counts as cut
    window: float = 60.0  # seconds, in each of which `least` bytes of the file must arrive
    least: int = 1 << 16
    overall: float = 12 * 3600.0  # seconds for the whole file from one address


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
    replace: bool = False,
) -> DownloadOutcome:
    """Bring one checkpoint into a folder.

    It comes from a local file, else from base_url/FILE, else from its own addresses in order, and must fit
    the entry's network before it gets its name. Nothing happens where the file is there and right. Several
    processes may do this at once: the later ones wait.

    replace: whether another file may take the place of the one that is there, or recorded in lock.json.
    """
    make_folders(folder)
    target = folder / entry.file
    with _alone(folder / f".{entry.file}.lock"):
        if target.is_file() and not replace:
            return _present(entry, target, local)
        part = folder / f"{entry.file}.part"
        recorded = None if replace else _recorded(entry, folder)
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
                sha256 = _verified(entry, part, recorded)
                _check_fit(entry, part)
            except Failed as error:
                reasons.append(printable(f"{source}: {error}"))
                if _length(part) == 0:  # nothing to go on from
                    _remove(part)
                continue
            sync(part)
            os.replace(part, target)
            sync_folder(folder)
            _notes(part).unlink(missing_ok=True)
            _record(entry, target, sha256, source)
            return DownloadOutcome("downloaded", sha256)
        return DownloadOutcome("failed", reasons=tuple(reasons))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock between processes, and say so where another has it."""
    with locked(path, wait=False) as mine:
        if mine:
            yield
            return
    print(f"another process has {path}: waiting for it", flush=True)
    with locked(path, wait=True):
        yield


def _present(entry: Checkpoint, target: Path, local: Path | None) -> DownloadOutcome:
    recorded = _recorded(entry, target.parent)
    try:
        sha256 = _verified(entry, target, recorded)
        if local is not None and (other := _sha256(local)) != sha256:
            raise Failed(f"is there, with sha256 {sha256}, and {local} is another file, with sha256 {other}")
        if recorded is None:
            _check_fit(entry, target)
    except Failed as error:
        return DownloadOutcome(
            "failed", reasons=(printable(f"{target}: {error}; --replace takes another file in its place"),)
        )
    if recorded is None:
        _record(entry, target, sha256, str(target))
    return DownloadOutcome("present", sha256)


def _recorded(entry: Checkpoint, folder: Path) -> str | None:
    """Return the sha256 of an earlier download."""
    return lock(folder).get(entry.name, {}).get("sha256")


def _check_fit(entry: Checkpoint, path: Path) -> None:
    """Read a file into the network that it is for.

    Raises Failed where it does not fit, or is no checkpoint; it is removed if it is a partial file.
    """
    from weights.loading import fill, read_state_dict  # they import torch, which takes seconds

    try:
        state = read_state_dict(path)
        if entry.backbone is not None:
            if entry.backbone not in BACKBONES:
                raise UserError(f"the list has it for {entry.backbone}, and no network here is called that")
            backbone = BACKBONES[entry.backbone]
            fill(backbone.network(), backbone.rename(state), path)
    except UserError as error:
        if path.suffix == ".part":
            _remove(path)
        raise Failed(str(error)) from None


def _verified(entry: Checkpoint, path: Path, recorded: str | None) -> str:
    """Return the sha256 of a file that is what the manifest and an earlier download say.

    Raises Failed for another one, which is removed if it is a partial file.
    """
    size, sha256 = path.stat().st_size, file_sha256(path)
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
            f"has sha256 {sha256}: it is no longer the file of sha256 {recorded} that {LOCK} has; if the "
            "change is meant, add --replace"
        )
    else:
        return sha256
    if path.suffix == ".part":
        _remove(path)
    raise Failed(fault)


def _record(entry: Checkpoint, target: Path, sha256: str, source: str) -> None:
    with _alone(target.parent / f".{LOCK}.lock"):
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
        need_file(local, "checkpoint")
        shutil.copyfile(local, part)
    except OSError as error:
        raise Failed(f"cannot be read ({error.strerror})") from None
    except UserError as error:
        raise Failed(str(error)) from None


def _sha256(local: Path) -> str:
    try:
        need_file(local, "checkpoint")
        return file_sha256(local)
    except OSError as error:
        raise Failed(f"is there, and {local} cannot be read ({error.strerror})") from None
    except UserError as error:
        raise Failed(f"is there, and {error}") from None


def _download(address: str, part: Path, entry: Checkpoint, patience: Patience) -> None:
    """Fill the partial file up to its end, over as many connections as it takes."""
    failures, most = 0, _length(part)
    deadline = time.monotonic() + patience.overall
    while True:
        try:
            if urlsplit(address).scheme not in ("http", "https"):
                raise Failed("is no address of http or https")
            with Watch(patience, deadline) as watch:
                return _attempt(address, part, entry, patience.timeout, watch)
        except Passing as error:
            fault, asked = str(error), error.wait
        except ValueError as error:
            raise Failed(f"is no address ({error})") from None
        except CONNECTION as error:
            fault, asked = watch.fault or f"{type(error).__name__}: {error}", None
        length = _length(part)
        failures = failures + 1 if length < most + patience.least else 1
        most = max(most, length)
        if failures >= patience.tries:
            raise Failed(f"{fault}; given up after {counted(failures, 'try', 'tries')}")
        if time.monotonic() > deadline:
            raise Failed(f"{fault}; given up after {patience.overall / 3600:.0f} h")
        wait = min(patience.wait * 2 ** (failures - 1), patience.longest) if asked is None else asked
        if wait > patience.longest:
            raise Failed(f"{fault}; the server asks to come back in {wait:.0f} s")
        time.sleep(wait)


class Watch:
    """Cuts a connection that brings too little of the file in a while, at whatever it is.

    A time limit of the socket counts silence alone: a server may send its headers, or the length of a piece,
    a letter at a time for ever.
    """

    def __init__(self, patience: Patience, deadline: float):
        self.patience, self.deadline = patience, deadline
        self.received = 0  # bytes of the file
        self.fault = ""  # why it cut
        self._twins: list[socket.socket] = []  # of the sockets: cutting these cuts those
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for twin in self._twins:
            twin.close()

    def connection(self, kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return a connection of http.client that is watched from its first byte, TLS included."""
        found = kind(*args, **options)
        connect = found._create_connection

        def connected(*args: Any, **options: Any) -> socket.socket:
            made = connect(*args, **options)
            self._twins.append(made.dup())
            return made

        found._create_connection = connected
        return found

    def _look(self) -> None:
        before, window = 0, self.patience.window
        while not self._over.wait(max(0.0, min(window, self.deadline - time.monotonic()))):
            if time.monotonic() >= self.deadline:
                self.fault = "is not there in time"
            elif self.received - before < self.patience.least:
                self.fault = f"sends less than {self.patience.least} bytes in {window:.0f} s"
            if self.fault:
                for twin in self._twins:
                    with suppress(OSError):
                        twin.shutdown(socket.SHUT_RDWR)
                return
            before = self.received


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(partial(self.watch.connection, http.client.HTTPConnection), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def https_open(self, request: urllib.request.Request) -> Any:
        made = partial(self.watch.connection, http.client.HTTPSConnection)
        return self.do_open(made, request, context=ssl.create_default_context())


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after != "https" and not (before == after == "http"):
            raise Failed(f"leads from {before} to {after}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(watch: Watch) -> urllib.request.OpenerDirector:
    """Return what opens addresses of http and https, and of nothing else that urllib knows, such as files."""
    found = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(watch),
        _Https(watch),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        found.add_handler(handler)
    return found


def _attempt(address: str, part: Path, entry: Checkpoint, timeout: float, watch: Watch) -> None:
    """Download over one connection.

    It goes on from a partial file only if the server confirms that the file is still the same.
    """
    offset, notes = _resumable(address, part)
    if offset and offset == notes["total"]:
        return  # ended between its last byte and its name
    headers = {"User-Agent": "tta-iqa", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": notes["validator"]}
    most = entry.size or LARGEST
    with _opened(urllib.request.Request(address, headers=headers), part, timeout, watch) as response:
        total = _total(response)
        if response.status != 206:
            offset = 0
        elif not offset:
            raise Passing("answers with a part of the file, which was not asked for")
        elif _first(response) != offset or (total, _validator(response.headers)) != (
            notes["total"],
            notes["validator"],
        ):
            part.unlink(missing_ok=True)
            raise Passing("goes on with another file, or elsewhere in it")
        if (coding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise Failed(f"comes coded as {shortened(coding, 20)}, which was not asked for")
        block = b""
        while len(block) < BLOCK and (more := response.read1(BLOCK)):
            block += more
            watch.received += len(more)
        if response.headers.get_content_type() == "text/html" or (not offset and _web_page(block)):
            raise Failed(f"answers with a web page, not the file ({_web_page(block) or 'no title'})")
        if entry.size is not None and total is not None and total != entry.size:
            raise Failed(f"has {total} bytes, not {entry.size}")
        if total is not None and total > most:
            raise Failed(f"has {total} bytes, more than the {LARGEST} that are taken where no size is known")
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
            while block and file.tell() <= most:
                file.write(block)
                bar.update(len(block))
                block = response.read1(BLOCK)
                watch.received += len(block)
            length = file.tell()
            file.flush()
            os.fsync(file.fileno())
    if watch.fault:
        raise Passing(watch.fault)
    if length > most:
        _remove(part)
        raise Failed(f"has more than {most} bytes")
    if total is not None and length != total:
        raise Passing(f"cut off at byte {length} of {total}")


def _opened(
    request: urllib.request.Request, part: Path, timeout: float, watch: Watch
) -> http.client.HTTPResponse:
    try:
        return _opener(watch).open(request, timeout=timeout)
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
        notes = json.loads(read_text(_notes(part), "note of a download"))
        resumable = notes["address"] == address and notes["validator"] and "total" in notes
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
        return 0, {}
    return (_length(part), notes) if resumable else (0, {})


RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", re.ASCII)
WHOLE = re.compile(r"\d{1,18}", re.ASCII)


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
    return int(length) if WHOLE.fullmatch(length) else None


def _validator(headers: http.client.HTTPMessage) -> str:
    """Return what If-Range may hold: a strong ETag, else the time of the last change, else nothing."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    if WHOLE.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _web_page(first: bytes) -> str:
    """Return the title of an HTML page by its first bytes, empty for anything else.

    No checkpoint begins with <.
    """
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not re.match(rb"<(!doctype|html|head|\?xml|!--)", text, re.IGNORECASE):
        return ""
    title = re.search(rb"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    if not title:
        return "no title"
    return shortened(printable(html.unescape(title[1].decode("utf-8", "replace")).strip()), 80)


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
