"""What a piece of work took: seconds, seconds of all threads, resident memory."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RESET_PEAK = "5"
"""What Linux takes as "the highest resident size begins anew"."""


@dataclass
class Took:
    """Filled when the measured block ends."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    """The process's highest resident size during the block."""
    grown_bytes: int = 0
    """How much of it was not there when the block began."""


@contextmanager
def measured() -> Iterator[Took]:
    """Measure the block.

    Memory that earlier work freed is first given back, or the block would use it again and seem to need none. Where the
    kernel does not let the peak begin anew, it is the process's since its start: never too low.
    """
    took = Took()
    _give_back()
    _reset_peak()
    before, cpu, started = _status("VmRSS"), time.process_time(), time.perf_counter()
    try:
        yield took
    finally:
        took.seconds, took.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        took.peak_bytes = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        took.grown_bytes = max(0, took.peak_bytes - before)


def _give_back() -> None:
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        # only glibc has it, and only glibc keeps so much
        return


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return


def _status(name: str) -> int:
    """A size that Linux tells of this process, in bytes; 0 elsewhere."""
    path = Path("/proc/self/status")
    found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found[1]) * 1024 if found else 0
