"""Causal tracing: which hidden states carry the model's own answer.

The subject's embeddings are blurred with noise until the answer becomes unlikely; then one clean state at a time is put
back, and what it recovers of the answer's probability is its indirect effect. Restored are the output of a block
("state") or what the feed-forward ("mlp") or attention modules of a window of layers add, at one token.
Source: Meng et al. 2022, arXiv:2202.05262, section 2. Ours differs in three ways: the noise scale comes from the
batch's own subjects; the answer is the model's own choice at the first place where it departs from the wanted answer
(in a chat, "I'm " may be common to both); and a request without a subject has its whole question blurred.
Tracing explains and picks no layer: where an answer is recalled says little about where to edit it
(Hase et al. 2023, arXiv:2301.04213).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from editors.contract import Progress, UpdateRequest, silent
from editors.errors import ConfigError
from editors.loading import LoadedModel
from editors.locate.replay import (
    CONTRIBUTIONS,
    SEVERED,
    Kind,
    Replay,
    Run,
    answer_logits,
    record,
    restoration,
    scrambled,
)
from editors.prompts import encode, render

KINDS: tuple[Kind, ...] = ("state", *CONTRIBUTIONS, *SEVERED)
ROLES = ("subject first", "subject middle", "subject last", "following", "prompt last")
LAYERS_WANTED = 10


@dataclass(frozen=True)
class TraceConfig:
    """What to trace and how finely."""

    kinds: tuple[Kind, ...] = KINDS
    """Restored things; see `replay.Restoration`."""
    noise_samples: int = 3
    """Noise draws of each cell, from the seeds `seed`, `seed` + 1 ...; the authors take 10."""
    noise_scale: float = 3.0
    """Noise in standard deviations of the subjects' embeddings; the authors' s3."""
    window: int = 6
    """Layers restored together for "mlp" and "attention"; the authors' 10 of 48 is about this share of 30."""
    layer_stride: int | None = None
    """Every how many layers, the last always; None traces about 10 layers of a deep model, all of a shallow one."""
    request_limit: int = 4
    """Of a larger batch so many requests are traced, evenly spaced over it."""
    token_limit: int = 8
    """Traced tokens of one prompt: the subject's, then those after it, first and last of each kept."""
    rows_at_once: int = 192
    """Rows of one replayed batch; bounds the memory."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("noise_samples", "window", "layer_stride", "request_limit", "rows_at_once"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"trace.{name} must be at least 1, got {getattr(self, name)}")
        if self.token_limit < 4:
            raise ConfigError(f"trace.token_limit must be at least 4, got {self.token_limit}")
        if not self.noise_scale > 0:
            raise ConfigError(f"trace.noise_scale must be above 0, got {self.noise_scale}")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ConfigError(f"trace.kinds must name some of {', '.join(KINDS)}, got {list(self.kinds)}")


@dataclass(frozen=True)
class TracedPrompt:
    """A prompt ready to trace: token ids, the blurred span `first` to `last` (inclusive), and the positions to restore."""

    request: str
    ids: tuple[int, ...]
    first: int
    last: int
    positions: tuple[int, ...]

    @property
    def sites(self) -> tuple[int, ...]:
        """The subject's last token and the prompt's."""
        return tuple(dict.fromkeys((self.last, len(self.ids) - 1)))

    def positions_of(self, kind: Kind) -> tuple[int, ...]:
        """The positions at which `kind` is traced."""
        return self.sites if kind in SEVERED else self.positions

    def role(self, position: int) -> str:
        """What the token at `position` is to the prompt."""
        if position == self.last:
            return "subject last"
        if position == len(self.ids) - 1:
            return "prompt last"
        if position > self.last:
            return "following"
        return "subject first" if position == self.first else "subject middle"


@dataclass(frozen=True)
class RequestTrace:
    """One request's trace. `draws`: by kind (positions of the kind, layers, S) float32, P(answer) restored minus corrupted,
    for each noise draw; `control`: the same with random states, at the two sites.
    """

    prompt: TracedPrompt
    tokens: tuple[str, ...]
    """Text of each traced position's token."""
    answer: str
    """The token whose probability is followed: the model's own choice."""
    clean: float
    corrupted: float
    """Mean over the noise draws."""
    draws: Mapping[Kind, torch.Tensor]
    control: Mapping[Kind, torch.Tensor]

    @property
    def effects(self) -> dict[Kind, torch.Tensor]:
        """The indirect effects: `draws` averaged, by kind (positions of the kind, layers)."""
        return {kind: draws.mean(-1) for kind, draws in self.draws.items()}


@dataclass(frozen=True)
class TraceResult:
    """All traces of a batch, over the same layers."""

    traces: tuple[RequestTrace, ...]
    layers: tuple[int, ...]
    batch_size: int
    noise: float
    """Standard deviation of the noise."""
    config: TraceConfig


