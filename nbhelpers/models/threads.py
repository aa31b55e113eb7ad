"""Threads for blocks of work: each thread works on whole blocks, and torch uses one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def single_threaded() -> Iterator[int]:
    """Let torch use one thread per operation inside the ``with`` block.

    Threads that share the work of many small operations mostly wait for each other, and on a busy
    machine they wait long. Threads that work on whole blocks do not wait.

    Yields:
        How many threads torch used before; ``map_blocks`` takes that number.
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
    """Apply ``work`` to each block, by ``n_threads`` threads; call it inside ``single_threaded``.

    Args:
        work: What is done with one block. An error that it raises is raised here.
        blocks: What the threads share among themselves.
        n_threads: How many threads work at the same time.

    Yields:
        The results, in the order of ``blocks``.
    """
    if n_threads == 1 or len(blocks) == 1:
        yield from map(work, blocks)
        return
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, blocks)
