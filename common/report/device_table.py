"""What scripts.gpu_report found, as people read it on a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.runs.cost import spoken

Found = Mapping[str, Any]


def table(content: Found) -> str:
    """Return the table of a file of scripts.gpu_report."""
    parts = [part for part in content["parts"] if part["result"] is not None]
    lines = [
        f"{content['machine']['title']}, torch {content['machine']['torch']}",
        *_checks([part for part in parts if part["kind"] == "check"]),
        "",
        *_rates(parts),
        "",
        *(_other(part) for part in parts if part["kind"] not in ("check", "rates")),
        *(_paper(how, found) for how, found in content["paper"].items()),
        *(_fault(part) for part in content["parts"] if part["fault"]),
    ]
    return "\n".join(lines)


def _checks(parts: Sequence[Found]) -> Iterator[str]:
    for part in parts:
        for check in part["result"]:
            value = "undefined" if check["found"] is None else f"{check['found']:.1e}"
            verdict = "ok" if check["ok"] else "FAIL"
            yield (
                f"{part['what']:10s} {check['name']:52s} {value:>9s}, at most {check['limit']:.0e}  {verdict}"
            )


def _rates(parts: Sequence[Found]) -> Iterator[str]:
    tuned = {
        (part["network"], part["precision"], int(episodes)): rate
        for part in parts
        if part["kind"] == "tuned"
        for episodes, rate in part["result"]["rates"].items()
    }
    yield (
        f"{'network':10s} {'precision':9s} {'E':>3s} {'plain':>12s} {'rank+gc':>12s} {'tuned':>12s} "
        f"{'peak':>10s}"
    )
    for part in parts:
        if part["kind"] == "rates":
            place = part["network"], part["precision"], part["episodes"]
            rates = part["result"]["plain"], part["result"]["rank+gc"], tuned.get(place)
            cells = (f"{rate['images_per_second']:.4g} im/s" if rate else "-" for rate in rates)
            peak = part["result"]["rank+gc"]["peak_mib"]
            yield (
                f"{place[0]:10s} {place[1]:9s} {place[2]:3d} "
                + " ".join(f"{cell:>12s}" for cell in cells)
                + f" {'-' if peak is None else f'{peak:.0f} MiB':>10s}"
            )


def _other(part: Found) -> str:
    result, kind = part["result"], part["kind"]
    if kind == "loaders":
        what = f"loaders, {part['protocol']} on {part['size']}"
        return f"{what}: {result['images_per_second']:.4g} im/s by {result['workers']} processes"
    if kind == "tuned":
        what = f"tuned, {part['network']} in {part['precision']}"
        return f"{what}: decides on {result['images']} images in {result['decision_seconds']:.2f} s"
    if kind == "graph":
        what = f"a step of {part['network']}, {part['episodes']} at once, in tf32"
        return f"{what}: {result['launched_ms']:.1f} ms, as a CUDA graph {result['graph_ms']:.1f} ms"
    eager, compiled = (result[key]["images_per_second"] for key in ("eager", "compiled"))
    return (
        f"{part['network']} by torch.compile, in tf32: plain {compiled:.4g} im/s for {eager:.4g} im/s, "
        f"after {result['compile_seconds']:.0f} s"
    )


def _paper(how: str, found: Found) -> str:
    return f"the paper in {how}, {', '.join(found['networks'])}: {spoken(found['seconds'])}"


def _fault(part: Found) -> str:
    about = (str(value) for name, value in part.items() if name not in ("seconds", "result", "fault"))
    return f"{' '.join(about)}: {part['fault']}"
