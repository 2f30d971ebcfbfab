"""Knowledge neurons: the FFN neurons that raise a fact's present answer, in every wording of the question.

A text is one wording with the answer that the model holds today (`was`, else its own first choice). A neuron is attributed
by integrated gradients of log P(answer | wording) with respect to a factor on its activation, the input of the FFN output
matrix, as `privacy_neurons` tells: all neurons together on one path. The attributions of a text then sum up to what the
FFNs' activity above the baseline adds, f(1) - f(baseline). That sum is held to a tolerance (`path_integral`): where it is off
by more, the path is cut finer, and where the most points do not suffice the numbers are refused, not shown.

Refinement: a neuron must be kept by a share of a fact's wordings, or it belongs to the wording and not to the fact.
Wordings include the paraphrases that no editor is shown; the neurons found are evidence, and no editor of facts reads them.

What we changed against the released code, which hooks the FFN before its nonlinearity (in Llama the gate alone), runs one
prompt, so that nothing is refined, and with one step of the path evaluates at an activation of 0 only: see above.
Source: Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv:2104.08696, eqs. 4-5 and section 3.2;
Sundararajan et al. 2017, arXiv:1703.01365, section 3 (completeness).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from editors.contract import Evidence, Location, Progress, UpdateRequest, silent
from editors.errors import SheetError
from editors.inner_scale import Weighed, slopes
from editors.loading import LoadedModel
from editors.locate.causal_trace import own_answer
from editors.locate.knowledge_picture import draw
from editors.locate.neuron_evidence import as_csv
from editors.locate.path_integral import Completeness, integrate
from editors.locate.privacy_neurons import DetectorConfig, Found, elect, neuron_sets
from editors.options import check_ranges
from editors.prompts import encode, render_text
from editors.token_tree import Path as Continuation
from editors.token_tree import TokenTree

NEURONS, COMPLETENESS, PICTURE = "knowledge_neurons.csv", "knowledge_completeness.csv", "knowledge_neurons.png"


@dataclass(frozen=True)
class KnowledgeConfig:
    """How knowledge neurons are found, checked and kept."""

    detector: DetectorConfig = field(
        default_factory=lambda: DetectorConfig(points=20, baseline=0.5, contrast=0, ratio=0.2, mode=0.6, neurons=20))
    """Least points, baseline, and what is kept; its `contrast` is not used. Authors: 20 points, ratio 0.2, mode 0.7, and 0 for
    a baseline. From 0, where no FFN works, SmolLM2 needs 102 to 223 points, from a half 58 to 102; two of three wordings."""
    tolerance: float = 0.02
    """Most that a text's attributions may miss of their sum, as a share of it. Range (0, 1]."""
    most_points: int = 400
    """Where cutting the path finer ends. Range [1, 10000]."""
    request_limit: int = 2
    """Of a larger batch so many requests are looked at, evenly spaced over it. Range [1, 1000000]."""
    wording_limit: int = 3
    """Of a request so many wordings are looked at, its own first. Range [1, 1000]."""

    def __post_init__(self) -> None:
        check_ranges(self, tolerance="[1e-9, 1]", most_points="[1, 1e4]", request_limit="[1, 1e6]",
                     wording_limit="[1, 1000]")


