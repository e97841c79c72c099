"""A checkpoint in any format that loads, as safetensors, which cannot hold code, with what is known of it.

python -m scripts.convert_weights weights/files/tres-live_fb.pth tres-live_fb.safetensors --backbone tres
"""

from collections.abc import Sequence
from pathlib import Path

from common.system.cli import Parser
from common.system.errors import command
from weights.networks import BACKBONES


def parser() -> Parser:
    found = Parser(
        prog="python -m scripts.convert_weights",
        description=__doc__.split("\n\n")[0],
    )
    found.add_argument("source", type=Path, metavar="IN", help="checkpoint to read")
    found.add_argument("target", type=Path, metavar="OUT.safetensors")
    found.add_argument("--backbone", choices=BACKBONES, help="make sure that it fits this network")
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    from scripts.run.convert_weights import run

    run(args)


if __name__ == "__main__":
    raise SystemExit(main())
