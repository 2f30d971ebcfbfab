"""Whether an edit fits: the memory that this process may still take, against what an estimate says it needs."""

from __future__ import annotations

from pathlib import Path

from editors.contract import Estimate
from editors.errors import EstimateRefused
from editors.loading import chosen_device

CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: str = "auto", cgroup: Path = CGROUP) -> int:
    """Free memory of the GPU; on the CPU what the machine, or the container's limit where that is less, still gives."""
    if chosen_device(device) != "cpu":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    left = _container_bytes(cgroup)
    return free if left is None else min(free, left)


def require_memory(estimate: Estimate, available: int) -> None:
    """Refuse what does not fit, before a weight is loaded.

    Raises:
        EstimateRefused: the estimate needs more than is available.
    """
    if estimate.memory_bytes > available:
        raise EstimateRefused(
            f"the edit needs about {estimate.memory_bytes} bytes of memory ({estimate.memory_bytes / 2**30:.1f} GiB), "
            f"available are {available} ({available / 2**30:.1f} GiB)",
            "lower the method's token_budget, name fewer `layers`, or split the requests into several batches (sheets)")


def _container_bytes(cgroup: Path) -> int | None:
    """What a control group's limit (version 2) leaves, file pages that can be dropped included; None without a limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
