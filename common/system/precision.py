"""How exactly a device computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # command lines name the precisions, and torch takes long to import
    import torch

PRECISIONS = ("float32", "tf32", "bfloat16")
# For results. The last layer of a network in bfloat16 gives scores of three digits, so that images tie.
OFFERED = PRECISIONS[:2]


@contextmanager
def precision(name: str, device: "torch.device") -> Iterator[None]:
    """Compute, while open, in exact float32, in float32 by TF32, or in bfloat16 where that is safe.

    TF32 is CUDA's; torch's own default has it in convolutions and not in other products.
    """
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
