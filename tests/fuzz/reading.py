"""The process that reads changed files."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.fuzz.changes import CHANGES, changed, changed_inside
from tests.fuzz.contract import Broken, Contract
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.seeds import Seed, is_archive

ROUND = 2.0  # seconds of one reader, before the next has its turn
PHASES = [Phase.generate, Phase.shrink]


def read_changed(home: Path, seconds: float, seed: int, only: Sequence[str] = ()) -> None:
    """Read changed files by every reader in turns; tell what comes of it, a line of JSON for each turn."""
    contract = Contract(home)
    readers = [reader for reader in READERS if not only or reader.name in only]
    for reader in readers:
        for good in reader.seeds:  # also loads what readers load late
            put(home / "case", good, good.files[good.changed])
            if contract.holds(reader.read, home / "case") is not good.good:
                raise AssertionError(f"{reader.name}: {good.changed} is taken for what it is not")
    end = time.perf_counter() + seconds
    turn = min(ROUND, seconds / sum(reader.share for reader in readers))
    number = seed * 1_000_000
    while True:
        for reader in readers:
            begun, counts = time.perf_counter(), Counter[bool]()
            while time.perf_counter() < begun + turn * reader.share:
                number += 1
                try:
                    some(reader, contract, home, number, counts)
                except Broken as error:
                    broken = home / f"broken-{number}"
                    shutil.copytree(home / "case", broken)
                    tell(reader=reader.name, broken=str(error), folder=str(broken))
            spent = time.perf_counter() - begun
            tell(reader=reader.name, read=counts[True], refused=counts[False], seconds=spent)
        if time.perf_counter() > end:  # after the turns: each reader has one at least
            return


def some(reader: Reader, contract: Contract, home: Path, number: int, counts: Counter[bool]) -> None:
    """Read some changed files; raise Broken with the simplest of those that break the promise."""

    @hypothesis.seed(number)
    @settings(
        max_examples=reader.at_once,
        deadline=None,
        database=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(st.integers(0, len(reader.seeds) - 1), st.integers(0, 9), st.booleans(), CHANGES)
    def case(which: int, member: int, inside: bool, changes: list[Any]) -> None:
        seed = reader.seeds[which]
        content = seed.files[seed.changed]
        if inside and is_archive(content):
            content = changed_inside(content, member, changes)
        else:
            content = changed(content, changes)
        put(home / "case", seed, content)
        try:
            counts[contract.holds(reader.read, home / "case")] += 1
        except Broken as error:
            broken.append(error)
            raise

    broken: list[Broken] = []
    try:
        case()
    except Exception:  # also of what happens only once, such as taking memory
        if not broken:
            raise
        raise broken[-1] from None


def put(folder: Path, seed: Seed, content: bytes) -> None:
    """Make the folder of a seed, with another content of its changed file."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in (seed.files | {seed.changed: content}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def tell(**line: Any) -> None:
    print(json.dumps(line), flush=True)
