"""What is promised of reading: success or a UserError of one line, within time and memory, and nothing else.

Nothing is executed, sent, or written into the folder that is read.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.system.errors import UserError
from data.label_files import UNPACK
from tests.memory import peak_megabytes

SECONDS = 20  # of a case
MEGABYTES = 2500  # that a case may take: an image of the largest size that is read takes half
PROGRAMS = (
    "gs",
    "sh",
    "bash",
    "python",
    "convert",
    "dot",
    "curl",
    "wget",
    "djpeg",
    "ffmpeg",
    "xdg-open",
    "git",
)
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile", "pickle.find_class")
SENDS = ("socket.", "urllib.", "ftplib.", "smtplib.")
WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link")


class Broken(Exception):
    """The promise is broken; the message says how."""


class Late(BaseException):
    """A case takes too long; no reader may keep it to itself."""


class Contract:
    """Watches this process, in which files are read below a folder; `home` is for its own."""

    def __init__(self, home: Path):
        self.ran = home / "ran"
        self.folder: Path | None = None  # that is read just now
        self.seen: list[str] = []  # what must not be
        (home / "bin").mkdir()
        for name in PROGRAMS:
            (home / "bin" / name).write_text(f"#!/bin/sh\n: > {self.ran}\n")
            (home / "bin" / name).chmod(0o755)
        os.environ["PATH"] = str(home / "bin")
        sys.addaudithook(self._hook)
        signal.signal(signal.SIGALRM, self._late)

    def _late(self, *_: object) -> None:
        raise Late

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "subprocess.Popen":
            if [str(word) for word in list(arguments[1])[:2]] != [sys.executable, str(UNPACK)]:
                self.seen.append(f"{event} {arguments[1]}")
        elif event in STARTS or event.startswith(SENDS):
            self.seen.append(f"{event} {arguments}")
        elif event == "open":
            if isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
                self._written(event, arguments[0])
        elif event in WRITES:
            self._written(event, arguments[0])

    def _written(self, event: str, path: object) -> None:
        assert self.folder is not None
        if isinstance(path, (str, bytes, os.PathLike)) and Path(os.fsdecode(path)).is_relative_to(
            self.folder
        ):
            self.seen.append(f"{event} {os.fsdecode(path)}")

    @contextmanager
    def kept(self, folder: Path) -> Iterator[None]:
        """Raise Broken where what the block does with a folder breaks the promise; let a UserError out."""
        before, memory = _listing(folder), peak_megabytes()
        self.seen.clear()
        self.folder = folder
        signal.alarm(SECONDS)
        begun = time.perf_counter()
        try:
            yield
        except UserError as error:
            if not str(error).isprintable() or len(str(error)) > 2000:
                raise Broken(f"a message of {len(str(error))} letters: {str(error)[:100]!r}") from None
            raise
        except Late:
            raise Broken(f"still at it after {SECONDS} s") from None
        except BaseException as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        finally:
            signal.alarm(0)
            self.folder = None
            if self.seen or self.ran.exists():
                self.ran.unlink(missing_ok=True)
                raise Broken(f"executed or wrote: {self.seen or 'a program on the PATH'}")
            if _listing(folder) != before:
                raise Broken("changed the folder")
            if peak_megabytes() - memory > MEGABYTES:
                raise Broken(f"took {peak_megabytes() - memory} MB and {time.perf_counter() - begun:.1f} s")

    def holds(self, read: Callable[[Path], object], folder: Path) -> bool:
        """Read a folder; return whether that succeeds, or ends in a UserError. Raises Broken."""
        try:
            with self.kept(folder):
                read(folder)
        except UserError:
            return False
        return True


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    found = ((path, path.lstat()) for path in sorted(folder.rglob("*")))
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]
