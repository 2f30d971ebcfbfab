"""What does not fit is refused with both numbers and a way out; a container's limit counts where it is the lower one."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from editors.contract import Estimate
from editors.errors import EstimateRefused
from editors.memory import available_bytes, require_memory


def test_what_does_not_fit_is_refused_with_both_numbers_and_a_remedy() -> None:
    require_memory(Estimate(memory_bytes=1000, flops=1, seconds=1.0), 1000)
    with pytest.raises(EstimateRefused) as refused:
        require_memory(Estimate(memory_bytes=3 << 30, flops=1, seconds=1.0), 1 << 30)
    assert "about 3221225472 bytes of memory (3.0 GiB), available are 1073741824 (1.0 GiB)" in refused.value.message
    for way in ("token_budget", "fewer `layers`", "several batches"):
        assert way in refused.value.hint


def test_the_machines_free_memory_counts_where_no_container_limits_it(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    assert available_bytes("cpu", tmp_path) == pytest.approx(free, rel=0.2)
    write_limit(tmp_path, "max", 0)
    assert available_bytes("cpu", tmp_path) == pytest.approx(free, rel=0.2)


def test_a_containers_limit_counts_where_it_is_lower(tmp_path: Path) -> None:
    write_limit(tmp_path, str(100 << 20), 70 << 20)
    assert available_bytes("cpu", tmp_path) == (100 - 70 + 5) << 20
    write_limit(tmp_path, str(50 << 20), 70 << 20)
    assert available_bytes("cpu", tmp_path) == 0


def write_limit(folder: Path, limit: str, used: int) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used}\ninactive_file {5 << 20}\n")
