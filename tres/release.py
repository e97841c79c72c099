"""How the authors' loop around TReS is called; see common/runs/release.py."""

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from common.runs.release import Loop


def _prepare(
    models: ModuleType, options: Namespace, folder: str, images: list[int]
) -> Callable[[Namespace], object]:
    vars(options).update(train_data="fblive", network="resnet50", tta_tf=False, bn=False, ln=False, p=0.25)
    vars(options).update(nheadt=16, num_encoder_layerst=2, dim_feedforwardt=64)
    sides = options.patch_size, options.test_patch_num
    loader = import_module("data_loader").DataLoader(
        options, options.dataset, folder, images, *sides, batch_size=options.batch_size, istrain=True
    )
    solver = models.TReS(options, options.device, models.Net)
    return lambda options: solver.new_ttt(loader.get_data(), options)


LOOP = Loop("TReS", "models", "fblive_TReS", _prepare)
