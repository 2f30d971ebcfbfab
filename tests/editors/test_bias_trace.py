"""Bias tracing against the plain way: one whole run with a hook for every exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from editors.debias_request import Term
from editors.errors import ConfigError
from editors.loading import Checkpoint, LoadedModel, load
from editors.locate.bias_trace import BiasCell, BiasTraceConfig, _pairs, as_bias_csv, trace_bias, write_bias_evidence
from tests.editors.leaning import REQUEST
from tests.editors.plans import is_unchanged, state_of
from tests.tiny import FAMILIES, HEADS, tiny_folder

TEMPLATE = REQUEST.templates[0]
ONE = REQUEST.model_copy(update={"terms": REQUEST.terms[:2]})


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=3)))


def lean(model: LoadedModel, term: str, hooks: list[tuple[str, Any]]) -> float:
    first, second = (model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in REQUEST.groups)
    handles = [model.model.get_submodule(path).register_forward_hook(hook) for path, hook in hooks]
    try:
        with torch.no_grad():
            logits = model.model(torch.tensor([model.tokenizer(TEMPLATE.format(term))["input_ids"]])).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    return float(logits[first] - logits[second])


def adds(model: LoadedModel, term: str, path: str) -> torch.Tensor:
    """What a module gives (T, D) in the term's prompt."""
    seen: list[torch.Tensor] = []
    lean(model, term, [(path, lambda _, __, output: seen.append(output[0] if isinstance(output, tuple) else output))])
    return seen[0].reshape(-1, model.anatomy.hidden_size)


def place(model: LoadedModel, term: str, role: str) -> int:
    """Negative index of the token: the template's end is the same for all terms."""
    after = model.tokenizer(TEMPLATE.format(term))["input_ids"]
    offsets = model.tokenizer(TEMPLATE.format(term), return_offsets_mapping=True)["offset_mapping"]
    end = TEMPLATE.index("{}") + len(term)
    inside = [number for number, (start, stop) in enumerate(offsets) if start < end and stop > start]
    return -1 if role == "prompt last" else inside[-1] - len(after)


def exchanged(model: LoadedModel, term: str, other: str, path: str, role: str) -> float:
    theirs = adds(model, other, path)[place(model, other, role)]

    def hook(_module, _inputs, output):
        value = (output[0] if isinstance(output, tuple) else output).clone()
        value.view(-1, value.shape[-1])[place(model, term, role)] = theirs
        return (value, *output[1:]) if isinstance(output, tuple) else value

    return lean(model, term, [(path, hook)])


def test_every_exchange_equals_a_whole_run(model: LoadedModel) -> None:
    before = state_of(model)
    found = trace_bias(model, ONE)
    assert is_unchanged(model, before)
    own = [term.term for term in ONE.terms]
    other = [term.term for term in ONE.definitional]
    clean = {term: lean(model, term, []) for term in (*own, *other)}
    pairs = _pairs(torch.tensor([clean[term] for term in own]), torch.tensor([clean[term] for term in other]))
    assert found.pairs == len(pairs)
    for cell in (one for one in found.cells if one.kind != "head"):
        path = model.anatomy.mlp_path(cell.layer) if cell.kind == "mlp" else model.anatomy.attention_path(cell.layer)
        effects = []
        for mine, theirs in pairs:
            gap = clean[other[theirs]] - clean[own[mine]]
            now = exchanged(model, own[mine], other[theirs], path, cell.role)
            effects.append((now - clean[own[mine]]) * (1 if gap > 0 else -1))
        assert cell.effect == pytest.approx(sum(effects) / len(effects), abs=2e-3)


def test_heads_of_the_last_layer_add_up_to_their_module(model: LoadedModel) -> None:
    cells = trace_bias(model, ONE).cells
    heads = [cell for cell in cells if cell.kind == "head"]
    assert len(heads) == HEADS * model.anatomy.layer_count
    assert {cell.head for cell in heads} == set(range(HEADS))
    assert any(cell.effect != 0 for cell in heads)


def test_batches_of_any_size_give_the_same(model: LoadedModel) -> None:
    small, large = (trace_bias(model, REQUEST, BiasTraceConfig(rows_at_once=rows)) for rows in (1, 500))
    for one, two in zip(small.cells, large.cells, strict=True):
        assert (one.kind, one.role, one.layer, one.head) == (two.kind, two.role, two.layer, two.head)
        assert one.effect == pytest.approx(two.effect, abs=1e-3)


def test_table_and_picture_are_written_and_hold_no_term(model: LoadedModel, tmp_path: Path) -> None:
    found = trace_bias(model, REQUEST)
    evidence = write_bias_evidence(found, tmp_path, [1])
    assert [one.kind for one in evidence] == ["table", "picture"]
    text = (tmp_path / evidence[0].path).read_text()
    assert text.startswith("kind,role,layer,head,effect,low,high,share,pairs\n")
    assert text == as_bias_csv(found)
    assert len(text.splitlines()) == 1 + len(found.cells)
    assert "baker" not in text
    assert (tmp_path / evidence[1].path).stat().st_size > 1000


def test_one_pair_has_no_interval(model: LoadedModel) -> None:
    cells = trace_bias(model, REQUEST, BiasTraceConfig(term_limit=1)).cells
    assert isinstance(cells[0], BiasCell)
    assert cells[0].low is None


def test_a_term_alone_is_refused(model: LoadedModel) -> None:
    alone = REQUEST.model_copy(update={"terms": (Term(term="baker"),), "definitional": ()})
    with pytest.raises(ConfigError, match="no two of the terms lean differently"):
        trace_bias(model, alone)
    with pytest.raises(ConfigError, match="term_limit must be at least 1"):
        BiasTraceConfig(term_limit=0)
