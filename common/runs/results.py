"""The result of a cell: its type, its files, and the one place that writes and reads them.

result.json says what was computed (`config`), with what (`environment`) and what came out (`Summary`);
run.json says when and how fast; scores.csv has a row per image and seed. The `format` of result.json changes
when an older program could not read it any more.
"""

import csv
import dataclasses
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd

from common.adapter import Outcome
from common.distortions import TYPES
from common.photographs import Photograph
from common.runs.grid import Cell
from common.runs.metrics import agreement, gain_interval
from common.system.errors import UserError
from common.system.files import need_file
from common.system.output import write_csv, write_json
from common.system.typed_json import read_object, typed

FORMAT = 2
METRICS = ("srocc", "plcc", "plcc_logistic", "krocc", "rmse")
FILES = ("result.json", "run.json", "scores.csv")  # of a finished cell
DATA = ("dataset", "subset", "missing", "score_column", "direction", "label_file")  # what is told at least
WEIGHTS = ("file", "sha256")  # likewise
Verdict = Literal["helped", "harmed", "undecided", ""]


@dataclass
class Scores:
    """Scores of n photographs for S seeds."""

    seeds: Sequence[int]
    source: np.ndarray  # (S, n)
    adapted: np.ndarray  # (S, n)
    choice: np.ndarray  # (S, n), index into TYPES of what the rank loss looked at; -1: at none, or at all
    losses: np.ndarray  # (S, n, niter), of the photograph's episode after each step
    episodes: int = 0  # counts over all seeds
    group_left_out: int = 0
    fell_back: int = 0
    enlarged: int = 0
    seconds: float = 0.0  # wall time of the episodes, of their loading and of what they ask of the source

    @classmethod
    def empty(cls, seeds: Sequence[int], n: int, niter: int) -> "Scores":
        """Make scores of which none is known yet: NaN."""
        shape = (len(seeds), n)
        nan, losses = np.full(shape, np.nan), np.full((*shape, niter), np.nan)
        return cls(seeds, nan, nan.copy(), np.full(shape, -1), losses)

    def record(
        self, row: int, indices: Sequence[int], outcome: Outcome, enlarged: int, seconds: float
    ) -> None:
        """Take over one episode of the seed at `row`.

        indices: of its photographs. enlarged: how many of them were scaled up.
        """
        self.source[row, indices] = outcome.source
        self.adapted[row, indices] = outcome.adapted
        self.choice[row, indices] = outcome.choice
        self.losses[row, indices, : len(outcome.losses)] = outcome.losses
        self.episodes += 1
        self.group_left_out += outcome.group_left_out
        self.fell_back += outcome.fell_back
        self.enlarged += enlarged
        self.seconds += seconds

    def only(self, indices: Sequence[int]) -> "Scores":
        """Return the scores of some of the photographs; the counts stay."""
        kept = {name: getattr(self, name)[:, indices] for name in ("source", "adapted", "choice", "losses")}
        return dataclasses.replace(self, **kept)

    def notes(self) -> list[str]:
        """Say what a reader of the result should know, one sentence each."""
        episodes, views = f"of {self.episodes} episodes", f"of {self.source.size} views"
        known = (
            (self.group_left_out, f"{episodes} had too few images for the group loss"),
            (self.fell_back, f"{episodes} were not finite and keep the source's scores"),
            (self.enlarged, f"{views} are of images smaller than the crop, scaled up"),
        )
        return [f"{count} {note}" for count, note in known if count]


@dataclass(frozen=True)
class OverSeeds:
    """A metric for every seed; None where it is not defined."""

    values: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """The mean over seeds, None where one of the values is not defined."""
        known = self._known()
        return None if known is None else float(np.mean(known))

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds (n - 1), None for a single seed."""
        known = self._known()
        return None if known is None or len(known) < 2 else float(np.std(known, ddof=1))

    def text(self, digits: int = 3, plus_minus: str = "±") -> str:
        """Mean and standard deviation, as people read them."""
        mean, std = self.mean, self.std
        if mean is None:
            return "undefined"
        return f"{mean:.{digits}f}" + ("" if std is None else f" {plus_minus} {std:.{digits}f}")

    def to_json(self) -> dict[str, Any]:
        """Return the form in result.json."""
        return {"mean": self.mean, "std": self.std, "values": list(self.values)}

    def _known(self) -> list[float] | None:
        known = [value for value in self.values if value is not None]
        return known if len(known) == len(self.values) else None


def signed(value: float, digits: int = 3) -> str:
    """Write a difference with its sign, unless it is shown as zero."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else f"{0:.{digits}f}"


