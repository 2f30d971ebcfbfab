"""The landscape of equal odds against its definition, and where a search on it ends."""

from __future__ import annotations

import pytest
import torch

from editors.equalising import Equalising, pooled, unevenness
from editors.errors import SheetError
from editors.leaning import BEFORE, definitional_keys, group_tokens, leaning_facts
from editors.loading import Checkpoint, LoadedModel, load
from editors.suffix import SuffixRunner
from editors.target_search import SearchConfig, TargetRow, search_targets, state_norms
from tests.editors.leaning import REQUEST, leaning_batch
from tests.tiny import FAMILIES, tiny_folder

LAYER = 1
SEARCH = SearchConfig(kl_weight=0.5, stop_loss=1e-3, clamp=20.0, steps=60)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


def test_level_odds_cost_nothing_and_others_what_their_divergence_is() -> None:
    lean = torch.tensor([0.0, 1.0, -1.0, 30.0])
    share = torch.sigmoid(lean.double())
    expected = -0.5 * (2 * share).log() - 0.5 * (2 * (1 - share)).log()
    torch.testing.assert_close(unevenness(lean).double(), expected, rtol=1e-4, atol=1e-6)


def test_a_pair_is_one_event() -> None:
    clean = torch.tensor([[3.0, 1.0, 0.0, 2.0]]).log_softmax(-1)
    together = pooled(clean, torch.tensor([[0, 3]])).exp()
    assert float(together.sum()) == pytest.approx(1.0)
    assert float(together[0, 3]) == pytest.approx(float(clean.exp()[0, 0] + clean.exp()[0, 3]))
    assert float(together[0, 0]) == 0.0


def test_loss_and_gradient_are_those_of_a_slow_run(model: LoadedModel) -> None:
    """The definition, one plain forward a row with the change added by a hook, differentiated by autograd."""
    rows = leaning_facts(model, leaning_batch(model), 1).targets
    runner = SuffixRunner(model, LAYER, [row.row for row in rows])
    scale = state_norms(runner, rows)
    landscape = Equalising(runner, rows, {})
    landscape(torch.zeros(len(scale), model.anatomy.hidden_size), scale, SEARCH)
    change = 0.3 * torch.randn(len(scale), model.anatomy.hidden_size, generator=torch.Generator().manual_seed(0))
    loss, gradient = landscape(change, scale, SEARCH)
    changed = change.clone().requires_grad_()
    for owner in range(len(scale)):
        own = [row for row in rows if row.row.owner == owner]
        said = [_logarithms(model, row, changed[owner]) for row in own]
        before = [_logarithms(model, row, None) for row in own]
        lean = torch.stack([one[row.labels[0]] - one[row.labels[1]] for row, one in zip(own, said, strict=True)]).mean()
        share = torch.sigmoid(lean)
        pair = -0.5 * (2 * share).log() - 0.5 * (2 * (1 - share)).log()
        kept = torch.stack([_besides(row, was, now) for row, was, now in zip(own, before, said, strict=True)]).mean()
        assert float(loss[owner]) == pytest.approx(float(pair.detach()), rel=1e-3, abs=1e-5)
        expected = torch.autograd.grad(pair + SEARCH.kl_weight * kept, changed)[0][owner]
        torch.testing.assert_close(gradient[owner], expected, rtol=2e-3, atol=1e-4)


def test_a_search_levels_the_groups_as_it_says(model: LoadedModel) -> None:
    rows = leaning_facts(model, leaning_batch(model), 0).targets
    config = SearchConfig(kl_weight=0.0, stop_loss=1e-3, clamp=20.0, steps=40, learning_rate=0.05)
    runner = SuffixRunner(model, LAYER, [row.row for row in rows])
    scale = state_norms(runner, rows)
    before = Equalising(runner, rows, {})(torch.zeros(len(scale), model.anatomy.hidden_size), scale, config)[0]
    found = search_targets(model, LAYER, rows, config, landscape=Equalising)
    assert float(found.loss.sum()) < 0.9 * float(before.sum())
    for owner in range(len(scale)):
        said = [(row, _logarithms(model, row, found.change[owner])) for row in rows if row.row.owner == owner]
        lean = torch.stack([one[row.labels[0]] - one[row.labels[1]] for row, one in said]).mean().detach()
        assert float(unevenness(lean)) == pytest.approx(float(found.loss[owner]), rel=1e-2, abs=1e-5)


def test_a_term_is_one_fact_and_definitional_terms_are_none(model: LoadedModel) -> None:
    twice = REQUEST.model_copy(update={"id": "again", "terms": REQUEST.terms[:1]})
    facts = leaning_facts(model, leaning_batch(model, REQUEST, twice), 2)
    assert facts.requests == (("posts", "again"), ("posts",), ("posts",), ("posts",))
    assert sum(row.weight for row in facts.keys if row.owner == 1) == pytest.approx(1.0)
    kept = definitional_keys(model, leaning_batch(model), 0)
    assert len(kept) == len(REQUEST.definitional)
    assert not {row.ids for row in kept} & {row.ids for row in facts.keys}


def test_a_term_that_opens_a_sequence_is_a_fact_of_its_own(model: LoadedModel) -> None:
    first = REQUEST.model_copy(update={"templates": ("{} said that",), "terms": REQUEST.terms[:1]})
    opening = len(model.tokenizer(REQUEST.terms[0].term)["input_ids"]) == 1
    facts = leaning_facts(model, leaning_batch(model, first), len(BEFORE))
    assert facts.count == 1 + opening


def test_group_words_that_begin_alike_are_refused(model: LoadedModel) -> None:
    alike = REQUEST.model_copy(update={"groups": ("he", "he is")})
    with pytest.raises(SheetError, match="begin with the same token"):
        group_tokens(alike, model)


def _logarithms(model: LoadedModel, row: TargetRow, change: torch.Tensor | None) -> torch.Tensor:
    def shift(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        mask = torch.zeros(hidden.shape[1], 1)
        mask[row.row.anchor] = 1
        moved = hidden + (0.0 if change is None else mask * change)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = model.model.get_submodule(model.anatomy.block_path(LAYER)).register_forward_hook(shift)
    try:
        return model.model(torch.tensor([row.row.ids])).logits[0, row.row.reads[0]].log_softmax(-1)
    finally:
        handle.remove()


def _besides(row: TargetRow, was: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """KL of all but the pair, and the pair as one event."""
    others = [token for token in range(len(was)) if token not in row.labels]
    pair = list(row.labels)
    whole = [torch.cat([one[others], one[pair].logsumexp(0)[None]]) for one in (was.detach(), now)]
    return (whole[0].exp() * (whole[0] - whole[1])).sum()
