"""How the authors' loop around HyperIQA is called; see common/runs/release.py."""

from argparse import Namespace
from collections.abc import Callable
from types import ModuleType

from common.runs.release import Loop


def _prepare(
    solvers: ModuleType, options: Namespace, folder: str, images: list[int]
) -> Callable[[Namespace], object]:
    solver = solvers.HyperIQASolver(options, folder, images, images)
    return lambda options: solver.new_ttt(options.svpath, options)


LOOP = Loop("hyperIQA", "HyerIQASolver", "model_livefb_17", _prepare)
