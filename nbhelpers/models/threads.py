"""Threads for blocks of work: each thread takes whole blocks, torch itself uses one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item, Result = TypeVar("Item"), TypeVar("Result")


@contextmanager
def single_threaded() -> Iterator[int]:
    """One thread for each torch operation inside; yields how many there were, for `map_blocks`.

    Threads that share the work of many small operations mostly wait for each other, and on a busy
    machine they wait long. Threads that work on whole blocks do not wait.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def map_blocks(
    work: Callable[[Item], Result], blocks: Sequence[Item], n_threads: int
) -> Iterator[Result]:
    """Results of ``work`` in the order of ``blocks``, computed by ``n_threads`` threads.

    Call it inside `single_threaded`. An error inside ``work`` is raised here.
    """
    if n_threads == 1 or len(blocks) == 1:
        yield from map(work, blocks)
        return
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, blocks)
