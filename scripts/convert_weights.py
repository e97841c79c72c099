"""A checkpoint in any format that loads, as safetensors, which cannot hold code, with what is known of it.

python -m scripts.convert_weights weights/files/tres-live_fb.pth tres-live_fb.safetensors --backbone tres
"""

from collections.abc import Sequence
from pathlib import Path

from common.system.cli import Parser
from common.system.errors import UserError, command
from weights.loading import fill, read_state_dict, save_weights
from weights.manifest import SourceFile, identified, read_manifest
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


def metadata(source: Path) -> dict[str, str]:
    """Return what the new file says of itself: its source, and the manifest's entry if it has one."""
    file = SourceFile(source)
    entry = identified(file, read_manifest())
    return {"format": "pt", "source_file": source.name, "source_sha256": file.sha256} | (
        entry.metadata() if entry else {}
    )


@command
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.target.suffix != ".safetensors":
        raise UserError(f"{args.target}: the new file's name must end in .safetensors")
    if args.target.exists():
        raise UserError(f"{args.target} exists: remove it, or choose another name")
    state = read_state_dict(args.source)
    for name in (
        [args.backbone] if args.backbone else BACKBONES
    ):  # each leaves the checkpoints of others alone
        state = BACKBONES[name].rename(state)
    known = metadata(args.source)
    if args.backbone:
        fill(BACKBONES[args.backbone].network(), state, args.source)
        known["backbone"] = args.backbone
    save_weights(args.target, state, known)
    print(f"{args.target}: {len(state)} tensors")
    for key, value in known.items():
        print(f"  {key}: {value}")


if __name__ == "__main__":
    raise SystemExit(main())
