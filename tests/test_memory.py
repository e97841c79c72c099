"""What a long run holds: no more after two hundred batches than after forty."""

import gc
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.photographs import Photograph
from common.protocols import METHODS, PAPER, Setting
from common.runs.cell import episodes_of
from common.views import View
from tests.conftest import make_small

BATCHES, WARM = 200, 40
ROOM = 8 << 20  # bytes; two hundred graphs of a step, or batches, would be several times that


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tensors() -> int:
    """Bytes of all tensors that Python can reach, each storage once."""
    gc.collect()
    storages = (x.untyped_storage() for x in gc.get_objects() if issubclass(type(x), torch.Tensor))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
@pytest.mark.parametrize("method", ["rank+gc", "online"])
def test_memory_does_not_grow_with_the_stream(tmp_path, method):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    photographs = [Photograph(str(n), tmp_path / "a.png", float(n)) for n in range(4 * BATCHES)]
    setting = Setting(replace(PAPER, view=View(size=64)), replace(METHODS[method], niter=1))
    held = {}
    for done, _ in enumerate(episodes_of(make_small(), photographs, [setting], 0, batch_size=4), 1):
        if done in (WARM, BATCHES):
            held[done] = tensors(), resident()
    (kept, before), (kept_after, after) = held[WARM], held[BATCHES]
    assert kept_after == kept
    assert after - before < ROOM
