"""Bias tracing: which feed-forward modules and which attention heads carry a group from a term to the group word.

Each traced term is paired with a term of the other group, in the same template. What one module adds to the residual stream
at one token is then exchanged for what it adds in the other's run (causal mediation by interchange), everything above runs
again, and the effect is how far log P(first) - log P(second) goes towards the other term's. Every exchange is a sum: of an
FFN it moves the block's output, of attention, or of one head through its columns of the output projection, what the
attention module adds. So all exchanges of a layer are rows of few batches, which begin at that layer.

Source: Vig et al. 2020, "Causal Mediation Analysis for Interpreting Neural NLP: The Case of Gender Bias", arXiv:2004.12265;
Cai et al. 2024, arXiv:2403.14409, section 3. As every trace it explains, and picks no layer (Hase et al. 2023).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from editors.blocks import Walk, captured_input, pad, prefill
from editors.contract import Evidence, Progress, silent
from editors.debias_request import DebiasRequest
from editors.errors import ConfigError
from editors.leaning import Use, group_tokens, uses
from editors.loading import LoadedModel
from editors.locate.replay import answer_logits

TracedKind = Literal["mlp", "attention", "head"]
Role = Literal["term last", "prompt last"]
ROLES: tuple[Role, ...] = ("term last", "prompt last")
PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj")
"""What families call the matrix that joins the heads."""
RESAMPLES = 1000


@dataclass(frozen=True)
class BiasTraceConfig:
    """What to trace and how finely."""

    term_limit: int = 8
    """Of more terms so many are traced, evenly spaced. At least 1."""
    rows_at_once: int = 64
    """Rows of one batch; bounds the memory. At least 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("term_limit", "rows_at_once"):
            if getattr(self, name) < 1:
                raise ConfigError(f"bias_trace.{name} must be at least 1, got {getattr(self, name)}", f"set {name} to 8")


@dataclass(frozen=True)
class BiasCell:
    """One exchanged module: mean effect over pairs in nats, a 95% bootstrap interval over pairs, and its share of the whole
    difference between the two terms. `head` is None but for one head. With one pair there is no interval.
    """

    kind: TracedKind
    role: Role
    layer: int
    head: int | None
    effect: float
    low: float | None
    high: float | None
    share: float
    pairs: int


@dataclass(frozen=True)
class BiasTrace:
    """All cells, and the mean difference of log-odds between paired terms that they are shares of."""

    cells: tuple[BiasCell, ...]
    difference: float
    pairs: int


@dataclass(frozen=True)
class _Recorded:
    """Runs of N prompts. states (L + 1, N, T, D); what modules add at the two roles (L, N, 2, D); heads (L, N, H h)."""

    ids: tuple[tuple[int, ...], ...]
    places: Tensor
    states: Tensor
    mlp: Tensor
    attention: Tensor
    heads: Tensor
    lean: Tensor