@dataclass(frozen=True)
class Gain:
    """What adapting changes in SROCC over the source, on the same views."""

    mean: float | None  # over seeds; None where an SROCC is not defined
    interval: tuple[float, float] | None  # paired 95 % bootstrap interval over images

    @property
    def verdict(self) -> Verdict:
        """Whether the interval leaves out zero, and on which side; nothing where there is no interval."""
        if self.interval is None:
            return ""
        return "helped" if self.interval[0] > 0 else "harmed" if self.interval[1] < 0 else "undecided"

    def text(self) -> str:
        """Write the gain with its interval: "+0.043 [+0.020, +0.066]"."""
        if self.mean is None:
            return "undefined"
        return " ".join(filter(None, (signed(self.mean), self.interval_text())))

    def interval_text(self) -> str:
        """Write the interval in brackets; nothing where there is none."""
        return "" if self.interval is None else f"[{signed(self.interval[0])}, {signed(self.interval[1])}]"

    def to_json(self) -> dict[str, Any]:
        """Return the form in result.json."""
        return {"mean": self.mean, "interval_95": self.interval and list(self.interval)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Gain":
        """Read that form. Raises LookupError, TypeError or ValueError."""
        return cls(
            typed(float | None, found["mean"]), typed(tuple[float, float] | None, found["interval_95"])
        )


@dataclass(frozen=True)
class Summary:
    """What came out of a cell."""

    n_images: int
    seeds: tuple[int, ...]
    source: Mapping[str, OverSeeds]  # by metric: srocc, plcc, plcc_logistic, krocc, rmse
    adapted: Mapping[str, OverSeeds]
    gain: Gain
    distortions_chosen: Mapping[str, int]  # by type: how often the rank loss looked at it
    episodes: int
    group_left_out: int  # episodes that were too small for the group loss
    fell_back: int  # episodes that were not finite and keep the source's scores
    enlarged: int  # views of images smaller than the crop

    def to_json(self) -> dict[str, Any]:
        """Return the form in result.json."""
        per_seed = [
            {
                "seed": seed,
                **{
                    which: {name: metric.values[row] for name, metric in metrics.items()}
                    for which, metrics in (("source", self.source), ("adapted", self.adapted))
                },
            }
            for row, seed in enumerate(self.seeds)
        ]
        return {
            "n_images": self.n_images,
            "source": {name: metric.to_json() for name, metric in self.source.items()},
            "adapted": {name: metric.to_json() for name, metric in self.adapted.items()},
            "srocc_gain": self.gain.to_json(),
            "seeds": per_seed,
            "distortions_chosen": dict(self.distortions_chosen),
            "episodes": {
                "total": self.episodes,
                "group_loss_left_out": self.group_left_out,
                "fell_back_to_source": self.fell_back,
            },
            "views_scaled_up": self.enlarged,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Summary":
        """Read the summary that result.json holds. Raises LookupError, TypeError or ValueError."""
        seeds = tuple(typed(int, row["seed"]) for row in found["seeds"])
        source, adapted = (
            {name: _metric(found[which][name]["values"], len(seeds)) for name in METRICS}
            for which in ("source", "adapted")
        )
        return cls(
            typed(int, found["n_images"]),
            seeds,
            source,
            adapted,
            Gain.from_json(found["srocc_gain"]),
            typed(dict[str, int], found["distortions_chosen"]),
            typed(int, found["episodes"]["total"]),
            typed(int, found["episodes"]["group_loss_left_out"]),
            typed(int, found["episodes"]["fell_back_to_source"]),
            typed(int, found["views_scaled_up"]),
        )


def _metric(values: Any, seeds: int) -> OverSeeds:
    found = OverSeeds(typed(tuple[float | None, ...], values))
    if len(found.values) != seeds:
        raise ValueError(f"{len(found.values)} values for {seeds} seeds")
    return found


def metrics_table(summary: Summary) -> str:
    """Return the metrics of source and adapted network, and the gain, as people read them on a terminal."""
    names = {
        "srocc": "SROCC",
        "plcc": "PLCC",
        "plcc_logistic": "PLCC logistic",
        "krocc": "KROCC",
        "rmse": "RMSE",
    }
    rows = [f"{'':8s}  " + "  ".join(f"{title:>15s}" for title in names.values())]
    for which, metrics in (("source", summary.source), ("adapted", summary.adapted)):
        rows.append(f"{which:8s}  " + "  ".join(f"{metrics[name].text(4, '+-'):>15s}" for name in names))
    gain = summary.gain
    if gain.mean is not None and gain.interval is not None:
        low, high = gain.interval
        rows.append(f"gain in SROCC {gain.mean:+.4f}, 95% interval over images {low:+.4f} to {high:+.4f}")
    return "\n".join(rows)


def summarise(scores: Scores, photographs: Sequence[Photograph], by_group: bool = False) -> Summary:
    """Compute the metrics of every seed, and the gain in SROCC with its interval.

    by_group: whether the interval resamples references or scenes, instead of images.
    """
    mos = np.array([photograph.mos for photograph in photographs])
    source, adapted = (
        _over_seeds([agreement(row, mos) for row in rows]) for rows in (scores.source, scores.adapted)
    )
    before, after = source["srocc"].mean, adapted["srocc"].mean
    chosen = np.bincount(scores.choice[scores.choice >= 0], minlength=len(TYPES))
    return Summary(
        len(photographs),
        tuple(scores.seeds),
        source,
        adapted,
        Gain(
            None if before is None or after is None else after - before,
            gain_interval(
                scores.source, scores.adapted, mos, [p.group for p in photographs] if by_group else None
            ),
        ),
        dict(zip(TYPES, chosen.tolist())),
        scores.episodes,
        scores.group_left_out,
        scores.fell_back,
        scores.enlarged,
    )


def _over_seeds(rows: Sequence[Mapping[str, float | None]]) -> dict[str, OverSeeds]:
    return {name: OverSeeds(tuple(row[name] for row in rows)) for name in rows[0]}


@dataclass(frozen=True)
class CellResult:
    """A finished cell."""

    cell: Cell
    summary: Summary
    data: Mapping[str, Any]  # what is known of the images: data set, subset, score column, ...
    weights: Mapping[str, Any]  # of the checkpoint: file, sha256
    environment: Mapping[str, Any]  # versions, commit, hardware
    seconds: float  # wall time of its episodes
    folder: Path | None = None  # where it was read from

    @property
    def images_per_second(self) -> float:
        """How many photographs were scored in a second, each counted once per seed."""
        return self.summary.n_images * len(self.summary.seeds) / self.seconds

    def run_to_json(self) -> dict[str, float]:
        """Return how long it took, as run.json has it."""
        return {"seconds": self.seconds, "images_per_second": self.images_per_second}

    def to_json(self) -> dict[str, Any]:
        """Return the content of result.json."""
        config = {"id": self.cell.id, **asdict(self.cell), "data": self.data, "weights_file": self.weights}
        return {
            "format": FORMAT,
            "config": config,
            "environment": self.environment,
            **self.summary.to_json(),
        }


def write_result(folder: Path, result: CellResult, scores: Scores, photographs: Sequence[Photograph]) -> None:
    """Write the three files of a cell into a folder; each appears whole or not at all."""
    write_json(folder / "result.json", result.to_json())
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(folder / "run.json", {**result.run_to_json(), "finished": finished})
    write_scores(folder / "scores.csv", scores, photographs)


def read_result(folder: Path) -> CellResult:
    """Read the cell that a folder holds, but for its scores.

    Raises UserError, in one line, where a file is damaged or of another format.
    """
    remedy = "move its folder elsewhere"
    with _reading(folder / "run.json", remedy):
        seconds = typed(float, read_object(folder / "run.json")["seconds"])
        if seconds <= 0:
            raise ValueError(f"seconds are {seconds:g}")
    file = folder / "result.json"
    with _reading(file, remedy):
        content = read_object(file)
        _check_format(content, file)
        config = typed(dict[str, Any], content["config"])
        data, weights, written_id = (config.pop(name) for name in ("data", "weights_file", "id"))
        result = CellResult(
            typed(Cell, config),
            Summary.from_json(content),
            _record(data, DATA),
            _record(weights, WEIGHTS),
            _record(typed(dict[str, str | int], content["environment"]), ("device",)),
            seconds,
            folder,
        )
        if written_id != result.cell.id:
            raise ValueError(f"its cell is {result.cell.id}, not {written_id}")
        if result.summary.seeds != result.cell.seeds or result.summary.n_images < 1:
            raise ValueError("its seeds or images are not those of its cell")
    return result


def _record(found: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return what a result says of its data, weights or machine, if it says all that it should."""
    record = typed(dict[str, Any], found)
    for name in names:
        typed(int if name == "missing" else str, record[name])
    return record


@dataclass(frozen=True)
class Failure:
    """A cell that was run and broke."""

    cell: Cell
    reason: str
    file: Path | None = None  # that it was read from


def write_failure(path: Path, failure: Failure) -> None:
    """Write why a cell failed."""
    write_json(path, {"format": FORMAT, "reason": failure.reason, "cell": asdict(failure.cell)})


def read_failure(path: Path) -> Failure:
    """Read what `write_failure` wrote. Raises UserError where the file is damaged or of another format."""
    with _reading(path, "remove it, and the cell is run again"):
        content = read_object(path)
        _check_format(content, path)
        failure = Failure(typed(Cell, content["cell"]), typed(str, content["reason"]), path)
        if failure.cell.id != path.stem:
            raise ValueError(f"its cell is {failure.cell.id}")
    return failure


@contextmanager
def _reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn whatever a damaged file leads to into a UserError of one line. remedy: what to do about it."""
    try:
        yield
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError, csv.Error) as error:
        fault = " ".join(str(error).split())
        printable = "".join(letter if letter.isprintable() else "?" for letter in fault)
        kind = "it lacks " if isinstance(error, KeyError) else ""
        raise UserError(f"{path}: damaged ({kind}{printable[:200]}): {remedy}") from None


def _check_format(content: Mapping[str, Any], path: Path) -> None:
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {content.get('format', 1)}, and this program reads format {FORMAT}: run "
            "the cell again, or use the version of the code that wrote it"
        )


COLUMNS = ("image", "type", "mos", "seed", "source_score", "adapted_score", "distortion")  # then loss_1, ...


def write_scores(path: Path, scores: Scores, photographs: Sequence[Photograph]) -> None:
    """Write a CSV file with a row per image and seed.

    type: of the image's own distortion, where the data set tells; distortion: the one that the rank loss
    looked at.
    """
    steps = [f"loss_{step + 1}" for step in range(scores.losses.shape[-1])]
    rows = (
        [
            photograph.key,
            photograph.kind,
            photograph.mos,
            seed,
            float(scores.source[s, i]),
            float(scores.adapted[s, i]),
            TYPES[scores.choice[s, i]] if scores.choice[s, i] >= 0 else "",
            *scores.losses[s, i].tolist(),
        ]
        for s, seed in enumerate(scores.seeds)
        for i, photograph in enumerate(photographs)
    )
    write_csv(path, [*COLUMNS, *steps], rows)


def read_scores(
    result: CellResult, paths: Mapping[str, Path] = MappingProxyType({})
) -> tuple[Scores, list[Photograph]]:
    """Read the scores and images of a finished cell from its folder; groups are types of distortion.

    paths: of the images, by name, as far as they are known; "." where not. Raises UserError where scores.csv
    is damaged or of other images than result.json.
    """
    assert result.folder is not None
    seeds, niter = list(result.cell.seeds), result.cell.method.niter
    steps = [f"loss_{step + 1}" for step in range(niter)]
    text = dict.fromkeys(("image", "type", "distortion"), str)
    file = result.folder / "scores.csv"
    with _reading(file, "move its folder elsewhere"):
        need_file(file, "file of scores")
        content = file.read_bytes()
        if not content.endswith(b"\n"):
            raise ValueError("its last line is cut short")
        frame = pd.read_csv(io.BytesIO(content), dtype=text, keep_default_na=False, lineterminator="\n")
        frame = frame[[*COLUMNS, *steps]]
        first = frame[frame["seed"] == seeds[0]]
        scores = Scores.empty(seeds, len(first), niter)
        index = {kind: number for number, kind in enumerate(TYPES)}
        for row, seed in enumerate(seeds):
            own = frame[frame["seed"] == seed]
            if own["image"].tolist() != first["image"].tolist():
                raise ValueError(f"seed {seed} is not of the images of seed {seeds[0]}")
            scores.source[row], scores.adapted[row] = own["source_score"], own["adapted_score"]
            scores.choice[row] = own["distortion"].map(index).fillna(-1).to_numpy()
            scores.losses[row] = own[steps].to_numpy(dtype=float)
        if len(first) != result.summary.n_images:
            raise ValueError(f"{len(first)} images, and result.json has {result.summary.n_images}")
        photographs = [
            Photograph(name, paths.get(name, Path()), float(mos), group=kind or "all images", kind=kind)
            for name, mos, kind in zip(first["image"], first["mos"], first["type"])
        ]
        if not all(math.isfinite(photograph.mos) for photograph in photographs):
            raise ValueError("a MOS is not finite")
    return scores, photographs
