"""Check before hours of work, and not after, whether there is enough memory for them."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from nbhelpers.errors import ResourceError

CGROUP = Path("/sys/fs/cgroup")  # where Linux shows a container its own limit (version 2)


def available_memory(device: str | torch.device = "cpu") -> int:
    """Return how many bytes can still be allocated on ``device``.

    On a CPU it is no more than what the limit of the container leaves.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        # the page cache counts as used, but the system gives it back on demand
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        in_limit = int(limit.read_text()) - int(used.read_text())
        free = min(free, max(0, in_limit + int(stat.get("inactive_file", 0))))
    return free


def require_memory(needed: int, device: str | torch.device, what: str, advice: str) -> None:
    """Refuse a job that does not fit in memory.

    Args:
        needed: Bytes that the job needs at its peak.
        device: The device on which it needs them.
        what: The job and its sizes, in words.
        advice: Which setting makes the job smaller.

    Raises:
        ResourceError: If fewer bytes are free; the message has all of the above.
    """
    free = available_memory(device)
    if needed > free:
        raise ResourceError(
            f"{what}: expected {needed / 1e9:.2f} GB of free memory on {device}, found "
            f"{free / 1e9:.2f} GB; {advice}"
        )
