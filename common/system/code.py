"""Which code this is."""

import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PATTERNS = ("[!.]*/*.py", "common/*/*.py")  # no deeper: data/raw may be large


@functools.cache
def code_digest() -> str:
    """Return the hexadecimal SHA-256 of the source files, tests and examples apart.

    Unlike a commit it sees uncommitted changes, and needs no git.
    """
    total = hashlib.sha256()
    for path in sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT)
        if name.parts[0] not in ("tests", "examples"):
            content = path.read_bytes().replace(b"\r\n", b"\n")
            total.update(f"{name.as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()
