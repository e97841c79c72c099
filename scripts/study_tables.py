"""Write the tables of docs/experiments.md from the files of scripts.study.

    python -m scripts.study_tables results/study-2026-11-24-0123456 --into docs/experiments.md

What stands between the lines `<!-- table NAME -->` and `<!-- end -->` is replaced by the table of that name.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from common.report.study_tables import TABLES, read_studies
from common.system.cli import Parser
from common.system.errors import UserError, command
from common.system.output import whole_file

MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = Parser(prog="python -m scripts.study_tables", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="of the files that scripts.study has written")
    parser.add_argument("--into", type=Path, required=True, metavar="FILE.md", help="document to complete")
    args = parser.parse_args(argv)
    studies = read_studies(args.folder)
    try:
        text = args.into.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{args.into}: {error.strerror}") from None

    def table(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise UserError(f"{args.into}: there is no table {found[2]!r}: choose from {', '.join(TABLES)}")
        return f"{found[1]}{TABLES[found[2]](studies)}\n{found[3]}"

    with whole_file(args.into) as file:
        file.write(MARKED.sub(table, text))
    print(f"{len(MARKED.findall(text))} tables of {args.into} from {len(studies)} studies")


if __name__ == "__main__":
    raise SystemExit(main())
