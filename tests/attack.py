"""Give every command files, folders, numbers and words that are none, and count what comes of it.

    python -m tests.attack             # an hour or so
    python -m tests.attack --tree DIR  # the same against another checkout, in this environment

Each case is a process of its own. As promised: it ends within its time with a score or a line, runs no
program of the machine, and writes nothing into the folder of photographs. Ends with status 1 if any did not.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests import layouts
from tests.fuzz.contract import PROGRAMS
from tests.test_hostile import EPS

ROOT = Path(__file__).parent.parent
SECONDS = 60  # of a case
WEIGHTS = "weights/demo/metaiqa.safetensors"
CELL = f"reproduce_cell --backbone metaiqa --device cpu --workers 0 --seeds 1 --niter 1 --weights {WEIGHTS}"
OWN = f"{CELL} --data-root PHOTOS"
SCORE = f"score_images PHOTOS/a.png --backbone metaiqa --weights {WEIGHTS} --workers 0 --device cpu"
TRAIN = "train_source --backbone metaiqa --epochs 1 --device cpu --workers 0 --batch-size 2 --view-size 64"
STUDY = "study --backbone metaiqa --parts tuned --seeds 1 --device cpu --out OUT"
SWEEP = "all_expt --backbones metaiqa --tables 1 --datasets livec --seeds 1 --device cpu --workers 0"

# Commands with @ where a path goes; where that is wrong, none of the first may end well.
READS = (
    f"{CELL} --data-root @",
    f"{CELL} --data-root @ --method source --allow-missing",
    f"{OWN} --method source --weights @",
    "reproduce_cell --table 1 --backbone metaiqa --dataset livec --method gc --data-root . --weights-dir @",
    f"score_images @ --backbone metaiqa --weights {WEIGHTS} --device cpu",
    "score_images PHOTOS/a.png --weights @ --device cpu",
    "score_images PHOTOS/a.png --model timm:resnet18 --features layer4 --weights @ --device cpu",
    "check_data csv --data-root @ --decode",
    "check_data livec koniq10k biq2021 --data-root @ --decode",
    "convert_weights @ OUT/w.safetensors",
    "convert_weights @ OUT/w.safetensors --backbone metaiqa",
    "download_weights --dest OUT/files --from-file metaiqa-live_fb=@",
    "merge_results OUT/merged @",
    f"{STUDY} --data-root PHOTOS --weights @",
    f"{STUDY} --data-root @ --weights {WEIGHTS}",
    "study_tables @ --into OUT/t.md",
    f"{TRAIN} --data-root PHOTOS --output OUT/s.safetensors --init @",
    f"{TRAIN} --data-root PHOTOS --output OUT/s.safetensors --init scratch --distil-epochs 1 --teacher @",
    f"{TRAIN} --data-root @ --output OUT/s.safetensors --init scratch",
    "verify_reference @",
    f"{SWEEP} --dry-run --rates @ --results OUT/r",
    "benchmark --backbone metaiqa --device cpu --rounds 1 --images @",
    "benchmark --backbone metaiqa --device cpu --rounds 1 --photographs 2 --release @",
    f"{SWEEP} --data-root PHOTOS --results OUT/r --scheduler @",
    "worker @ --patience 1 --device cpu",
    "worker 127.0.0.1:9 --patience 1 --device cpu --data-root @",
    "worker 127.0.0.1:9 --patience 1 --device cpu --weights-dir @",
)
# These may do without what is wrong.
SPARED = (
    "report @ --out OUT/report",
    "download_weights --list --manifest @",
    f"{OWN} --method source --weights-dir @",
    "download_weights --list --dest @",
    f"{SWEEP} --dry-run --data-root @ --results OUT/r",
    f"{SWEEP} --dry-run --data-root PHOTOS --weights-dir @ --results OUT/r",
    f"{SWEEP} --data-root PHOTOS --weights-dir @ --results OUT/r",
    f"{SWEEP} --status --results @",
    f"{SWEEP} --dry-run --results @",
    "report RESULTS --out OUT/report --data-root @",
)
WRITES = (
    f"{OWN} --method source --json @",
    f"{OWN} --method source --scores @",
    f"{OWN} --method source --results @",
    f"{SCORE} --output @ --protocol paper --method none",
    f"{SCORE} --json @",
    f"{SCORE} --output @ --resume",
    f"{SWEEP} --data-root PHOTOS --results @",
    f"convert_weights {WEIGHTS} @",
    f"{TRAIN} --data-root PHOTOS --init scratch --output @",
    "download_weights metaiqa-live_fb --base-url http://127.0.0.1:9 --tries 1 --dest @",
    "report RESULTS --out @",
    "merge_results @ RESULTS",
    "study_tables STUDY --into @",
    "gpu_report --device cpu --minutes 0.01 --backbone metaiqa --out @",
    "benchmark --backbone metaiqa --device cpu --rounds 1 --photographs 2 --batch-size 2 --json @",
)
NUMBERS = (
    *(f"{OWN} --method source --{name} @" for name in ("seeds", "batch-size", "episodes", "workers")),
    *(f"{OWN} --{name} @" for name in ("niter", "p", "lr", "weight", "temperature")),
    *(f"{SCORE} --{name} @" for name in ("batch-size", "crops", "seed", "top")),
    f"{SCORE} --output OUT/s.csv --overwrite --protocol paper --guard @",
    "score_images PHOTOS/a.png --model timm:resnet18 --features layer4 --size @",
    *(f"{SWEEP} --dry-run --results OUT/r --{name} @" for name in ("seeds", "limit-images", "workers-max")),
    f"{SWEEP} --dry-run --results OUT/r --similar-dmos @ 1",
    *(
        f"benchmark --backbone metaiqa --device cpu --rounds 1 --photographs 1 --batch-size 1 --{name} @"
        for name in ("threads", "stream")
    ),
    *(
        f"{TRAIN} --data-root PHOTOS --init scratch --output OUT/n.safetensors --resume --{name} @"
        for name in ("lr", "crops", "seed")
    ),
    *(f"report RESULTS --out OUT/report --{name} @" for name in ("seeds", "limit-images")),
    "download_weights tres-live_fb --base-url http://127.0.0.1:9 --dest OUT/d --tries @",
    "worker 127.0.0.1:9 --device cpu --patience 1 --lifetime @",
)
WORDS = (
    *(
        f"{OWN} --{name} @"
        for name in ("subset", "score-column", "adapt", "cut", "device", "method", "dataset")
    ),
    *(f"{SCORE} --{name} @" for name in ("device", "protocol")),
    "score_images PHOTOS/a.png --model @ --device cpu",
    "score_images PHOTOS/a.png --model timm:@ --features layer4 --device cpu",
    "score_images PHOTOS/a.png --model timm:resnet18 --features @ --device cpu",
    f"{SWEEP} --dry-run --results OUT/r --part @",
    f"{SWEEP} --results OUT/r --data-root PHOTOS --device @",
    "check_data @",
    "download_weights @ --dest OUT/d --base-url http://127.0.0.1:9 --tries 1",
    "download_weights tres-live_fb --dest OUT/d --tries 1 --base-url @",
    "download_weights --dest OUT/d --from-file @",
    "worker 127.0.0.1:9 --patience 1 --device cpu --dask @",
)
LAYOUTS = (
    *("koniq10k", "koniq10k_sets", "pipal", "pipal_list", "biq2021", "avt_h265", "cid2013", "cid2013_ods"),
    *("live_iqa", "spaq", "livec", "dslr", "live_fb", "tid2013", "kadid10k", "csiq"),
)


NO_DATA = {"scripts.gpu_report", "scripts.benchmark"}  # commands that cannot know where photographs are


class Case(NamedTuple):
    """A command, and whether it may end well."""

    name: str
    words: list[str]
    may_succeed: bool


class Outcome(NamedTuple):
    """What came of it."""

    case: Case
    verdict: str
    seconds: float
    megabytes: int
    said: str  # the last line


class Places:
    """Folders of good and of bad things; home: where they are."""

    def __init__(self, home: Path):
        self.home = home
        self.photos, self.bad = home / "photos", home / "bad"
        self.photos.mkdir()
        rng = np.random.default_rng(0)
        for name in "abcd":
            colours = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
            Image.fromarray(colours).resize((240, 230)).save(self.photos / f"{name}.png")
        labels = "".join(f"{name}.png,{n}.5\n" for n, name in enumerate("abcd"))
        (self.photos / "scores.csv").write_text("image_name,MOS\n" + labels)
        (home / "ran").mkdir()
        (home / "bin").mkdir()
        for name in PROGRAMS:
            if name not in ("git", "sh", "bash", "python"):  # what a command may call itself
                (home / "bin" / name).write_text(f"#!/bin/sh\n: > {home / 'ran'}/$$\n")
                (home / "bin" / name).chmod(0o755)
        self.bad.mkdir()
        self.bad_paths = list(self._bad_paths())

    def _bad_paths(self) -> Iterator[tuple[str, str]]:
        def made(name: str, content: bytes) -> str:
            (self.bad / name).write_bytes(content)
            return str(self.bad / name)

        (self.bad / "empty folder").mkdir()
        os.mkfifo(self.bad / "fifo")
        (self.bad / "fifos").mkdir()
        for name in ("x.jpg", "scores.csv", "result.json"):
            os.mkfifo(self.bad / "fifos" / name)
        (self.bad / "zeros").mkdir()
        for name in ("x.jpg", "scores.csv", "result.json", "AllMOS_release.mat"):
            (self.bad / "zeros" / name).symlink_to("/dev/zero")
        (self.bad / "loop").symlink_to("loop")
        (self.bad / "loops").mkdir()
        (self.bad / "loops" / "x.png").symlink_to("x.png")
        (self.bad / "eps").mkdir()
        (self.bad / "eps" / "a.png").write_bytes(EPS)
        (self.bad / "eps" / "scores.csv").write_text("image_name,MOS\na.png,1\n")
        noise = np.random.default_rng(1).bytes(20_000)
        yield "nothing", str(self.bad / "nothing")
        yield "an empty folder", str(self.bad / "empty folder")
        yield "a FIFO", str(self.bad / "fifo")
        yield "a folder of FIFOs", str(self.bad / "fifos")
        yield "a folder of endless files", str(self.bad / "zeros")
        yield "an endless file", "/dev/zero"
        yield "a link to itself", str(self.bad / "loop")
        yield "a folder of a link to itself", str(self.bad / "loops")
        yield "an image that is a program's", str(self.bad / "eps")
        yield "a name too long", str(self.bad / ("w" * 300))
        yield "below a file", str(self.photos / "a.png" / "x")
        yield "no UTF-8", os.fsdecode(os.fsencode(self.bad) + b"/\xff\xfe")
        yield "an escape sequence", str(self.bad / "\x1b[31mred\nline")
        yield "an empty file", made("empty", b"")
        yield "noise", made("noise", noise)
        yield "noise as a checkpoint", made("noise.pth", noise)
        yield "half a checkpoint", made("half.safetensors", (ROOT / WEIGHTS).read_bytes()[:100_000])
        yield "a page of the web", made("page", b"<!doctype html><html><title>404</title></html>\n" * 30)
        yield "an empty list", made("list.json", b"[]")
        yield "JSON too deep", made("deep.json", b"[" * 100_000)
        yield "a table without columns", made("table.csv", b"\n\n,,,\n")
        yield "a photograph", str(self.photos / "a.png")

    def filled(self, command: str, value: str, out: str) -> list[str]:
        """Return the words of a command with its path, number or word in place."""
        places = {"PHOTOS": str(self.photos), "OUT": out, "RESULTS": str(self.home / "results")}
        places["STUDY"] = str(next(iter(sorted((ROOT / "results").glob("study-*"))), "results"))
        words = shlex.split(command)
        for name, place in places.items():
            words = [word.replace(name, place, 1) if word.startswith(name) else word for word in words]
        return ["-m", f"scripts.{words[0]}", *(word.replace("@", value) for word in words[1:])]


BAD_OUTPUTS = (
    ("a folder", "BAD/empty folder"),
    ("a FIFO", "BAD/fifo"),
    ("a full disk", "/dev/full"),
    ("no place for files", "/proc/x"),
    ("a link to itself", "BAD/loop"),
    ("a name too long", "BAD/" + "w" * 300),
    ("a name nearly too long", "BAD/" + "w" * 250),
    ("below a file", "PHOTOS/a.png/x"),
    ("a photograph", "PHOTOS/a.png"),
    ("the labels", "PHOTOS/scores.csv"),
    ("the folder of photographs", "PHOTOS"),
)
BAD_NUMBERS = (
    *("0", "-1", "1000000000000", "99999999999999999999999", "1_0", "\u0663", "nan", "inf", "1e400"),
    *("-inf", "0x10", " 5", "5.5", "", "x", "1e-400", "--"),
)
BAD_WORDS = (
    "",
    "x",
    "w" * 300,
    "../..",
    "\x1b[31m",
    "'",
    "-1",
    "None",
    "a:b",
    "os:system",
    "%s",
    "*",
    "\udcff",
)


def cases(places: Places) -> Iterator[Case]:
    """Yield all cases."""
    number = 0

    def case(command: str, kind: str, value: str, may_succeed: bool) -> Case:
        nonlocal number
        number += 1
        out = places.home / "out" / str(number)
        out.mkdir(parents=True)
        return Case(f"{command}  @ = {kind}", places.filled(command, value, str(out)), may_succeed)

    for commands, may_succeed in ((READS, False), (SPARED, True)):
        for command in commands:
            for kind, path in places.bad_paths:
                fits = kind == "a photograph" and ("score_images @" in command or "--images @" in command)
                yield case(command, kind, path, may_succeed or fits)
    for command in WRITES:
        for kind, path in BAD_OUTPUTS:
            value = path.replace("BAD", str(places.bad)).replace("PHOTOS", str(places.photos))
            yield case(command, kind, value, kind in ("a folder", "a name nearly too long"))
    for command in NUMBERS:
        for value in BAD_NUMBERS:
            yield case(command, repr(value), value, True)
    for command in WORDS:
        for value in BAD_WORDS:
            yield case(command, repr(value)[:40], value, True)
    yield from _label_files(places, case)


def _label_files(places: Places, case: Callable[[str, str, str, bool], Case]) -> Iterator[Case]:
    """Yield each data set with each of its label files spoilt in turn."""
    spoilt: dict[str, Callable[[Path, bytes], object]] = {
        "empty": lambda path, _: path.write_bytes(b""),
        "cut": lambda path, content: path.write_bytes(content[: len(content) // 2]),
        "noise": lambda path, content: path.write_bytes(np.random.default_rng(2).bytes(len(content))),
        "doubled": lambda path, content: path.write_bytes(content * 2),
        "a FIFO": lambda path, _: (path.unlink(), os.mkfifo(path)),
        "a folder": lambda path, _: (path.unlink(), path.mkdir()),
        "endless": lambda path, _: (path.unlink(), path.symlink_to("/dev/zero")),
        "gone": lambda path, _: path.unlink(),
    }
    for layout in LAYOUTS:
        name = next(one for one in (layout, layout.rpartition("_")[0]) if one in DATASETS)
        good = places.home / "layouts" / layout / name
        getattr(layouts, layout)(good)
        files = [path for path in sorted(good.rglob("*")) if path.suffix.lower() in LABELS]
        for path in files[:3]:
            for kind, spoil in spoilt.items():
                root = places.home / "spoilt" / layout / path.name / kind.replace(" ", "_")
                shutil.copytree(good, root / name)
                changed = root / name / path.relative_to(good)
                spoil(changed, changed.read_bytes())
                yield case(
                    f"check_data {name} --data-root @", f"{layout}/{path.name} {kind}", str(root), True
                )


DATASETS = (
    *("koniq10k", "pipal", "biq2021", "avt_h265", "cid2013", "live_iqa", "spaq", "livec", "dslr", "live_fb"),
    *("tid2013", "kadid10k", "csiq"),
)
LABELS = (".csv", ".txt", ".mat", ".xlsx", ".ods", ".json")


class Attack:
    """Runs cases against a checkout."""

    def __init__(self, tree: Path, places: Places):
        self.tree, self.places = tree, places
        self.before = self._listing()
        self.lock = threading.Lock()

    def _listing(self) -> list[tuple[str, int, int]]:
        found = sorted(self.places.photos.rglob("*"))
        return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]

    def run(self, case: Case) -> Outcome:
        """Run a case and judge it."""
        with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
            started = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, *case.words],
                cwd=self.tree,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "PATH": f"{self.places.home / 'bin'}:{os.environ['PATH']}",
                },
                start_new_session=True,
            )
            late = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
            late.start()
            _, status, used = os.wait4(process.pid, 0)
            late.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            said = errors.read().decode(errors="replace").splitlines()
        verdict = self._verdict(case, process.returncode, said)
        return Outcome(case, verdict, time.monotonic() - started, used.ru_maxrss >> 10, (said or [""])[-1])

    def _verdict(self, case: Case, status: int, said: Sequence[str]) -> str:
        with self.lock:
            ran = list((self.places.home / "ran").iterdir())
            for path in ran:
                path.unlink()
            wrote, self.before = self._listing() != self.before, self._listing()
        if ran:
            return "executed a program"
        if status == -signal.SIGKILL:
            return "hung"
        if status < 0:
            return "crashed"
        if any(line.startswith("Traceback") for line in said):
            return "traceback"
        if wrote and not NO_DATA & {*case.words}:
            return "wrote into the photographs"
        if status == 0 and not case.may_succeed:
            return "took it"
        if status == 2 and not (said and said[-1].startswith("error: ")):
            return "no line"
        spoken = 0 if "scripts.worker" in case.words else sum(not line.startswith("note: ") for line in said)
        if status == 2 and spoken > 3:  # a worker says what it is at
            return "more than a line"
        return "as promised"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases; print what broke the promise, and the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.attack", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--tree", type=Path, default=ROOT, help="checkout that is attacked; default: this one"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th case")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their names")
    args = parser.parse_args(argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder))
        attack = Attack(args.tree, places)
        results = ["--method", "source", "--results", str(places.home / "results")]
        first = attack.run(Case("", [*places.filled(OWN, "", ""), *results], True))
        if first.verdict != "as promised":
            print(f"no results to begin with: {first.said}")
            return 1
        wanted = [case for case in cases(places) if args.only in case.name][:: args.every]
        with ThreadPoolExecutor(args.jobs) as pool:
            outcomes = []
            for outcome in pool.map(attack.run, wanted):
                outcomes.append(outcome)
                if outcome.verdict != "as promised":
                    print(f"{outcome.verdict}: {outcome.case.name!r}: {outcome.said[:200]!r}", flush=True)
    counts = Counter(outcome.verdict for outcome in outcomes)
    print(f"{len(outcomes)} cases in {time.monotonic() - started:.0f} s: ", end="")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    slow, large = max(o.seconds for o in outcomes), max(o.megabytes for o in outcomes)
    print(f"longest {slow:.1f} s, largest {large} MB")
    return 0 if set(counts) == {"as promised"} else 1


if __name__ == "__main__":
    raise SystemExit(main())
