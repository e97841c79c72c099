"""How the authors' loop around MetaIQA is called; see common/runs/release.py."""

from argparse import Namespace
from collections.abc import Callable
from types import ModuleType

from common.runs.release import Loop


def _prepare(
    ttt: ModuleType, options: Namespace, folder: str, images: list[int]
) -> Callable[[Namespace], object]:
    solver = ttt.METAIQASolver(options, folder, images, images)
    return lambda options: solver.new_ttt(options.svpath, options)


LOOP = Loop("MetaIQA", "ttt", "model_IQA/TID2013_KADID10K_IQA_Meta_resnet18_38", _prepare)
