"""Download checkpoints by name, checked and resumable (weights/README.md lists them).

python -m scripts.download_weights tres-live_fb musiq-live_fb
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.system import cli
from common.system.cli import Parser, seconds
from common.system.errors import UserError, command
from weights.download import DownloadOutcome, Patience, obtain
from weights.manifest import FILES, MANIFEST, Checkpoint, find, page, read_manifest

MIRROR = "TTA_IQA_WEIGHTS_URL"


def parser() -> Parser:
    found = Parser(
        prog="python -m scripts.download_weights",
        description=__doc__.split("\n\n")[0],
    )
    found.add_argument("names", nargs="*", metavar="NAME", help="what to download; see --list")
    found.add_argument("--all", action="store_true", help="download everything")
    found.add_argument("--list", action="store_true", help="print the names, and which files are there")
    found.add_argument("--dest", type=Path, default=FILES, metavar="DIR", help="default: weights/files")
    found.add_argument(
        "--base-url",
        default=os.environ.get(MIRROR) or None,
        metavar="URL",
        help=f"tried first; default: ${MIRROR}",
    )
    found.add_argument(
        "--from-file",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="take a file that you downloaded yourself",
    )
    found.add_argument(
        "--replace",
        action="store_true",
        help="let another file take the place of the one that is there, or recorded in lock.json",
    )
    found.add_argument(
        "--manifest", type=Path, default=MANIFEST, metavar="JSON", help="another list of the same form"
    )
    found.add_argument(
        "--tries", type=cli.tries, default=Patience.tries, metavar="N", help="in a row without a new byte"
    )
    found.add_argument(
        "--wait", type=seconds, default=Patience.wait, metavar="S", help="seconds before the second try"
    )
    return found


def local_files(given: Sequence[str]) -> dict[str, Path]:
    """Return the NAME=PATH options by name."""
    pairs = [option.partition("=") for option in given]
    if wrong := [name for name, _, path in pairs if not path]:
        raise UserError(f"--from-file {wrong[0]}: give NAME=PATH")
    return {name: Path(path) for name, _, path in pairs}


def listing(known: dict[str, Checkpoint], folder: Path) -> str:
    """Return the names as people read them."""
    rows = [("name", "network", "trained on", "for", "there")]
    for entry in known.values():
        there = "yes" if (folder / entry.file).is_file() else "no"
        rows.append((entry.name, entry.backbone or "-", entry.source_data, entry.used_for, there))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def by_hand(entry: Checkpoint, outcome: DownloadOutcome, folder: Path) -> str:
    """Return what failed with one checkpoint, and what its user can do."""
    pages = " or ".join(page(address) for address in entry.addresses) or "where you know it to be"
    dest = "" if folder == FILES else f" --dest {folder}"
    replace = " --replace" if (folder / entry.file).exists() else ""
    return "\n".join(
        (
            f"{entry.name} failed:",
            *(f"  {reason}" for reason in outcome.reasons),
            f"  by hand: download {pages} with a browser, then",
            f"  python -m scripts.download_weights --from-file {entry.name}=PATH{dest}{replace}",
        )
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    known = read_manifest(args.manifest)
    if args.list:
        print(listing(known, args.dest))
        return 0
    local = local_files(args.from_file)
    names = list(known) if args.all else list(dict.fromkeys((*args.names, *local)))
    if not names:
        raise UserError("nothing to download: give names, or --all; --list prints the names")
    entries = [find(name, known) for name in names]
    patience = replace(Patience(), tries=args.tries, wait=args.wait)
    failed = []
    for entry in entries:
        try:
            outcome = obtain(entry, args.dest, args.base_url, local.get(entry.name), patience, args.replace)
        except KeyboardInterrupt:
            print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
            return 130
        except OSError as error:  # of the disk: those of the network are the outcome's
            raise UserError(f"{args.dest}: cannot be written ({error})") from None
        if outcome.state == "failed":
            failed.append((entry, outcome))
            print(f"{entry.name}: failed", flush=True)
        else:
            print(
                f"{entry.name}: {outcome.state}, {args.dest / entry.file}, sha256 {outcome.sha256}",
                flush=True,
            )
    for entry, outcome in failed:
        print("\n" + by_hand(entry, outcome, args.dest))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
