"""Read changed files, for a while, and say which broke the promise of tests/fuzz/contract.py.

python -m tests.fuzz --seconds 120

A process reads; where it crashes or hangs, another goes on. A file that broke the promise is kept. Ends with
status 1 if any did.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SILENCE = 90  # seconds without a case ended, after which the process counts as hanging
KEPT = ROOT / "results/fuzz"  # where files that broke the promise are put


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n\n")[0])
    found.add_argument("--seconds", type=float, default=120, help="of reading; default: 120")
    found.add_argument("--seed", type=int, default=0, help="of the changes; default: 0")
    found.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these readers")
    found.add_argument("--in", dest="home", type=Path, help=argparse.SUPPRESS)  # of the process that reads
    return found


def main() -> int:
    args = parser().parse_args()
    if args.home is not None:
        from tests.fuzz.reading import read_changed

        read_changed(args.home, args.seconds, args.seed, args.only)
        return 0
    cases, findings = Counter[tuple[str, str]](), dict[tuple[str, str], Path]()
    used = Counter[str]()
    left, seed = args.seconds, args.seed
    while left > 1:
        with tempfile.TemporaryDirectory() as home:
            told, spent, fault = watched(reading(Path(home), left, seed, args.only), Path(home))
            for line in told:
                if "broken" in line:
                    keep(findings, line["reader"], line["broken"], Path(line["folder"]))
                else:
                    cases[line["reader"], "read"] += line["read"]
                    cases[line["reader"], "refused"] += line["refused"]
                    used[line["reader"]] += line["seconds"]
            if fault and not told:
                print(fault)
                return 1
            if fault:
                keep(findings, (told[-1]["reader"] if told else "?"), fault, Path(home) / "case")
        left, seed = left - spent, seed + 1
    print(f"{'':24s}{'files':>8s}{'read':>8s}{'refused':>9s}{'seconds':>9s}{'findings':>10s}")
    for name in dict.fromkeys(name for name, _ in cases):
        read, refused = cases[name, "read"], cases[name, "refused"]
        found = sum(reader == name for reader, _ in findings)
        print(f"{name:24s}{read + refused:8d}{read:8d}{refused:9d}{used[name]:9.1f}{found:10d}")
    total = sum(cases.values())
    print(f"{total} files in {args.seconds - left:.0f} s, {len(findings)} findings")
    for (name, what), place in findings.items():
        print(f"{name}: {what}: {place}")
    return 1 if findings else 0


def reading(home: Path, seconds: float, seed: int, only: list[str]) -> list[str]:
    """Return the command that reads."""
    options = ["--in", str(home), "--seconds", str(seconds), "--seed", str(seed)]
    return [sys.executable, "-m", "tests.fuzz", *options, *(["--only", *only] if only else [])]


def watched(command: list[str], home: Path) -> tuple[list[dict], float, str]:
    """Have a process read; return what it told, for how long it read, and why it ended before its time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    fault = ""
    with (home / "told").open("w") as told, (home / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=told, stderr=said)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.time() - home.stat().st_mtime > SILENCE:  # each case makes its folder there anew
                    fault = f"hangs: no end in {SILENCE} s"
                    process.kill()
        finally:
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in (home / "told").read_text().splitlines()]
    if process.returncode and not fault:
        number = -process.returncode
        how = signal.Signals(number).name if number > 0 else f"status {process.returncode}"
        fault = f"the process ended by {how}: {(home / 'said').read_text()[-300:]}"
    return lines, max(sum(line.get("seconds", 0) for line in lines), 1.0), fault


def keep(findings: dict[tuple[str, str], Path], reader: str, what: str, folder: Path) -> None:
    """Keep the files of a finding, one of each kind."""
    key = reader, " ".join(what.split())[:300]
    if key not in findings and folder.exists():
        findings[key] = KEPT / f"{reader.replace(' ', '-')}-{len(findings)}"
        shutil.rmtree(findings[key], ignore_errors=True)
        shutil.copytree(folder, findings[key])


if __name__ == "__main__":
    raise SystemExit(main())
