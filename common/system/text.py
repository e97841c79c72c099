"""Text for people: what a terminal may be given, and what a line has room for."""

import unicodedata
from typing import Any, TextIO


def printable(text: str) -> str:
    """Return text on one line that cannot steer a terminal.

    Names of files, headers of servers and entries of strangers' files may hold anything. Line breaks become
    spaces, bytes that are no UTF-8 become question marks, and whatever else cannot be seen (escape sequences,
    marks that turn the direction of writing) is written as Python writes it.
    """
    if text.isprintable():
        return text
    return "".join(map(_seen, " ".join(text.splitlines())))


def _seen(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    if unicodedata.category(char) == "Cs":  # of a name that is no UTF-8
        return "\ufffd"
    return char.encode("unicode_escape").decode()


def shortened(text: str, most: int = 100) -> str:
    """Return text of at most so many characters, cut between words where that can be."""
    if len(text) <= most:
        return text
    kept = text[: most - 3]
    return (kept.rpartition(" ")[0] if " " in kept[most // 2 :] else kept) + "..."


def counted(number: int, one: str, several: str = "") -> str:
    """Return "1 image" or "2 images"; several: the plural, where it is not made by an s."""
    return f"{number} {one if number == 1 else several or one + 's'}"


class PrintableStream:
    """A stream of lines for people, each as `printable` makes it; in all else the stream that is given."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text, of which only the ends of lines are no letters."""
        return self.stream.write("\n".join(map(printable, text.split("\n"))))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
