"""What a process has taken."""

from pathlib import Path


def peak_megabytes() -> int:
    """Return the most memory that this process has held since it was started.

    Not getrusage's figure, which on Linux begins with that of the process that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10
