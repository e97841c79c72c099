"""How far a sweep is, as its folder says: the index of its cells, and lines for people."""

from collections.abc import Iterable, Iterator, Sequence

from common.runs.cost import spoken
from common.runs.folders import Results, write_index
from common.runs.grid import Entry, place_name
from common.runs.results import CellResult, Failure
from common.runs.store import Store


def titles(places: Iterable[Entry]) -> dict[str, str]:
    """Return what people call each cell, by id: after the place where it stands first."""
    found: dict[str, str] = {}
    for entry in places:
        title = f"{entry.weights} on {entry.target}: {entry.setting} ({place_name(entry.place)})"
        found.setdefault(entry.cell.id, title)
    return found


class Index:
    """RESULTS/cells.csv, kept up to date."""

    def __init__(self, places: Sequence[Entry], store: Store):
        self.places, self.store = places, store
        self.finished = dict(Results.read(store.root).finished)
        self.write()

    def add(self, result: CellResult) -> None:
        """Take over a result that was just written."""
        self.finished[result.cell.id] = result
        self.write()

    def write(self) -> None:
        """Write it anew."""
        failed = {
            cell.id: Failure(cell, self.store.reason(cell))
            for cell in {entry.cell.id: entry.cell for entry in self.places}.values()
            if self.store.failed(cell)
        }
        write_index(self.store.root, self.places, self.finished, failed)


def status(places: Sequence[Entry], store: Store) -> Iterator[str]:
    """Yield how far a sweep is, as its folder says."""
    known_as = titles(places)
    cells = {entry.cell.id: entry.cell for entry in places}.values()
    done = [cell for cell in cells if store.done(cell)]
    failed = [cell for cell in cells if cell not in done and store.failed(cell)]
    yield f"{len(done)} of {len(cells)} cells are in {store.root}, {len(failed)} failed"
    for cell in failed:
        yield f"failed: {cell.id}  {known_as[cell.id]}: {store.reason(cell)}"
    if not store.is_held():
        yield "nobody is at it"
        return
    yield f"{store.holder()} is at it"
    if (now := store.read_status()) is None:
        return
    left = now["seconds_left"]
    yield (
        f"at {now['time']}: {now['done']} of {now['cells']} cells that were to do, "
        f"{now['images_per_second']:.3g} images/s, "
        + ("time left not known yet" if left is None else f"{spoken(left)} left")
    )
    for worker in now["workers"]:
        doing = f"{worker['job']}, since {worker['since']}" if worker["job"] else "nothing"
        yield f"{worker['worker']} on {worker['host']}: {doing}"
    for worker, reason in now["left_out"].items():
        yield f"{worker} is left out: {reason}"