def knowledge_neurons(model: LoadedModel, requests: Sequence[UpdateRequest], folder: Path,
                      config: KnowledgeConfig | None = None, progress: Progress = silent,
                      edit_layers: Sequence[int] = ()) -> Location:
    """The neurons of the batch as a location, with tables and a picture in `folder`; the model is unchanged. `edit_layers`
    are marked in the picture.

    Raises:
        SheetError: a request has no such position.
        IntegrityError: the attributions do not sum up, at the most points.
    """
    config = config or KnowledgeConfig()
    count = min(config.request_limit, len(requests))
    chosen = [requests[index * len(requests) // count] for index in range(count)]
    parts = [wordings(model, request)[:config.wording_limit] for request in chosen]
    owners = [number for number, part in enumerate(parts) for _ in part]
    # one request at a time: the path is cut where its own wordings need it
    scored = [checked_attributions(model, part, config, progress) for part in parts]
    scores = torch.cat([own for own, _ in scored])
    complete = Completeness(*(torch.cat([getattr(own, name) for _, own in scored]) for name in ("whole", "summed", "points")))
    found = elect(scores, torch.tensor(owners), config.detector)
    sets = neuron_sets(found)
    evidence = _write(found, scores, complete, [chosen[owner].id for owner in owners], folder, edit_layers)
    # where no neuron is common to the wordings, that is the finding
    layers = tuple(neurons.layer for neurons in sets) or tuple(edit_layers) or tuple(range(model.anatomy.layer_count))
    return Location(layers=layers, positions={}, neurons=sets, source="locator", evidence=evidence)


def wordings(model: LoadedModel, request: UpdateRequest) -> list[Weighed]:
    """Every wording of a fact with the answer that the model holds, each followed by log P of that answer.

    Raises:
        SheetError: the model's own answer is empty.
    """
    answer = request.was or own_answer(model, request)
    texts = []
    for wording in (request.question, *request.paraphrases):
        row = encode(render_text(request, model.tokenizer, wording, answer), model.tokenizer)
        # the end of a turn is no part of an answer that the model may go on with
        ids = row.ids[:-1] if row.ids[-1] == model.tokenizer.eos_token_id else row.ids
        if len(ids) <= row.prompt_length:
            raise SheetError(f"request {request.id!r}: the model answers nothing, so no neuron raises its answer",
                             "give `was`, the answer of today, or use another --method")
        texts.append(Weighed(TokenTree.of([Continuation(ids, row.prompt_length)]), (1.0,)))
    return texts


def checked_attributions(model: LoadedModel, texts: Sequence[Weighed], config: KnowledgeConfig,
                         progress: Progress = silent) -> tuple[Tensor, Completeness]:
    """Attributions (T, L, F) that sum up to what they should within the tolerance, and how well they do.

    Raises:
        IntegrityError: they do not, at the most points.
    """
    shape = model.anatomy.layer_count, model.anatomy.inner_size
    detector = config.detector
    return integrate(lambda factor: slopes(model, texts, torch.full(shape, factor), detector.gradient_tokens),
                     detector.baseline, detector.points, config.tolerance, config.most_points, progress)


def _write(found: Found, scores: Tensor, complete: Completeness, owners: Sequence[str], folder: Path,
           edit_layers: Sequence[int]) -> tuple[Evidence, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    requests = len(dict.fromkeys(owners))
    (folder / NEURONS).write_text(as_csv(found, requests), encoding="utf-8")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("request", "wording", "points", "whole_nats", "summed_nats", "gap"))
    columns = (complete.points, complete.whole, complete.summed, complete.gaps)
    for number, (owner, points, whole, summed, gap) in enumerate(zip(owners, *(one.tolist() for one in columns), strict=True)):
        writer.writerow((owner, number - owners.index(owner), round(points), f"{whole:.6g}", f"{summed:.6g}", f"{gap:.4g}"))
    (folder / COMPLETENESS).write_text(stream.getvalue(), encoding="utf-8")
    worst = f"{float(complete.gaps.max()):.2%} at {int(complete.points.max())} points"
    by_layer = scores.clamp(min=0).mean(0).sum(1)
    draw(found, by_layer, requests, f"The attributions miss their sum by {worst} at most.", folder / PICTURE, edit_layers)
    alt = (f"Dots for {len(found.layers)} neurons over layers 0 to {len(by_layer) - 1} at their attribution, and bars for what "
           f"whole layers add to the answer, most in layer {int(by_layer.argmax())}. The attributions miss their sum by "
           f"{worst} at most.")
    return (Evidence(kind="table", path=NEURONS, title=f"Knowledge neurons of {requests} requests: votes and attribution"),
            Evidence(kind="table", path=COMPLETENESS, title=f"Completeness of the attributions, missed by {worst} at most"),
            Evidence(kind="picture", path=PICTURE, title=f"Knowledge neurons of {requests} requests: where they lie", alt=alt))
