"""Randomness derived from names: (seed, purpose, image key), never from draw order or global state."""

import hashlib

import numpy as np


def digest(seed: int, purpose: str, key: str = "") -> bytes:
    """Return 32 bytes that depend on the three names alone."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{key}".encode(errors="surrogateescape")).digest()


def generator(seed: int, purpose: str, key: str = "") -> np.random.Generator:
    """Return a generator of its own for one purpose on one image."""
    return np.random.default_rng(np.frombuffer(digest(seed, purpose, key), dtype=np.uint32))
