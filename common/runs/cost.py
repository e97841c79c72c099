"""What a sweep would do, and what that costs."""

from collections.abc import Iterator, Sequence

from common.runs.cell import Plan
from common.runs.grid import Cell, Entry, place_name
from common.runs.survey import Survey
from common.runs.sweep import Store, jobs


def plan(
    places: Sequence[Entry], cells: Sequence[Cell], todo: Sequence[Cell], found: Survey, store: Store
) -> Iterator[str]:
    """Yield the lines that --dry-run prints."""
    done = {cell.id for cell in cells if store.done(cell)}
    left = {cell.id for cell in todo}
    for entry in places:
        cell = entry.cell
        state = "done" if cell.id in done else "failed before" if cell.id not in left else "to do"
        state = "cannot be run" if state == "to do" and found.reason(cell) else state
        where = f"{place_name(entry.place):8s}  {entry.weights} on {entry.target}: {entry.setting}"
        yield f"{cell.id}  {where}: {state}"
    for what, reason in found.missing.items():
        yield f"missing: {what if isinstance(what, str) else what[0]}: {reason}"
    images, views, shared, alone, seconds = 0, 0, 0.0, 0.0, 0.0
    for job in jobs(todo):
        size = found.size(job.cells[0])
        images += size
        views += size * len(job.cells)
        shared += size * job.forwards
        alone += size * sum(Plan.of([cell.setting]).forwards for cell in job.cells)
        seconds += found.seconds(job)
    failed = len(cells) - len(todo) - len(done)
    yield (
        f"{len(places)} places, {len(cells)} cells, {len(done)} of them done, "
        f"{failed} failed before (--retry-failed)"
    )
    if todo:
        yield (
            f"{images} views decoded once ({views} cell by cell), "
            f"{shared:.3g} forward passes ({alone:.3g} cell by cell)"
        )
        yield (
            f"about {seconds / 3600:.1f} h on 4 CPU cores, by the rates of docs/speed.md; "
            "scripts.benchmark measures a GPU's"
        )
