"""Numbers as they are printed."""

MINUS = "\u2212"


def minus(number: str) -> str:
    """Return a number that has been written, or several, with the minus sign of print for the hyphen."""
    return number.replace("-", MINUS)