@torch.inference_mode()
def trace_bias(model: LoadedModel, request: DebiasRequest, config: BiasTraceConfig | None = None,
               progress: Progress = silent) -> BiasTrace:
    """Trace the request's terms in its first template; the model is unchanged.

    Raises:
        ConfigError: no two terms lean to different groups.
        SheetError: the group words begin with one token.
    """
    config = config or BiasTraceConfig()
    groups = group_tokens(request, model)
    count = min(config.term_limit, len(request.terms))
    chosen = [request.terms[place * len(request.terms) // count].term for place in range(count)]
    others = [term.term for term in request.definitional] or [term.term for term in request.terms]
    own, other = (_record(model, [_use(model, request, term) for term in terms], groups) for terms in (chosen, others))
    pairs = _pairs(own.lean, other.lean)
    if not pairs:
        raise ConfigError("no two of the terms lean differently, so nothing can be exchanged",
                          "name definitional terms of both groups, or go without this evidence: `locate: false`")
    effects = dict[tuple[TracedKind, Role, int, int | None], Tensor]()
    rows = torch.tensor([mine for mine, _ in pairs]), torch.tensor([theirs for _, theirs in pairs])
    gap = (other.lean[rows[1]] - own.lean[rows[0]]).cpu()
    for layer in range(model.anatomy.layer_count):
        progress("tracing bias", layer, model.anatomy.layer_count)
        found = _exchanged(model, own, other, rows, layer, groups, config.rows_at_once)
        effects.update({(*cell, layer, head): lean - own.lean[rows[0]].cpu() for (*cell, head), lean in found})
    progress("tracing bias", model.anatomy.layer_count, model.anatomy.layer_count)
    cells = tuple(_cell(key, effect * gap.sign(), gap.abs(), config.seed) for key, effect in effects.items())
    return BiasTrace(cells, float(gap.abs().mean()), len(pairs))


def write_bias_evidence(found: BiasTrace, folder: Path, edit_layers: Sequence[int] = ()) -> tuple[Evidence, ...]:
    """Write the table and the picture into `folder`; their names in it. Neither holds a term."""
    from editors.locate.bias_picture import draw_bias

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bias_trace.csv").write_text(as_bias_csv(found), encoding="utf-8")
    draw_bias(found, folder / "bias_trace.png", edit_layers)
    said = f"{found.pairs} pairs of terms"
    whole, head = (max((one for one in found.cells if (one.kind == "head") == is_head), key=lambda one: one.effect)
                   for is_head in (False, True))
    alt = ("Lines over layers for feed-forward and attention modules, and a map of every head over layers: what share of the "
           f"terms' difference each carries. Most: {whole.kind} of layer {whole.layer} at the {whole.role}, {whole.share:.0%}, "
           f"and head {head.head} of layer {head.layer}, {head.share:.0%}.")
    return (Evidence(kind="table", path="bias_trace.csv", title=f"What carries the group, by module and head, {said}"),
            Evidence(kind="picture", path="bias_trace.png", title=f"Bias trace, {said}", alt=alt))


def as_bias_csv(found: BiasTrace) -> str:
    """The cells as CSV text with a header, the largest effect first; an absent value is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in fields(BiasCell))
    writer.writerows(astuple(cell) for cell in sorted(found.cells, key=lambda cell: -cell.effect))
    return stream.getvalue()


def _use(model: LoadedModel, request: DebiasRequest, term: str) -> Use:
    return next(uses(request, term, model, 0))


def _pairs(own: Tensor, other: Tensor) -> list[tuple[int, int]]:
    """For each term one of the others on the other side of their middle, in turn; a term without such a one is left out.

    A model may lean to one group with every term, so a side is which of two terms leans further.
    """
    middle = float((other.max() + other.min()) / 2)
    sides = {side: [place for place, lean in enumerate(other.tolist()) if (lean > middle) == side] for side in (True, False)}
    return [(place, against[place % len(against)]) for place, lean in enumerate(own.tolist())
            if (against := sides[not lean > middle])]


def _record(model: LoadedModel, prompts: Sequence[Use], groups: tuple[int, int]) -> _Recorded:
    """Run the prompts once, block by block."""
    batch = pad([use.encoded.ids for use in prompts], model.device)
    walk, count = prefill(model, batch), len(prompts)
    places = torch.stack([torch.tensor([use.encoded.anchor for use in prompts], device=model.device), batch.lengths - 1], dim=1)
    rows = torch.arange(count, device=model.device)
    states, mlp, attention, heads = [walk.entry], list[Tensor](), list[Tensor](), list[Tensor]()
    for layer in range(model.anatomy.layer_count):
        with _captured_output(model, model.anatomy.mlp_path(layer)) as fed, \
                _captured_output(model, model.anatomy.attention_path(layer)) as attended, \
                captured_input(_projection(model, layer)) as joined:
            states.append(walk.run(states[-1], layer, layer))
        shape = states[-1].shape
        mlp.append(fed[0].reshape(shape)[rows[:, None], places])
        attention.append(attended[0].reshape(shape)[rows[:, None], places])
        heads.append(joined[0].reshape(*shape[:2], -1)[rows, batch.lengths - 1])
    lean = _lean(model, states[-1][rows, batch.lengths - 1], groups)
    return _Recorded(tuple(use.encoded.ids for use in prompts), places, torch.stack(states), torch.stack(mlp),
                     torch.stack(attention), torch.stack(heads), lean)


def _exchanged(model: LoadedModel, own: _Recorded, other: _Recorded, pairs: tuple[Tensor, Tensor], layer: int,
               groups: tuple[int, int], rows_at_once: int) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """(kind, role, head) and the lean (P,) of every pair after that exchange, for all modules of one layer."""
    mine, theirs = pairs
    moves: list[tuple[tuple[Any, ...], Tensor]] = []
    for place, role in enumerate(ROLES):
        moves.append((("mlp", role, None), other.mlp[layer, theirs, place] - own.mlp[layer, mine, place]))
        moves.append((("attention", role, None), other.attention[layer, theirs, place] - own.attention[layer, mine, place]))
    moves += [(("head", "prompt last", head), move)
              for head, move in enumerate(_head_moves(model, layer, other.heads[layer, theirs] - own.heads[layer, mine]))]
    size = max(1, rows_at_once // len(mine))
    for begin in range(0, len(moves), size):
        part = moves[begin:begin + size]
        leans = _run_exchanged(model, own, mine, layer, part, groups)
        yield from ((key, lean) for (key, _), lean in zip(part, leans.cpu(), strict=True))


def _run_exchanged(model: LoadedModel, own: _Recorded, mine: Tensor, layer: int,
                   moves: Sequence[tuple[tuple[Any, ...], Tensor]], groups: tuple[int, int]) -> Tensor:
    """Leans (M, P) with each move added, for M exchanges of P pairs."""
    ids = [own.ids[place] for place in mine.tolist()]
    batch = pad(ids * len(moves), model.device)
    walk: Walk = prefill(model, batch)
    width, rows = batch.ids.shape[1], torch.arange(len(batch.ids), device=model.device)
    hidden = own.states[layer][mine, :width].repeat(len(moves), 1, 1)
    before, after = torch.zeros_like(hidden), torch.zeros_like(hidden)
    for number, ((kind, role, _), move) in enumerate(moves):
        part = rows[number * len(ids):(number + 1) * len(ids)]
        (after if kind == "mlp" else before)[part, own.places[mine, ROLES.index(role)]] = move
    with _adding(model, layer, before):
        hidden = walk.run(hidden, layer, layer) + after
    hidden = walk.run(hidden, layer + 1, model.anatomy.layer_count - 1)
    return _lean(model, hidden[rows, batch.lengths - 1], groups).reshape(len(moves), len(ids))


def _head_moves(model: LoadedModel, layer: int, difference: Tensor) -> list[Tensor]:
    """What each head's part of a difference before the projection (P, H h) is after it: (P, D) a head."""
    weight: Tensor = _projection(model, layer).get_parameter("weight")
    weight = weight if model.anatomy.layout == "in_out" else weight.T
    heads = int(model.model.config.num_attention_heads)
    return [part @ rows for part, rows in zip(difference.chunk(heads, dim=-1), weight.chunk(heads), strict=True)]


def _projection(model: LoadedModel, layer: int) -> torch.nn.Module:
    attention = model.model.get_submodule(model.anatomy.attention_path(layer))
    return next(child for name, child in attention.named_modules() if name.rpartition(".")[2] in PROJECTIONS)


def _lean(model: LoadedModel, hidden: Tensor, groups: tuple[int, int]) -> Tensor:
    logits = answer_logits(model, hidden)
    return logits[:, groups[0]] - logits[:, groups[1]]


@contextmanager
def _captured_output(model: LoadedModel, path: str) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    handle = model.model.get_submodule(path).register_forward_hook(
        lambda _, __, output: found.append(output[0] if isinstance(output, tuple) else output))
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def _adding(model: LoadedModel, layer: int, change: Tensor) -> Iterator[None]:
    """Inside the block, `change` (B, T, D) is added to what the layer's attention gives."""
    def hook(_: torch.nn.Module, __: Any, output: Any) -> Any:
        return (output[0] + change, *output[1:]) if isinstance(output, tuple) else output + change

    adder: Callable[..., Any] = hook
    handle = model.model.get_submodule(model.anatomy.attention_path(layer)).register_forward_hook(adder)
    try:
        yield
    finally:
        handle.remove()


def _cell(key: tuple[TracedKind, Role, int, int | None], effects: Tensor, gaps: Tensor, seed: int) -> BiasCell:
    """`effects` (P,): how far each pair's log-odds went towards the other term's; `gaps` (P,): how far that is away."""
    kind, role, layer, head = key
    values = effects.double().numpy()
    low = high = None
    if len(values) > 1:
        draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
        low, high = (round(float(edge), 6) for edge in np.percentile(values[draws].mean(axis=1), [2.5, 97.5]))
    return BiasCell(kind, role, layer, head, round(float(values.mean()), 6), low, high,
                    round(float(values.mean() / gaps.double().mean()), 6), len(values))
