"""What scripts.study_tables does."""

import re
from pathlib import Path

from common.report.study_tables import TABLES, read_studies
from common.system.errors import UserError
from common.system.files import read_text
from common.system.output import whole_file

MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def run(folder: Path, into: Path) -> None:
    """Write the tables of the studies of a folder into a document."""
    studies = read_studies(folder)
    text = read_text(into, "document")

    def table(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise UserError(f"{into}: there is no table {found[2]!r}: choose from {', '.join(TABLES)}")
        return f"{found[1]}{TABLES[found[2]](studies)}\n{found[3]}"

    if MARKED.search(text) is None:
        raise UserError(f"{into}: no line '<!-- table NAME -->' there, so no place for a table: add some")
    with whole_file(into) as file:
        file.write(MARKED.sub(table, text))
    print(f"{len(MARKED.findall(text))} tables of {into} from {len(studies)} studies")
