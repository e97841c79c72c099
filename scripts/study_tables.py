"""Write the tables of docs/experiments.md from the files of scripts.study.

    python -m scripts.study_tables results/study-2026-11-24-0123456 --into docs/experiments.md

What stands between the lines `<!-- table NAME -->` and `<!-- end -->` is replaced by the table of that name.
"""

from collections.abc import Sequence
from pathlib import Path

from common.system.cli import Parser
from common.system.errors import command


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = Parser(prog="python -m scripts.study_tables", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="of the files that scripts.study has written")
    parser.add_argument("--into", type=Path, required=True, metavar="FILE.md", help="document to complete")
    args = parser.parse_args(argv)
    from scripts.run.study_tables import run

    run(args.folder, args.into)


if __name__ == "__main__":
    raise SystemExit(main())
