"""Where to edit: the edited token of every request, the layers to write to, and the evidence a trace gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from editors.contract import EditBatch, Evidence, Location, Progress, silent
from editors.corpus import default_corpus
from editors.errors import ConfigError
from editors.loading import LoadedModel
from editors.locate.bias_trace import trace_bias, write_bias_evidence
from editors.locate.causal_trace import TraceConfig, TraceResult, trace
from editors.locate.hidden_contrast import hidden_contrast, write_contrast
from editors.locate.knowledge_neurons import knowledge_neurons
from editors.locate.privacy_neurons import DetectorConfig, detect
from editors.locate.trace_picture import draw
from editors.locate.trace_table import as_csv, cells, role_means, traced_peak
from editors.locate.value_evidence import Reading, write_values
from editors.locate.value_reading import best_values, neuron_sets, read_wishes, signs_of
from editors.locate.wishes import wishes_of
from editors.prompts import PositionRule, encode, render

SHOWN_VALUES = 10


def place(model: LoadedModel, batch: EditBatch, calibration_layers: Sequence[int], override_layers: Sequence[int] | None,
          position_rule: PositionRule) -> Location:
    """Positions by `position_rule`, layers from the sheet or else the calibration; nothing is run.

    Raises:
        ConfigError: a layer is not one of the model's, or there is none.
        SheetError: a request has no such position.
    """
    positions = {request.id: encode(render(request, model.tokenizer, position_rule), model.tokenizer).anchor
                 for request in batch.updates}
    return Location(layers=_checked(model, override_layers or calibration_layers), positions=positions,
                    source="sheet" if override_layers else "calibration")


def locate(model: LoadedModel, batch: EditBatch, calibration_layers: Sequence[int], override_layers: Sequence[int] | None,
           position_rule: PositionRule, folder: Path, progress: Progress = silent,
           config: TraceConfig | None = None) -> Location:
    """The place, with a causal trace of the batch written into `folder` as evidence.

    The traced layer is reported and never obeyed: tracing does not say where an edit works best (Hase et al. 2023,
    arXiv:2301.04213), the calibration's sweep does.

    Raises:
        ConfigError: a layer is not one of the model's, or there is none.
        SheetError: a request has no such position.
    """
    placed = place(model, batch, calibration_layers, override_layers, position_rule)
    result = trace(model, batch.updates, config, progress)
    evidence = write_evidence(result, folder, placed.layers)
    return placed.model_copy(update={"traced_peak": traced_peak(result), "evidence": evidence})


def find_neurons(model: LoadedModel, batch: EditBatch, calibration_layers: Sequence[int],
                 override_layers: Sequence[int] | None, folder: Path, progress: Progress = silent,
                 config: DetectorConfig | None = None) -> Location:
    """The place of a batch that withdraws secrets: layers as they are chosen, and the neurons that raise the secrets, with
    a table and a picture of them in `folder`. Neither holds a text. `config`: how they are found; None: by default.

    Raises:
        ConfigError: a layer is not one of the model's, or there is none.
        SheetError: a secret does not have the form given; it is not quoted.
    """
    placed = place(model, batch, calibration_layers, override_layers, "auto")
    found = detect(model, batch.forgets, config, folder, progress)
    return placed.model_copy(update={"neurons": found.neurons, "evidence": found.evidence})


def find_contrast(model: LoadedModel, batch: EditBatch, calibration_layers: Sequence[int],
                  override_layers: Sequence[int] | None, folder: Path) -> Location:
    """The place of a batch that updates or detoxifies: layers as they are chosen, and where wanted and present answers part,
    with a table and a picture of it in `folder`. Neither holds a text.

    Raises:
        ConfigError: a layer is not one of the model's, or there is none.
        SheetError: a batch that detoxifies has no unsafe prompts.
    """
    placed = place(model, batch, calibration_layers, override_layers, "auto")
    found = hidden_contrast(model, batch)
    evidence = write_contrast(found, found.peak(placed.layers), folder, placed.layers)
    return placed.model_copy(update={"traced_peak": found.peak(range(len(found.contrast))), "evidence": evidence})


def find_values(model: LoadedModel, batch: EditBatch, calibration_layers: Sequence[int],
                override_layers: Sequence[int] | None, statistics: Path, folder: Path, count: int = SHOWN_VALUES) -> Location:
    """The place, and the value vectors that promote what the batch is about most, with a table and a picture of what each
    promotes in `folder`. Of a batch that detoxifies those of the layers to be edited are read, else all.

    Raises:
        ConfigError: a layer is not one of the model's, or there is none.
        SheetError: the batch has no wish.
    """
    placed = place(model, batch, calibration_layers, override_layers, "auto")
    layers = placed.layers if batch.detoxifies else tuple(range(model.anatomy.layer_count))
    corpus = default_corpus(model, batch.base_digest, statistics) if batch.detoxifies else None
    wishes, signs = wishes_of(model, batch, corpus), signs_of(model, layers[0])
    scores = read_wishes(model, layers, [wish.weights for wish in wishes])
    readings = [Reading(wish.words, best_values(layers, found, signs, -(-count // len(wishes))))
                for wish, found in zip(wishes, scores, strict=True)]
    values = {(one.layer, one.neuron): one for reading in readings for one in reading.values}
    return placed.model_copy(update={"neurons": neuron_sets(list(values.values())),
                                     "evidence": write_values(model, readings, folder, placed.layers)})


def find_knowledge(model: LoadedModel, batch: EditBatch, calibration_layers: Sequence[int],
                   override_layers: Sequence[int] | None, folder: Path, progress: Progress = silent) -> Location:
    """The place of a batch that updates: layers as they are chosen, and the neurons that raise the present answers, with
    tables and a picture of them in `folder`.

    Raises:
        ConfigError: a layer is not one of the model's, or there is none.
        SheetError: the model answers a request with nothing.
        IntegrityError: the attributions do not sum up.
    """
    placed = place(model, batch, calibration_layers, override_layers, "auto")
    found = knowledge_neurons(model, batch.updates, folder, progress=progress, edit_layers=placed.layers)
    return placed.model_copy(update={"neurons": found.neurons, "evidence": found.evidence})


def find_lean(model: LoadedModel, batch: EditBatch, calibration_layers: Sequence[int],
              override_layers: Sequence[int] | None, folder: Path, progress: Progress = silent) -> Location:
    """The place of a batch that debiases: layers as they are chosen, and which modules and heads carry the group in its first
    request, with a table and a picture of them in `folder`. Neither holds a term.

    Raises:
        ConfigError: a layer is not one of the model's, or there is none; no two terms lean differently.
        SheetError: the group words begin with one token.
    """
    placed = place(model, batch, calibration_layers, override_layers, "auto")
    found = trace_bias(model, batch.debiases[0], progress=progress)
    peak = max((cell for cell in found.cells if cell.kind != "head"), key=lambda cell: cell.effect)
    return placed.model_copy(update={"traced_peak": peak.layer, "evidence": write_bias_evidence(found, folder, placed.layers)})


def write_evidence(result: TraceResult, folder: Path, edit_layers: Sequence[int] = ()) -> tuple[Evidence, ...]:
    """Write two tables and the picture into `folder`; their names in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trace_means.csv").write_text(as_csv(role_means(result)), encoding="utf-8")
    (folder / "trace_cells.csv").write_text(as_csv(cells(result)), encoding="utf-8")
    draw(result, folder / "trace.png", edit_layers)
    traced = f"{len(result.traces)} of {result.batch_size} requests"
    peak = traced_peak(result)
    finding = "nothing comes back" if peak is None else f"most comes back at layer {peak}"
    alt = ("Heat maps of one request's tokens over layers, a map for each restored part, and lines of the mean probability "
           f"recovered by token role. At the subject's last token {finding}.")
    return (Evidence(kind="table", path="trace_means.csv", title=f"Mean indirect effect by token role and layer, {traced}"),
            Evidence(kind="table", path="trace_cells.csv", title=f"Indirect effect of every traced cell, {traced}"),
            Evidence(kind="picture", path="trace.png", title=f"Causal trace, {traced}", alt=alt))


def _checked(model: LoadedModel, layers: Sequence[int]) -> tuple[int, ...]:
    count = model.anatomy.layer_count
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong or not layers:
        problem = f"{wrong[0]} is not a layer of this model" if wrong else "none is named"
        raise ConfigError(f"layers {list(layers)}: {problem}", f"name layers from 0 to {count - 1}")
    return tuple(sorted(set(layers)))
