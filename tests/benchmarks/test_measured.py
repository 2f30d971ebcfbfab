"""What a block took."""

from __future__ import annotations

import platform
import sys
import time

import pytest
import torch

from benchmarks.measured import measured


def test_work_and_sleep_are_told_apart() -> None:
    with measured() as took:
        time.sleep(0.05)
    assert took.seconds >= 0.05
    assert 0 <= took.cpu_seconds <= took.seconds + 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="resident sizes are read from /proc")
def test_memory_of_one_block_is_not_that_of_the_next() -> None:
    with measured() as large:
        held = torch.ones(32 << 20)
        assert float(held[-1]) == 1.0
        del held
    with measured() as small:
        torch.ones(16)
    assert large.grown_bytes > 100 << 20
    assert small.grown_bytes < 64 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not told to give memory back")
def test_the_same_work_takes_the_same_memory_the_second_time() -> None:
    grown, kept = [], []
    for _ in range(2):
        with measured() as took:
            held = [bytearray(1 << 16) for _ in range(2000)]
            # something that stays at the heap's end: what is freed below it is not given back by itself
            kept.append(held.pop())
            del held
        grown.append(took.grown_bytes)
    assert min(grown) > 110 << 20


def test_what_fails_is_measured_too() -> None:
    seen = []

    def fail() -> None:
        with measured() as took:
            seen.append(took)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert seen[0].seconds > 0
