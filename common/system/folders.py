"""Walking through folders as users have them, with links to others among them."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, in linked folders too, each folder once; its files are in order."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):  # users link their large folders
        real = os.path.realpath(parent)
        if real in seen:  # a link back up, or a second way to the same folder
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(parent, file) for file in sorted(files))
