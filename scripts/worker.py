"""A worker of sweeps on this machine and one device of it, for all_expt --scheduler.

    python -m scripts.worker scheduler.json --device cuda:0 --data-root DIR

It joins the scheduler of Dask at an address, or that of a file that `dask scheduler --scheduler-file` writes,
and ends when that has been away for --patience seconds. docs/cluster.md has the whole recipe.
"""

import argparse
import re
import signal
import socket
import sys
import uuid
from collections.abc import Sequence

from common.runs.dask_worker import PATIENCE, dask_modules, worker_environment
from common.runs.keeper import keep
from common.system import cli
from common.system.cli import Parser
from common.system.errors import UserError, command


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    found = Parser(prog="python -m scripts.worker", description=(__doc__ or "").split("\n\n")[0])
    found.add_argument("scheduler", metavar="ADDRESS|FILE", help="of Dask's scheduler, or that it writes")
    cli.add_device(found)
    cli.add_data_root(found)
    cli.add_weights_dir(found)
    found.add_argument(
        "--lifetime", type=cli.duration, metavar="TIME", help="end after that, such as 7h50m; default: never"
    )
    found.add_argument(
        "--patience",
        type=cli.above_zero,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"for which the scheduler may be away; default: {PATIENCE:g}",
    )
    found.add_argument("--dask", default="", metavar="OPTIONS", help='of `dask worker`: "--interface ib0"')
    return found


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(argv)
    dask_modules()
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", args.device):
        raise UserError(f"device {args.device!r} is none: give auto, cpu, cuda, cuda:1 or mps")
    for folder in (args.data_root, args.weights_dir):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    keep(
        args.scheduler,
        worker_environment(args.device, args.data_root, args.weights_dir),
        lambda: f"{socket.gethostname()}-{args.device}-{uuid.uuid4().hex[:4]}",
        args.patience,
        args.lifetime,
        cli.words("--dask", args.dask),
        lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    raise SystemExit(main())
