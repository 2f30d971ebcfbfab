"""A patch as a value: factors or dense, whichever is smaller, and read without this package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editors.errors import IntegrityError
from editors.patch import LOADER_EXAMPLE, Dense, LowRank, Patch, Scale, edited_tensor, load_patch, smaller
from tests.tiny import tiny_model

DOWN = "model.layers.{}.mlp.down_proj.weight"


def factors(rows: int, rank: int, columns: int, seed: int = 0) -> LowRank:
    draw = torch.Generator().manual_seed(seed)
    return LowRank(DOWN.format(0), torch.randn(rows, rank, generator=draw), torch.randn(rank, columns, generator=draw))


@pytest.mark.parametrize(("rows", "columns", "border"), [(6, 12, 4), (12, 6, 4), (32, 64, 21)])
def test_dense_exactly_where_the_factors_hold_more_numbers(rows: int, columns: int, border: int) -> None:
    kept, dense = smaller(factors(rows, border, columns)), smaller(factors(rows, border + 1, columns))
    assert border * (rows + columns) <= rows * columns < (border + 1) * (rows + columns)
    assert isinstance(kept, LowRank)
    assert kept.left.numel() + kept.right.numel() <= rows * columns
    assert isinstance(dense, Dense)
    assert dense.change.dtype == torch.float32
    expected = factors(rows, border + 1, columns)
    by_hand = sum(torch.outer(expected.left[:, one].double(), expected.right[one].double()) for one in range(border + 1))
    torch.testing.assert_close(dense.change.double(), by_hand, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loader_without_this_package_gives_the_same_bits(dtype: torch.dtype, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(4)
    patch = Patch((factors(32, 3, 64), Dense(DOWN.format(1), torch.randn(32, 64, generator=draw)),
                   Scale(DOWN.format(2), torch.tensor([9, 2]), torch.tensor([0.5, 3.0]), axis=1),
                   # two edits of one parameter are one sum and one cast
                   Dense(DOWN.format(0), torch.randn(32, 64, generator=draw)),
                   Scale(DOWN.format(0), torch.tensor([0, 7]), torch.tensor([0.1, 1.7]), axis=0)),
                  memory={f"keys.{DOWN.format(0)}": torch.randn(64, 3, generator=draw)})
    patch.save(tmp_path)
    model = tiny_model().to(dtype)
    before = {name: model.get_parameter(name).detach().clone() for name in patch.parameters}
    monkeypatch.chdir(tmp_path)
    exec(LOADER_EXAMPLE, {"model": model})  # as a reader would paste it
    for name, weight in before.items():
        expected = edited_tensor(name, weight, [load_patch(tmp_path)])
        assert torch.equal(model.get_parameter(name), expected)
        assert not torch.equal(expected, weight)


@pytest.mark.parametrize("part", ["tensors_sha256", "provenance"])
def test_a_patch_that_lacks_a_part_is_an_integrity_error(tmp_path: Path, part: str) -> None:
    Patch((LowRank("w", torch.ones(2, 1), torch.ones(1, 2)),), {"method": "rome"}).save(tmp_path)
    document = json.loads((tmp_path / "patch.json").read_text())
    del document[part]
    (tmp_path / "patch.json").write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match=f"cannot be read: '{part}'"):
        load_patch(tmp_path)
