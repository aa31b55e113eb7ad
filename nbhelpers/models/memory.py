"""Is there memory for what is about to be done? Asked before hours of work, not after."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from nbhelpers.errors import ResourceError

CGROUP = Path("/sys/fs/cgroup")  # where Linux shows a container its own limit (version 2)


def available_memory(device: str | torch.device = "cpu") -> int:
    """Bytes that can still be allocated on ``device``; on a CPU no more than the container's limit
    leaves.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        # The page cache counts as used but is given back when asked for.
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        left = int(limit.read_text()) - int(used.read_text()) + int(stat.get("inactive_file", 0))
        free = min(free, max(0, left))
    return free


def require_memory(needed: int, device: str | torch.device, what: str, advice: str) -> None:
    """Refuse a job that does not fit.

    Args:
        needed: Bytes at its peak.
        device: Where.
        what: The job and its sizes, in words.
        advice: Which setting makes it smaller.

    Raises:
        ResourceError: with all four and the bytes that are free.
    """
    free = available_memory(device)
    if needed > free:
        raise ResourceError(
            f"{what}: expected {needed / 1e9:.2f} GB of free memory on {device}, found {free / 1e9:.2f} GB; "
            f"{advice}"
        )