def trace(model: LoadedModel, requests: Sequence[UpdateRequest], config: TraceConfig | None = None,
          progress: Progress = silent) -> TraceResult:
    """Trace up to `config.request_limit` of the requests; the model is unchanged.

    Equal to the plain way, a whole run with hooks for every cell, to 1e-4 of probability.

    Raises:
        SheetError: a request has no place to blur (its subject is not in its prompt).
    """
    config = config or TraceConfig()
    with torch.inference_mode():
        wanted = min(config.request_limit, len(requests))
        chosen = [requests[index * len(requests) // wanted] for index in range(wanted)]
        noise = config.noise_scale * embedding_deviation(model, requests)
        count = model.anatomy.layer_count
        stride = config.layer_stride or max(1, count // LAYERS_WANTED)
        layers = tuple(sorted({*range(0, count, stride), count - 1}))
        traces = []
        for number, request in enumerate(chosen):
            progress("tracing", number, len(chosen))
            traces.append(_trace_request(model, prepare(model, request, config.token_limit), layers, noise, config))
        progress("tracing", len(chosen), len(chosen))
    return TraceResult(tuple(traces), layers, len(requests), noise, config)


def blurred_span(model: LoadedModel, request: UpdateRequest) -> tuple[tuple[int, ...], int, int, int]:
    """Token ids of prompt and wanted answer, the prompt's length, and the first and last token of subject or question."""
    prompt = render(request, model.tokenizer)
    words = request.subject or request.question.rstrip()
    end = prompt.anchor_end if prompt.anchor_end is not None else len(prompt.text)
    encoded = encode(prompt, model.tokenizer)
    first = encode(replace(prompt, anchor_end=end - len(words) + 1), model.tokenizer).anchor
    return encoded.ids, encoded.prompt_length, first, encoded.anchor


def embedding_deviation(model: LoadedModel, requests: Sequence[UpdateRequest]) -> float:
    """One standard deviation over every entry of the embeddings of all requests' subjects."""
    tokens: list[int] = []
    for request in requests:
        ids, _, first, last = blurred_span(model, request)
        tokens.extend(ids[first:last + 1])
    return float(_embed(model, tokens).float().std())


def prepare(model: LoadedModel, request: UpdateRequest, token_limit: int) -> TracedPrompt:
    """The request's prompt, continued by as much of the wanted answer as the model would say itself."""
    ids, length, first, last = blurred_span(model, request)
    run = record(model, _embed(model, ids))
    choices = answer_logits(model, run.states[-1, 0, length - 1:-1]).argmax(-1).tolist() if length < len(ids) else []
    departure = next((index for index, choice in enumerate(choices) if choice != ids[length + index]), 0)
    ids = ids[:length + departure]
    return TracedPrompt(request.id, ids, first, last, _positions(first, last, len(ids), token_limit))


def _positions(first: int, last: int, length: int, limit: int) -> tuple[int, ...]:
    """The subject's tokens and those after it, each thinned evenly where there are more than `limit` together."""
    subject, after = range(first, last + 1), range(last + 1, length)
    room = min(len(after), max(2, limit - len(subject)))
    return (*_thinned(subject, limit - room), *_thinned(after, room))


def _thinned(values: range, count: int) -> tuple[int, ...]:
    if len(values) <= count:
        return tuple(values)
    return tuple(values[round(index * (len(values) - 1) / (count - 1))] for index in range(count))


def _trace_request(model: LoadedModel, prompt: TracedPrompt, layers: Sequence[int], noise: float,
                   config: TraceConfig) -> RequestTrace:
    modules = [module for module in CONTRIBUTIONS if any(kind.startswith(module) for kind in config.kinds)]
    embeddings = _embed(model, prompt.ids)
    clean = record(model, embeddings, modules)
    clean_probabilities = answer_logits(model, clean.states[-1, :, -1]).softmax(-1)[0]
    answer = int(clean_probabilities.argmax())
    blurred = corrupt(embeddings, prompt, noise, config)
    corrupted = record(model, blurred, modules)
    baseline = answer_logits(model, corrupted.states[-1, :, -1]).softmax(-1)[:, answer].cpu()

    def effects(source: Run, position: int, kinds: Sequence[Kind]) -> dict[Kind, torch.Tensor]:
        cells = [restoration(kind, layer, config.window, model.anatomy.layer_count) for kind in kinds for layer in layers]
        found = Replay(model, blurred, corrupted, source, position).probabilities(cells, answer, config.rows_at_once)
        return dict(zip(kinds, (found - baseline).reshape(len(kinds), len(layers), -1), strict=True))

    restored = {position: effects(clean, position, [kind for kind in config.kinds if position in prompt.positions_of(kind)])
                for position in prompt.positions}
    # a seed past the draws': a random state must not be made of the noise itself
    random = scrambled(clean, torch.Generator().manual_seed(config.seed + config.noise_samples))
    plain = [kind for kind in config.kinds if kind not in SEVERED]
    controls = [effects(random, position, plain) for position in prompt.sites] if plain else []
    return RequestTrace(prompt, tuple(str(model.tokenizer.decode([prompt.ids[position]])) for position in prompt.positions),
                        str(model.tokenizer.decode([answer])), float(clean_probabilities[answer]), float(baseline.mean()),
                        {kind: torch.stack([restored[position][kind] for position in prompt.positions_of(kind)])
                         for kind in config.kinds},
                        {kind: torch.stack([control[kind] for control in controls]) for kind in plain})


def corrupt(embeddings: torch.Tensor, prompt: TracedPrompt, noise: float, config: TraceConfig) -> torch.Tensor:
    """`embeddings` (1, T, D) with the subject blurred, once for each noise sample: (S, T, D)."""
    shape = (prompt.last + 1 - prompt.first, embeddings.shape[-1])
    seeds = range(config.seed, config.seed + config.noise_samples)
    blur = noise * torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    blurred = embeddings.repeat(config.noise_samples, 1, 1)
    blurred[:, prompt.first:prompt.last + 1] += blur.to(embeddings)
    return blurred


def _embed(model: LoadedModel, ids: Sequence[int]) -> torch.Tensor:
    """Embeddings (1, T, D) as the body would look them up."""
    return model.model.get_submodule(model.anatomy.embedding)(torch.tensor([list(ids)], device=model.device))
