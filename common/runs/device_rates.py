"""How fast a device scores and adapts, by precision and by how many episodes run at once."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.adapter import Adapter, score_source, stack_batches
from common.batches import Batch, Views, collate, cut, load
from common.choice import decide
from common.episodes import EpisodeState
from common.photographs import Photograph
from common.protocols import METHODS, TUNED, Protocol
from common.runs.benchmark import texture
from common.runs.timing import timed
from common.y import YNetwork

LONG_ENOUGH = 1.0  # seconds of one kind of work
MOST_REPEATS = 5


def made_batch(protocol: Protocol, types: Sequence[str], numbers: Sequence[int]) -> Batch:
    """Return the views of textures, some noisier, with distorted copies, as a loader hands them over."""
    photographs = [Photograph(str(number), Path(str(number))) for number in numbers]
    views = Views(
        photographs,
        0,
        protocol.view,
        types,
        protocol.severities,
        read=lambda path: np.asarray(texture(path.name, noise=5 * (int(path.name) % 7))),
    )
    batch = collate([views[n] for n in range(len(photographs))])
    assert isinstance(batch, Batch)  # images in memory can all be read
    return batch


def rate(work: Callable[[], object], images: int, device: torch.device) -> dict[str, Any]:
    """Run work for about a second, after once to warm up; return images per second and the peak of memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    work()
    times: list[float] = []
    while not times or (len(times) < MOST_REPEATS and sum(times) * images < LONG_ENOUGH):
        times.append(timed(work, images, device).wall)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"images_per_second": 1 / statistics.median(times), "repeats": len(times), "peak_mib": peak}


def episode_rates(ynet: YNetwork, protocol: Protocol, batch: Batch, episodes: int) -> dict[str, Any]:
    """Return the rates of plain scoring and of rank+gc, `episodes` batches at once."""
    device, several = ynet.mean.device, [batch] * episodes
    images = episodes * len(batch.clean)
    plain, adapted = (Adapter(ynet, protocol, METHODS[name]) for name in ("source", "rank+gc"))
    return {
        "plain": rate(lambda: plain(several), images, device),
        "rank+gc": rate(lambda: adapted(several), images, device),
    }


def tuned_rates(
    ynet: YNetwork, protocol: Protocol, batch_size: int, episodes: Sequence[int]
) -> dict[str, Any]:
    """Return the seconds of tuned's decision, and how fast the network that it leaves scores.

    That network has adapted, whatever the agreement of its views: its answers are the dearer ones.
    episodes: numbers of batches at once, each with a rate.
    """
    tuned = replace(TUNED.on(protocol), margin=-2.0, batch_size=batch_size)
    device = ynet.mean.device
    batch = made_batch(tuned.protocol, tuned.types, range(batch_size))
    bare = batch._replace(types=(), pairs=[])
    number, adapting = tuned.judge_on // batch_size, tuned.adapt_on // batch_size
    first, second = [batch] * adapting + [bare] * (number - adapting), [bare] * number
    _, streamed = decide(ynet, tuned, first, second)  # warms up
    streamed.known = {}  # textures share their indices
    seconds = timed(lambda: decide(ynet, tuned, first, second), 1, device).wall
    rates = {str(e): rate(partial(streamed, [bare] * e), e * batch_size, device) for e in episodes}
    return {"decision_seconds": seconds, "images": tuned.judge_on, "rates": rates}


class _Capturable(Adapter):
    """An adapter whose step can be recorded as a CUDA graph."""

    def _start(self, sizes: list[int]) -> tuple[EpisodeState, torch.optim.Adam]:
        state, optimiser = super()._start(sizes)
        for group in optimiser.param_groups:
            group["capturable"] = True
        return state, optimiser


def step_rates(ynet: YNetwork, protocol: Protocol, batch: Batch, episodes: int) -> dict[str, Any]:
    """Return the milliseconds of a step of rank+gc, launched kernel by kernel and as a CUDA graph.

    The graph is of one step on images that stay where they are: what a fixed shape could gain at most.
    """
    device, method = ynet.mean.device, METHODS["rank+gc"]
    images = stack_batches(ynet, [batch] * episodes)
    source = score_source(ynet, images, protocol, method.chooses)
    adapter = _Capturable(ynet, protocol, method)
    steps = adapter.steps(images, source, adapter.groups(images, source), 3 + 2 * MOST_REPEATS)
    next(steps)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            next(steps)
    torch.cuda.current_stream(device).wait_stream(stream)
    launched = [timed(lambda: next(steps), 1, device).wall for _ in range(MOST_REPEATS)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        next(steps)
    graph.replay()
    replayed = [timed(graph.replay, 1, device).wall for _ in range(MOST_REPEATS)]
    return {
        "launched_ms": 1e3 * statistics.median(launched),
        "graph_ms": 1e3 * statistics.median(replayed),
    }


def compiled_rate(ynet: YNetwork, batch: Batch, batches: int) -> dict[str, Any]:
    """Return the rates of plain forward passes of one shape, as they are and by torch.compile."""
    x = torch.cat([ynet.normalised(batch.clean)] * batches).contiguous(memory_format=torch.channels_last)
    device = ynet.mean.device
    compiled = torch.compile(ynet.network)
    with torch.no_grad():
        eager = rate(lambda: ynet.network(x), len(x), device)
        compiling = timed(lambda: compiled(x), 1, device).wall
        return {
            "eager": eager,
            "compiled": rate(lambda: compiled(x), len(x), device),
            "compile_seconds": compiling,
        }


def loading_rate(
    folder: Path, protocol: Protocol, size: tuple[int, int], workers: int, batch_size: int, seconds: float
) -> dict[str, Any]:
    """Return how many images of rank+gc a second loaders hand over, from JPEG files of (width, height)."""
    photographs = []
    for number in range(2 * batch_size):
        path = folder / f"{number}-{size[0]}x{size[1]}.jpg"
        texture(path.name, size).save(path, quality=90)
        photographs.append(Photograph(path.name, path))
    views = Views(photographs, 0, protocol.view, METHODS["rank+gc"].types, protocol.severities)
    endless = [part for _ in range(10_000) for part in cut(range(len(photographs)), batch_size)]
    loaded = load(views, endless, workers)
    for _ in range(2 * workers + 1):  # what lies ready by now
        next(loaded)
    started, images = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        images += len(next(loaded).clean)
    rate = images / (time.perf_counter() - started)
    return {"images_per_second": rate, "workers": workers}
