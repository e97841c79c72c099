"""A stand-in for Slurm: sbatch, squeue and scancel that start, list and end real processes of this machine.

`install` makes the three commands. A job is a group of processes; what becomes of it is a line of `log`:
`N ended`, `N cancelled`, `N timed out`, `N killed`.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

KNOWN = {"-J", "-e", "-o", "--partition", "--gres", "--time"}
GPU = "7"  # what Slurm sets CUDA_VISIBLE_DEVICES to
OVER_TIME = 20.0  # seconds that a job may go on beyond its limit, since a busy machine is slow to start one


def install(folder: Path) -> dict[str, str]:
    """Make the commands in `folder`/bin; return the environment that has them."""
    (folder / "bin").mkdir(parents=True)
    (folder / "jobs").mkdir()
    (folder / "log").touch()
    for name in ("sbatch", "squeue", "scancel"):
        program = folder / "bin" / name
        command = [sys.executable, "-S", __file__, str(folder), name]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        program.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def doom(folder: Path, *numbers: int) -> None:
    """Have jobs killed soon after they start."""
    for number in numbers:
        (folder / "jobs" / f"{number}.doomed").touch()


def hold(folder: Path, *numbers: int) -> None:
    """Have jobs wait in the queue for ever."""
    for number in numbers:
        (folder / "jobs" / f"{number}.held").touch()


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def live(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "jobs").glob("*.pid"))


def write_log(folder: Path, line: str) -> None:
    with (folder / "log").open("a") as file:
        file.write(line + "\n")


def sbatch(folder: Path, script: str) -> None:
    text = Path(script).read_text()
    words = shlex.split(" ".join(re.findall(r"^#SBATCH (.*)$", text, re.M)))
    options = {}
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name not in KNOWN or name in options:
            sys.exit(f"sbatch: error: Invalid option: {name}")
        options[name] = value if equals else words.pop(0)
    if options.get("--partition") != "gpu":
        sys.exit("sbatch: error: invalid partition specified: " + options.get("--partition", ""))
    number = 1 + len(list((folder / "jobs").glob("*.sh")))
    copy = folder / "jobs" / f"{number}.sh"
    copy.write_text(text)
    limit = sum(int(part) * 60**place for place, part in enumerate(reversed(options["--time"].split(":"))))
    outputs = [options[name].replace("%J", str(number)) for name in ("-o", "-e")]
    environment = {**os.environ, "SLURM_JOB_ID": str(number), "CUDA_VISIBLE_DEVICES": GPU}
    with open(outputs[0], "wb") as out, open(outputs[1], "wb") as err:
        held = (folder / "jobs" / f"{number}.held").exists()
        job = subprocess.Popen(
            ["sleep", "infinity"] if held else ["bash", str(copy)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
        )
    (folder / "jobs" / f"{number}.pid").write_text(str(job.pid))
    if os.fork() == 0:  # watches the job, as slurmstepd does
        os.setsid()
        for stream in (0, 1, 2):
            os.close(stream)
        watch(folder, number, limit, job.pid)
        os._exit(0)
    print(f"Submitted batch job {number}")


def watch(folder: Path, number: int, limit: float, group: int) -> None:
    """End a job at its limit, when it is cancelled or when it is doomed, and log its end."""
    jobs, started, end, asked = folder / "jobs", time.monotonic(), "ended", None
    while alive(group):
        now = time.monotonic()
        if asked is None:
            if (jobs / f"{number}.cancel").exists():
                asked, end = now, "cancelled"
            elif now - started > limit + OVER_TIME:
                asked, end = now, "timed out"
            elif now - started > 0.5 and (jobs / f"{number}.doomed").exists():
                asked, end = now, "killed"
            if asked is not None:
                os.killpg(group, signal.SIGKILL if end == "killed" else signal.SIGTERM)
        elif now - asked > 3:
            os.killpg(group, signal.SIGKILL)
        time.sleep(0.02)
    write_log(folder, f"{number} {end}")
    (jobs / f"{number}.pid").unlink()


def alive(group: int) -> bool:
    """Whether a process of a group is there that is no zombie."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            return True
    return False


def squeue(folder: Path, *options: str) -> None:
    (asked,) = [option.partition("=")[2].split(",") for option in options if option.startswith("--jobs=")]
    found = [job for job in asked if job in live(folder)]
    if len(asked) == 1 and not found:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print("\n".join(found))


def scancel(folder: Path, number: str) -> None:
    if number not in live(folder):
        sys.exit(f"scancel: error: Kill job error on job id {number}: Invalid job id specified")
    (folder / "jobs" / f"{number}.cancel").touch()


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
