"""The plan's arithmetic against numbers worked out by hand, and a crew's clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.fuzz import main as fuzz
from benchmarks.scaling_plan import H100, Plan, large_sizes, plan, prospect
from benchmarks.scaling_workers import Timed, _apart
from editors.contract import EditBatch, UpdateRequest
from editors.crew import Alone
from editors.loading import Checkpoint, load
from editors.patch import LowRank, Patch
from tests.tiny import tiny_folder, tiny_tokenizer

D, F, LAYERS = 8192, 28672, 5
NORMS = D * (2 * 80 + 1)


@pytest.fixture(scope="module")
def by_size() -> dict[int, Plan]:
    requests = tuple(UpdateRequest(id=str(number), prompt="{} is known for", subject=f"The Louvre {number}", target="red")
                     for number in range(16))
    batch = EditBatch(purpose="update", base_digest="0" * 64, parent_digest="0" * 64, requests=requests)
    ahead = prospect(large_sizes(), tiny_tokenizer(), batch)
    assert ahead.layers == (8, 11, 13, 16, 19)
    return {size: plan(ahead, size, 40_000) for size in (10_000, 40_000)}


def test_the_model_is_as_large_as_it_is_published() -> None:
    assert large_sizes().model_bytes / 2 + NORMS == 70_553_706_496


def test_a_search_takes_the_same_in_any_batches(by_size: dict[int, Plan]) -> None:
    assert by_size[10_000].flops["search"] == pytest.approx(by_size[40_000].flops["search"])


def test_the_solve_is_that_of_the_closed_form(by_size: dict[int, Plan]) -> None:
    keys = 40_000
    # whitening all keys and the answer, the gram matrix and the solve by its factor, the factor, and the update
    by_hand = F ** 2 * 2 * keys + 2 * F ** 2 * keys + 2 * F ** 2 * keys + F ** 3 / 3 + 2 * D * F * keys
    assert by_size[keys].flops["solving"] == pytest.approx(LAYERS * by_hand)


def test_each_release_asks_again_what_holds(by_size: dict[int, Plan]) -> None:
    assert by_size[10_000].flops["measuring"] == pytest.approx((1 + 2 + 3 + 4) / 4 * by_size[40_000].flops["measuring"])


def test_only_what_is_shared_takes_less_time_on_more_gpus(by_size: dict[int, Plan]) -> None:
    one = by_size[10_000]
    assert one.gpus_a_worker >= one.model_bytes / H100.memory_bytes
    shared = one.stages["search"] + one.stages["measuring"]
    assert one.hours(one.gpus_a_worker) == pytest.approx(sum(one.stages.values()))
    assert one.hours(10 * one.gpus_a_worker) == pytest.approx(sum(one.stages.values()) - 0.9 * shared)


def test_a_crews_clock_keeps_results_and_order(tmp_path: Path) -> None:
    timed, model = Timed(Alone()), load(Checkpoint(tiny_folder(tmp_path)), "cpu")
    assert list(timed.carry_out(lambda _, part: part ** 2, model, [3, 1, 2])) == [9, 1, 4]
    assert (timed.parts, len(timed.spent)) == (3, 1)


def test_updates_are_compared_in_units_of_the_largest() -> None:
    one, two = (Patch((LowRank("w", torch.tensor([[2.0], [1.0]]), torch.tensor([[value, 1.0]])),), {}) for value in (4.0, 4.5))
    assert _apart(one, [], two, []) == pytest.approx(1 / 8)


def test_a_missing_fuzzer_says_what_to_type(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "atheris", None)
    assert fuzz([]) == 0
    assert "type `make setup`" in " ".join(capsys.readouterr().out.split())
