"""Adapt a network of your own to a folder of photographs; here a ResNet of timm with a single output.

    python -m examples.own_model DIR --weights resnet18.safetensors

Without --weights the network is untrained, and its scores mean nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import timm

from common.photographs import SUFFIXES, Photograph
from common.protocols import METHODS, PAPER, Setting
from common.runs.cell import run_cells
from common.system.cli import Parser
from common.system.errors import UserError, command
from common.wrap import wrap
from weights.loading import load_weights


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m examples.own_model", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="its images are scored, in batches of 8")
    parser.add_argument("--weights", type=Path, help="state dict of the network")
    args = parser.parse_args(argv)
    paths = sorted(path for path in args.folder.glob("*") if path.suffix.lower() in SUFFIXES)
    photographs = [Photograph(path.name, path) for path in paths]
    if not photographs:
        raise UserError(f"{args.folder}: no images there ({', '.join(sorted(SUFFIXES))})")
    network = timm.create_model("resnet18", num_classes=1)
    if args.weights:
        load_weights(network, args.weights)
    ynet = wrap(network, "layer4")
    (scores,) = run_cells(ynet, photographs, [Setting(PAPER, METHODS["rank+gc"])], seeds=[0])
    for photograph, source, adapted in zip(photographs, scores.source[0], scores.adapted[0]):
        print(f"{photograph.key:30s} source {source:8.4f}  adapted {adapted:8.4f}")


if __name__ == "__main__":
    raise SystemExit(main())
