"""How a sweep scales with its workers, and what it costs its launcher: the figures of docs/speed.md.

    OMP_NUM_THREADS=1 python -m tests.scaling --repeats 3

It runs the miniature with workers of this machine, one thread each: as they are, and with a wait after every
episode that stands for a GPU at work, so that only the launcher's part needs a core. Only the time is counted
in which all workers have a job. One worker is the launcher's own process, without Dask.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests import layouts, miniature

ROOT = Path(__file__).parent.parent
ROWS = {f"{kind}/img{k}.bmp": (k, "bikes") for k in range(1, 33) for kind in layouts.LIVE_BLOCKS}
SWEEP = ("--backbones", "tres", "--tables", "1", "3", "--datasets", "live_iqa")  # 8 cells
# Prints, for each answer: seconds on the wall and of CPU, episodes, images, and workers that have a job.
LAUNCHER = """
import json, sys, time
from common.runs import cluster, sweep
workers, cluster.SECONDS = int(sys.argv[1]), float(sys.argv[2])
keep, notes = sweep.Sweep._keep, []
def noted(self, worker, answer, crew):
    busy = sum(hand.task is not None for hand in self.hands.values())
    keep(self, worker, answer, crew)
    images = sum(len(batch["source"]) for _, _, batch in answer.episodes)
    notes.append((time.monotonic(), time.process_time(), len(answer.episodes), images, busy))
    if self.hands[worker].task is None and not self.todo:
        print(json.dumps(notes), flush=True)
        sys.exit(0)
sweep.Sweep._keep = noted
from tests import miniature
miniature.dask_setup(None)
miniature.main(sys.argv[3:])
"""


class Measured(NamedTuple):
    """Of the time in which all workers had a job."""

    images: float  # per second
    cpu: float  # seconds of the launcher's, per second
    episodes: float  # per second
    answers: float  # per second


def measure(root: Path, workers: int, seconds: float = 5.0, pause: float = 0.0, jobs: int = 12) -> Measured:
    """Run a sweep.

    seconds: of work that a worker is asked for at a time. pause: seconds after each episode.
    jobs: for each worker, of 160 episodes.
    """
    with tempfile.TemporaryDirectory() as results:
        options = miniature.options(root, Path(results), *SWEEP, "--seeds", str(jobs * workers))
        printed = subprocess.run(
            [sys.executable, "-c", LAUNCHER, str(workers), str(seconds), *options]
            + ["--device", ",".join(["cpu"] * workers)],
            cwd=ROOT,
            env={**os.environ, **miniature.ENVIRONMENT, "MINIATURE_PAUSE": str(pause)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        ).stdout
    notes = [note for note in json.loads(printed.splitlines()[-1]) if note[-1] == workers]
    (began, cpu_began, *_), *rest = notes
    wall = rest[-1][0] - began
    return Measured(
        sum(note[3] for note in rest) / wall,
        (rest[-1][1] - cpu_began) / wall,
        sum(note[2] for note in rest) / wall,
        len(rest) / wall,
    )


def median(root: Path, repeats: int, workers: int, **how: float) -> Measured:
    """Measure several times; return the median of each figure."""
    return Measured(*map(statistics.median, zip(*(measure(root, workers, **how) for _ in range(repeats)))))


def shown(found: Measured) -> str:
    """Return a line."""
    return (
        f"{found.images:.1f} images/s, {found.episodes:.1f} episodes/s, {found.answers:.2f} answers/s, "
        f"launcher {100 * found.cpu:.2f} % of a core, {1e3 * found.cpu / found.episodes:.2f} ms per episode"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args(argv).repeats
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        miniature.build(root, ROWS)
        for pause, counts in ((0.0, (1, 2, 3)), (0.2, (1, 2, 4, 8))):
            for workers in counts:
                found = median(root, repeats, workers, pause=pause, jobs=2 if pause else 12)
                print(f"pause {pause:g} s, {workers} workers: {shown(found)}", flush=True)
        for seconds in (0.1, 2.0):
            found = median(root, repeats, 2, seconds=seconds)
            print(f"asked for {seconds:g} s at a time, 2 workers: {shown(found)}", flush=True)


if __name__ == "__main__":
    main()
