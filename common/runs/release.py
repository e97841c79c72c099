"""The authors' own adaptation loop, timed beside this project's: their code, from a checkout of theirs.

It runs in a process of its own, where its modules (models, data_loader, utils) meet no others of these names.
Nothing of theirs is changed but what keeps it from running on any machine, and that at run time: `.cuda()`
goes to the device that was asked for where that is no GPU; the ImageNet weights, which the checkpoint
replaces anyway, are not downloaded; two packages that it imports and does not use on this way are stood in
for; and torchvision says that it is a version which they knew. It reads photographs by its loader for DSLR,
and writes its JPEG files beside them.
"""

import copy
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from common.photographs import Photograph
from common.runs.timing import Timing, timed
from common.system.errors import UserError
from common.system.output import write_csv

REPOSITORY = "https://github.com/subhadeeproy2000/TTA-IQA"
OPTIONS = {  # of their commands for rank+gc, and their defaults
    **{"dataset": "dslr", "patch_size": 224, "train_patch_num": 1, "test_patch_num": 1},
    **{"rank": True, "group_contrastive": True, "fix_ssh": True, "niter": 3, "lr": 1e-3, "weight": 1},
    **dict.fromkeys(("comp", "nos", "blur", "contrastive", "contrique", "rotation", "online"), False),
}
UNUSED = {"skvideo.utils.mscn": "gen_gauss_window", "pandas_ods_reader": "read_ods"}


@dataclass(frozen=True)
class Loop:
    """Where the loop of one network is, and how to call it."""

    folder: str  # of the checkout
    module: str  # in it
    checkpoint: str  # name of the file of weights, below the folder of saved results
    # Of (module, options, folder of the photographs, their numbers): what runs the loop with given options.
    prepare: Callable[[ModuleType, Namespace, str, list[int]], Callable[[Namespace], object]]

    def file(self, checkout: Path) -> Path:
        """Return the file of the loop. Raises UserError where it is not there."""
        found = checkout / self.folder / f"{self.module}.py"
        if not found.is_file():
            raise UserError(
                f"--release: {checkout} is no checkout of {REPOSITORY}: no {found.relative_to(checkout)}"
            )
        return found


@contextmanager
def running(
    loop: Loop,
    checkout: Path,
    state: Mapping[str, Tensor],
    photographs: Sequence[Photograph],
    scratch: Path,
    *,
    batch_size: int,
    device: torch.device,
) -> Iterator[Callable[[], Timing]]:
    """Give what runs the loop once over the photographs, from the weights of `state`.

    scratch: an empty folder for what it reads and writes. Raises UserError where their code breaks.
    """
    loop.file(checkout)
    for photograph in photographs:
        (scratch / photograph.key).symlink_to(os.path.realpath(photograph.path))
    write_csv(
        scratch / "MOS.csv", ["0", "1"], [(photograph.key, photograph.mos) for photograph in photographs]
    )
    weights = scratch / "saved" / loop.checkpoint
    weights.parent.mkdir(parents=True)
    torch.save(dict(state), weights)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:

        def call(work: Callable[..., Any], *arguments: object) -> Any:
            try:
                return process.submit(work, *arguments).result()
            except Exception as error:  # of whatever kind: the code is not this project's
                raise UserError(
                    f"--release: the loop of {checkout / loop.folder} broke ({type(error).__name__}: {error})"
                ) from None

        source = str((checkout / loop.folder).resolve())
        numbers = len(photographs), batch_size, torch.get_num_threads()
        call(_prepare, loop, source, str(scratch), *numbers, str(device))
        yield partial(call, _run)


_work: Callable[[], Timing] | None = None  # of the process of the loop


def _prepare(
    loop: Loop, source: str, scratch: str, images: int, batch_size: int, threads: int, device_name: str
) -> None:
    """Make ready, in the process of the loop."""
    global _work
    device = torch.device(device_name)
    torch.empty(0, device=device)  # their modules set CUDA_VISIBLE_DEVICES
    torch.set_num_threads(threads)
    os.chdir(scratch)
    sys.path.insert(0, source)
    _stand_in(device)
    options = Namespace(**OPTIONS, batch_size=batch_size, svpath=f"{scratch}/saved/", device=device)
    with _silence():
        run = loop.prepare(import_module(loop.module), options, scratch, list(range(images)))
    _work = partial(timed, lambda: run(copy.copy(options)), images, device)  # it changes its options


def _run() -> Timing:
    """Run the loop once, in its process."""
    assert _work is not None
    with _silence():
        return _work()


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _stand_in(device: torch.device) -> None:
    """Replace what keeps their code from running here; see the module's docstring."""
    import torch.utils.model_zoo
    import torchvision
    from torchvision import models

    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self.to(device)  # type: ignore[assignment,method-assign]
    for name in ("resnet18", "resnet50"):
        build = getattr(models, name)
        setattr(models, name, lambda *_, build=build, **__: build())
    torchvision.__version__ = "0.9"  # they compare its first three characters, which 0.30 was not known for
    torch.utils.model_zoo.load_url = lambda *_, **__: {}
    for name, what in UNUSED.items():
        if find_spec(name.partition(".")[0]) is None:
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                sys.modules[".".join(parts[:end])] = ModuleType(".".join(parts[:end]))
            setattr(sys.modules[name], what, None)
