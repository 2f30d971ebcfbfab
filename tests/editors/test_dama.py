"""DAMA: partial least squares against another implementation, and what a projection is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.dama import Dama, DamaConfig, two_sided, whitened
from editors.errors import ConfigError
from editors.keys import KeyReader
from editors.leaning import factual_uses, leaning_facts
from editors.loading import Checkpoint, LoadedModel, load
from editors.partial_least_squares import covarying_directions, without
from editors.patch import LowRank
from editors.target_search import SearchConfig
from tests.editors.leaning import leaning_batch
from tests.editors.plans import at, delta_of
from tests.tiny import FAMILIES, HIDDEN, tiny_folder

SEARCH = SearchConfig(steps=5, kl_weight=0.0)
PLAIN = DamaConfig(rank=2, keep_factual=0, search=SEARCH)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


def weight_of(model: LoadedModel, layer: int) -> torch.Tensor:
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(layer)).detach().double()
    return weight if model.anatomy.layout == "out_in" else weight.T


def test_directions_span_what_scikit_learn_finds() -> None:
    from sklearn.cross_decomposition import PLSRegression

    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    companions = vectors @ torch.randn(8, 5, generator=generator, dtype=torch.float64) + 0.3 * torch.randn(
        30, 5, generator=generator, dtype=torch.float64)
    fitted = PLSRegression(n_components=3, scale=False, tol=1e-14, max_iter=100000).fit(vectors.numpy(), companions.numpy())
    expected = torch.linalg.qr(torch.from_numpy(fitted.x_weights_.copy()))[0]
    found = covarying_directions(vectors, companions, 3)
    torch.testing.assert_close(found @ found.T, expected @ expected.T, rtol=0, atol=1e-6)


def test_directions_are_no_more_than_the_data_hold() -> None:
    vectors = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    assert covarying_directions(vectors, vectors, 9).shape[1] <= 3
    assert covarying_directions(vectors, torch.ones(4, 2), 3).shape[1] == 0


def test_what_is_kept_is_taken_out_of_the_directions() -> None:
    basis = torch.linalg.qr(torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    rest = without(basis[:, :3], basis[:, 2:])
    assert rest.shape[1] == 2
    torch.testing.assert_close(rest.T @ basis[:, 2:], torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_matrix_is_projected_orthogonally_and_twice_is_once(model: LoadedModel, tmp_path: Path) -> None:
    edit = Dama(PLAIN).plan(model, leaning_batch(model), at(2), tmp_path).edits[0]
    assert isinstance(edit, LowRank)
    assert edit.left.shape[1] == 2
    weight = weight_of(model, 2)
    changed = weight + delta_of(model, edit)
    directions = edit.left.double() if model.anatomy.layout == "out_in" else edit.right.double().T
    projector = torch.eye(HIDDEN, dtype=torch.float64) - directions @ directions.T
    torch.testing.assert_close(projector @ projector, projector, rtol=0, atol=1e-6)
    torch.testing.assert_close(projector, projector.T)
    torch.testing.assert_close(changed, projector @ weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(projector @ changed, changed, rtol=1e-4, atol=1e-4)


def test_the_factual_directions_give_what_they_gave(model: LoadedModel, tmp_path: Path) -> None:
    config = DamaConfig(rank=3, keep_factual=1, search=SEARCH)
    edit = Dama(config).plan(model, leaning_batch(model), at(2), tmp_path).edits[0]
    rows, scores = factual_uses(model, leaning_batch(model), "prompt_last")
    outputs = KeyReader(model, rows, 2).read(2)[0].T.double() @ weight_of(model, 2).T
    kept = covarying_directions(outputs, scores, 1)
    assert float((kept.T @ delta_of(model, edit)).abs().max()) < 1e-4 * float(delta_of(model, edit).abs().max())


def test_each_term_is_searched_once_for_either_group(model: LoadedModel) -> None:
    facts = leaning_facts(model, leaning_batch(model), 0, "prompt_last")
    rows = two_sided(facts).targets
    assert len(rows) == 2 * len(facts.targets)
    assert {row.row.owner for row in rows} == set(range(2 * facts.count))
    assert all(row.labels == facts.targets[place].labels[:1] for place, row in enumerate(rows[:len(facts.targets)]))


def test_whitening_is_the_printed_product() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, text = torch.randn(4, 6, generator=generator), torch.randn(40, 6, generator=generator).double()
    moment = text.T @ text / 40
    expected = keys.double() @ torch.linalg.inv(3 * moment + keys.double().T @ keys.double())
    torch.testing.assert_close(whitened(keys, moment, 3.0), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("option", "value"), [("rank", 0), ("keep_factual", -1), ("whitening_weight", -1)])
def test_an_option_outside_its_range_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"dama.{option} must be in"):
        Dama.from_options({option: value})


def test_another_token_is_refused_with_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="prompt_last or term_last"):
        Dama.from_options({"read_at": "first"})
