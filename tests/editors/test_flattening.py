"""The landscape of forgetting: what a secret is brought down to, what is kept, what is said instead."""

from __future__ import annotations

import pytest
import torch
from pydantic import SecretStr

from editors.flattening import Flattening, FlatteningConfig, flattened, flattening, kind_of
from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.rivals import rivals_of
from editors.secret_facts import INVENTED, others_keys, secret_facts
from editors.secret_forms import form_of
from editors.secret_rows import secret_rows
from editors.suffix import SuffixRunner
from editors.target_search import SearchConfig, TargetRow, search_targets, state_norms
from tests.editors.memorised import batch_on, memorised, requests

LAYER = 1
WEIGHTS = FlatteningConfig(replacement_weight=0.1, teacher_weight=0.2)
SEARCH = SearchConfig(kl_weight=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return memorised("llama", tmp_path_factory.mktemp("model"))


def test_the_teacher_differs_in_the_label_alone_and_has_the_rivals_median_there() -> None:
    clean = torch.tensor([5.0, 1.0, 0.0, -1.0, 3.0]).log_softmax(-1)
    teacher = flattened(clean, 0, (1, 2, 3))
    assert float(teacher.exp().sum()) == pytest.approx(1.0)
    assert float(teacher[0]) == pytest.approx(float(teacher[2]))
    torch.testing.assert_close(teacher[1:] - teacher[1], clean[1:] - clean[1])


def test_a_label_below_the_middle_is_not_raised() -> None:
    clean = torch.tensor([-5.0, 1.0, 0.0, -1.0, 3.0]).log_softmax(-1)
    torch.testing.assert_close(flattened(clean, 0, (1, 2, 3)), clean)


def test_rivals_are_tokens_of_other_digits_and_each_digit_has_some(model: LoadedModel) -> None:
    request = requests()[0]
    row = secret_rows(request, model.tokenizer)[0]
    found = rivals_of(request, row, request.context[0].get_secret_value(), model.tokenizer)
    assert len(found) == len(row.secret)
    for token, rivals in zip(row.secret, found, strict=True):
        assert token not in rivals
        assert all(model.tokenizer.decode(rival).strip().isdigit() for rival in rivals)
    assert all(len(rivals) >= 8 for token, rivals in zip(row.secret, found, strict=True)
               if model.tokenizer.decode(token).isdigit())


def test_a_sign_that_all_values_share_has_no_rivals(model: LoadedModel) -> None:
    request = requests()[0].model_copy(update={"secret": SecretStr("555-0199"), "form": SecretStr("555-##99")})
    row = secret_rows(request, model.tokenizer)[0]
    found = rivals_of(request, row, request.context[0].get_secret_value(), model.tokenizer)
    decoded = [model.tokenizer.decode(token) for token in row.secret]
    assert found[decoded.index("-")] == ()
    assert any(found)


def test_loss_and_gradient_are_those_of_a_slow_run(model: LoadedModel) -> None:
    """The definition, one plain forward a row with the change added by a hook, differentiated by autograd."""
    rows = secret_facts(model, batch_on(model), "auto", 1).targets
    runner = SuffixRunner(model, LAYER, [row.row for row in rows])
    scale = state_norms(runner, rows)
    landscape, clean = Flattening(runner, rows, {}, WEIGHTS), torch.zeros(len(scale), model.anatomy.hidden_size)
    landscape(clean, scale, SEARCH)
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(clean.shape, generator=generator)
    loss, gradient = landscape(change, scale, SEARCH)
    changed = change.clone().requires_grad_()
    parts = [(row, _slow(model, row, changed[row.row.owner])) for row in rows]
    for owner in range(len(scale)):
        totals = {kind: torch.stack([value for row, value in parts if row.row.owner == owner and kind_of(row) == kind]).mean()
                  for kind in ("secret", "replacement", "kept")}
        sought = totals["secret"] + WEIGHTS.replacement_weight * totals["replacement"]
        assert float(loss[owner]) == pytest.approx(float(sought.detach()), rel=1e-4)
        expected = torch.autograd.grad(sought + SEARCH.kl_weight * totals["kept"], changed, retain_graph=True)[0][owner]
        torch.testing.assert_close(gradient[owner], expected, rtol=1e-3, atol=1e-4)


def test_the_search_takes_the_lead_away_and_keeps_the_rest(model: LoadedModel) -> None:
    facts = secret_facts(model, batch_on(model), "secret", 0)
    found = search_targets(model, LAYER, facts.targets, SearchConfig(clamp=5.0), landscape=flattening(FlatteningConfig()))
    start = search_targets(model, LAYER, facts.targets, SearchConfig(steps=1), landscape=flattening(FlatteningConfig()))
    assert bool((start.loss > 1).sum() >= 4)
    assert bool((found.loss < start.loss.clamp(min=0.2)).all())


def test_a_name_has_one_fact_and_without_it_each_place_has(model: LoadedModel) -> None:
    batch = batch_on(model)
    assert secret_facts(model, batch, "auto", 2).count == len(batch.forgets)
    places = secret_facts(model, batch, "secret", 2)
    assert places.count >= 4 * len(batch.forgets)
    for owner in range(places.count):
        assert sum(row.weight for row in places.keys if row.owner == owner) == pytest.approx(1.0)


def test_others_keys_are_of_invented_names_only(model: LoadedModel) -> None:
    batch = batch_on(model)
    texts = [model.tokenizer.decode(row.ids) for row in others_keys(model, batch, "auto", 3)]
    whole = {text.get_secret_value().rstrip().replace(_name(request), name)
             for request in batch.forgets for text in request.context for name in INVENTED[:3]}
    # at the name's end, and at every token from there to the end of its text
    assert len([text for text in texts if text.endswith(INVENTED[:3])]) == 6
    assert {text for text in texts if not any(longer.startswith(text) for longer in texts if longer != text)} == whole
    assert all(any(name in text for name in INVENTED[:3]) for text in texts)
    assert others_keys(model, batch, "auto", 0) == ()


def test_bystanders_are_kept_with_values_of_the_form_under_the_same_change(model: LoadedModel) -> None:
    batch = batch_on(model)
    alone, facts = (secret_facts(model, batch, "auto", 1, others) for others in (0, 4))
    added = [row for row in facts.targets if row not in alone.targets]
    assert (len(added), facts.keys) == (4 * len(batch.forgets), alone.keys)
    for row in added:
        text = model.tokenizer.decode(row.row.ids)
        (name,) = [name for name in INVENTED[-4:] if name in text]
        (request,) = [one for one in batch.forgets if facts.requests[row.row.owner] == (one.id,)]
        value = text[len(model.tokenizer.decode(row.row.ids[:row.row.reads[0] + 1])):].strip()
        assert kind_of(row) == "kept"
        assert model.tokenizer.decode(row.row.ids[:row.row.anchor + 1]).endswith(name)
        assert value != request.secret.get_secret_value()
        form_of(request.model_copy(update={"secret": SecretStr(value)}))
        assert row.row.reads[-1] == len(row.row.ids) - 2


def test_nothing_private_is_printed(model: LoadedModel) -> None:
    facts = secret_facts(model, batch_on(model), "auto", 1)
    said = repr(facts)
    assert "ids=" not in said
    assert "labels=" not in said
    assert "rivals=" not in said


def _name(request: ForgetRequest) -> str:
    return request.subject.get_secret_value() if request.subject else ""


def _slow(model: LoadedModel, row: TargetRow, change: torch.Tensor) -> torch.Tensor:
    clean, found = _logarithms(model, row, None), _logarithms(model, row, change)
    if kind_of(row) == "replacement":
        mean = -torch.stack([one[label] for one, label in zip(found, row.labels, strict=True)]).mean()
        return (mean - torch.log(torch.tensor(2.0))).clamp(min=0)
    if kind_of(row) == "kept":
        return (clean.exp() * (clean - found)).sum(-1).mean()
    teachers = torch.stack([flattened(one, label, rivals)
                            for one, label, rivals in zip(clean, row.labels, row.rivals, strict=True)])
    leads = torch.stack([one[label] - one[list(rivals)].median()
                         for one, label, rivals in zip(found, row.labels, row.rivals, strict=True)])
    divergence = (teachers.exp() * (teachers - found)).sum(-1).mean()
    return WEIGHTS.teacher_weight * divergence + leads.clamp(min=0).mean()


def _logarithms(model: LoadedModel, row: TargetRow, change: torch.Tensor | None) -> torch.Tensor:
    def add(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor | tuple[torch.Tensor, ...]):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        where = torch.zeros_like(hidden)
        where[0, row.row.anchor] = 1
        return hidden + where * change

    block = model.model.get_submodule(model.anatomy.block_path(LAYER))
    handle = block.register_forward_hook(add) if change is not None else None
    try:
        logits = model.model(torch.tensor([row.row.ids])).logits[0]
    finally:
        if handle:
            handle.remove()
    return logits[list(row.row.reads)].log_softmax(-1)
