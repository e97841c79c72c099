"""The jobs of a sweep on one device, in this process, or on several, in one process each."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from common.runs.progress import Progress
from common.runs.sweep import Event, Job, Worker
from common.system.errors import UserError

MakeWorker = Callable[[Callable[[Event], object]], Worker]  # handed `tell`, through which the worker reports


def run(work: Sequence[Job], makes: Sequence[MakeWorker], progress: Progress) -> None:
    """Run the jobs: on one device in this process, on several in one process each, which draw from one queue.

    makes: what makes the worker of each device. Should a process die, the others go on without it.
    """
    if len(makes) == 1:
        makes[0](partial(progress.tell, 0)).run(work)
        return
    lost: set[int] = set()
    context = multiprocessing.get_context("spawn")
    todo, messages = context.Queue(), context.Queue()
    for job in [*work, *[None] * len(makes)]:
        todo.put(job)
    processes = [
        context.Process(target=_serve, args=(todo, messages, number, make))
        for number, make in enumerate(makes)
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes) or not messages.empty():
            with suppress(queue.Empty):
                number, message = messages.get(timeout=1)
                if isinstance(message, str):
                    progress.lost(number, message)
                elif message is not None:
                    progress.tell(number, message)
            for number, process in enumerate(processes):
                if process.exitcode and number not in lost:
                    lost.add(number)
                    progress.lost(number, f"its process died (exit status {process.exitcode})")
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(
    todo: multiprocessing.Queue, messages: multiprocessing.Queue, number: int, make: MakeWorker
) -> None:
    """Work as the process of one of several devices: draw jobs until there is none left.

    Its messages are (number, event); (number, reason) if it cannot go on; (number, None) at its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one answers to Ctrl-C
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        make(lambda event: messages.put((number, event))).run(iter(todo.get, None))
    except UserError as error:
        messages.put((number, str(error)))
    messages.put((number, None))


def _follow_parent() -> None:
    """End with the process that started this one, however it ended: nobody would hear of the rest."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
