"""What scripts.convert_weights does."""

import argparse
from pathlib import Path

from common.system.errors import UserError
from common.system.text import counted
from weights.loading import fill, read_state_dict, save_weights
from weights.manifest import SourceFile, identified, read_manifest
from weights.networks import BACKBONES


def metadata(source: Path) -> dict[str, str]:
    """Return what the new file says of itself: its source, and the manifest's entry if it has one."""
    file = SourceFile(source)
    entry = identified(file, read_manifest())
    return {"format": "pt", "source_file": source.name, "source_sha256": file.sha256} | (
        entry.metadata() if entry else {}
    )


def run(args: argparse.Namespace) -> None:
    """Run the command."""
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
    print(f"{args.target}: {counted(len(state), 'tensor')}")
    for key, value in known.items():
        print(f"  {key}: {value}")
