"""A disk whose power can be cut: what was not synced is lost, as far as a file system loses it.

An ext4 in a file. What programs write stays in memory until they sync it or the system finds the time; a copy
of the file beneath is what a power cut would leave. The options make it lose what it may: names may reach the
disk before contents do.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPTIONS = "loop,data=writeback,noauto_da_alloc,commit=1"
MEGABYTES = 48


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Give the folder in which the disk of an image is seen, until the end of the block."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", OPTIONS, image, folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def new_disk(image: Path) -> Path:
    """Make the image of an empty disk, and return it."""
    with image.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    return image


def can_mount(folder: Path) -> bool:
    """Whether this user may mount such a disk on this machine."""
    if shutil.which("mkfs.ext4") is None:
        return False
    try:
        with mounted(new_disk(folder / "tried.img"), folder / "tried"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def cut(image: Path, copy: Path) -> Path:
    """Cut the power: return the image of what is left, while the first one goes on."""
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    return copy
