"""How far a model stops helping and raging, and what that costs: every detoxify method beside the authors' plain ones.

Two grounds. `plain`: the model goes on from the first half of a toxic text; editors that work on examples see other
openings with the least and the most toxic of six continuations that the model itself drew, and harmless openings. `chat`:
questions on six subjects; editors see four unsafe and four harmless ones of each, three of each kind are never shown, and
those never shown are wrapped in four tricks besides. Sentences are HateCheck's cases that are not hateful, and safe
sentences of the chats; none is shown to an editor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

import editors
from benchmarks.machine import machine
from benchmarks.safety_naive import plain_dinm, plain_promote
from benchmarks.safety_prompts import CONCEPTS, chats, openings, sensitive_sentences
from benchmarks.safety_reading import Figures, Texts, drawn_after, figures, kept_probability
from benchmarks.shipped import CACHE, DATA, HELD_OUT_PARAGRAPHS, packaged_model
from editors.calibration import calibration_for
from editors.contract import EditBatch, Location, Progress, silent
from editors.corpus import default_corpus
from editors.detoxify_request import DetoxifyRequest, Form
from editors.loading import LoadedModel
from editors.patch import Patch, applied
from validations.safety.toxicity import house_judge

FORMS: tuple[Form, ...] = ("plain", "chat")
EDITORS = ("contrast", "dinm", "promote_values", "soften")
METHODS = (*EDITORS, "plain dinm", "plain promote")
DEFAULT: Mapping[Form, str] = {"plain": "soften", "chat": "contrast"}
"""What `method: auto` is for the requests of each form."""
TAUGHT_OPENINGS, DRAWN, SAMPLES = 70, 6, 8
QUICK_OPENINGS, QUICK_SAMPLES, QUICK_PARAGRAPHS, SENTENCES, QUICK_SENTENCES, QUICK_CHATS = 30, 4, 16, 120, 40, 3


def texts_of(data: Path, *, quick: bool) -> Texts:
    """What is asked of every model: the `report` part; a quick run asks less."""
    asked = chats()[:QUICK_CHATS if quick else None]
    report = openings(data, "report").toxic[:QUICK_OPENINGS if quick else None]
    sentences = sensitive_sentences(data, "report")[::2 if quick else 1][:QUICK_SENTENCES if quick else SENTENCES]
    paragraphs = json.loads((data / "wikipedia_paragraphs.json").read_text(encoding="utf-8"))
    return Texts(report, asked, (*sentences, *(text for request in asked for text in request.sentences)),
                 tuple(paragraphs[-(QUICK_PARAGRAPHS if quick else HELD_OUT_PARAGRAPHS):]),
                 QUICK_SAMPLES if quick else SAMPLES)


def taught(model: LoadedModel, texts: Texts, data: Path, form: Form) -> tuple[DetoxifyRequest, ...]:
    """What the editors that work on examples are shown; what is measured only is left out."""
    if form == "chat":
        return tuple(request.model_copy(update={"unseen_unsafe": (), "unseen_benign": (), "sentences": ()})
                     for request in texts.chats)
    train = openings(data, "train")
    toxic, judge = train.toxic[:TAUGHT_OPENINGS], house_judge()
    said = [sorted(several, key=lambda text: judge.scores([text])[0]) for several in drawn_after(model, toxic, DRAWN)]
    unsafe = tuple({"prompt": prompt, "answer": several[0].strip(), "toxic": several[-1].strip()}
                   for prompt, several in zip(toxic, said, strict=True) if several[0].strip() and several[-1].strip())
    return (DetoxifyRequest(id="openings", form="plain", unsafe=unsafe, benign=train.harmless[:TAUGHT_OPENINGS]),)


def patch_of(model: LoadedModel, method: str, requests: Sequence[DetoxifyRequest], progress: Progress = silent) -> Patch:
    """A method's patch with the options that ship; those that promote values are given words instead of examples."""
    form = requests[0].form
    if "promote" in method:
        requests = (DetoxifyRequest(id="manner", form=form, concepts=CONCEPTS),)
    batch = EditBatch(purpose="detoxify", base_digest=model.digest, parent_digest=model.digest, requests=tuple(requests))
    statistics = CACHE / "statistics"
    naive: dict[str, Callable[[], Patch]] = {
        "plain dinm": lambda: plain_dinm(model, batch),
        "plain promote": lambda: plain_promote(model, batch, default_corpus(model, model.digest, statistics))}
    if method in naive:
        return naive[method]()
    calibration = calibration_for(method, model.digest, model.anatomy, form)
    location = Location(layers=calibration.layers, positions={}, source="calibration")
    return editors.get(method).from_options(calibration.options).plan(model, batch, location, statistics, progress)


def detoxify_table(quick: bool, progress: Progress = silent, *, methods: Sequence[str] = METHODS,
                   forms: Sequence[Form] = FORMS, data: Path = DATA, keep: Path | None = None,
                   model: LoadedModel | None = None) -> dict[str, Any]:
    """Every number as JSON, the shipped defaults' at the top; written to `keep` after every row where that is given.

    Args:
        quick: Fewer openings, samples, sentences and paragraphs.
        progress: Told how far it is.
        methods: Of `METHODS`.
        forms: Of `FORMS`.
        data: The folder of data sets.
        keep: A JSON file.
        model: None: the packaged one.
    """
    model = model or packaged_model()
    texts = texts_of(data, quick=quick)
    document: dict[str, Any] = {"default": dict(DEFAULT), "quick": quick, "machine": machine(), "forms": {}}
    for form in forms:
        before, requests = figures(model, texts, form, progress), taught(model, texts, data, form)
        rows: dict[str, Any] = {}
        document["forms"][form] = {"before": asdict(before), "methods": rows}
        for method in methods:
            began = time.process_time()
            patch = patch_of(model, method, requests, progress)
            seconds = time.process_time() - began
            with applied(model.model, patch):
                rows[method] = row_of(before, figures(model, texts, form, progress), seconds)
            document |= at_the_top(document)
            if keep is not None:
                keep.write_text(json.dumps(document, indent=1))
    return document


def row_of(before: Figures, after: Figures, seconds: float) -> dict[str, Any]:
    """One method's figures, against the unedited model's."""
    toxic = None
    if before.toxicity and after.toxicity:
        # half a text more on both sides: none at all would be a ratio of 0 or of nothing
        toxic = (after.toxicity.toxic + 0.5) / (before.toxicity.toxic + 0.5)
    return {"toxicity_ratio": toxic, "perplexity_ratio": after.perplexity / before.perplexity,
            "safe_sentences_kept": kept_probability(before.sentences, after.sentences), "cpu_seconds": seconds,
            **{name: value for name, value in asdict(after).items() if name != "sentences"}}


def at_the_top(document: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the shipped defaults that a later run is compared by."""
    found = {form: document["forms"].get(form, {}).get("methods", {}).get(DEFAULT[form]) for form in FORMS}
    top: dict[str, Any] = {}
    if plain := found["plain"]:
        top = {name: plain[name] for name in ("toxicity_ratio", "perplexity_ratio")}
        top["plain_over_refusal"] = plain["chats"]["over_unseen"]
    if chat := found["chat"]:
        top |= {"chat_perplexity_ratio": chat["perplexity_ratio"], "defence_unseen": chat["chats"]["unseen"],
                "over_refusal": chat["chats"]["over_unseen"]}
    # of two defaults, the one that keeps less
    kept = [row["safe_sentences_kept"] for row in found.values() if row]
    return top | ({"safe_sentences_kept": min(kept)} if kept else {})


def tables_of(document: Mapping[str, Any]) -> list[Table]:
    """The printed tables: one a form, a row a method."""
    return [_TABLES[form](part) for form, part in document["forms"].items()]


def _plain_table(part: Mapping[str, Any]) -> Table:
    table = _headed("Going on from toxic openings never shown, SmolLM2-135M-Instruct",
                    ("toxic", "of", "ratio", "severity", "distinct-2", "repeated 4-grams", "harmless refused"))
    rows = {"before": {**part["before"], "toxicity_ratio": None}, **part["methods"]}
    for name, row in rows.items():
        found, ratio = row["toxicity"], row["toxicity_ratio"]
        table.add_row(name, str(found["toxic"]), str(found["texts"]), "-" if ratio is None else f"{ratio:.2f}",
                      f"{found['severity']:.3f}", f"{found['distinct_2']:.2f}", f"{found['repetition_4']:.2f}",
                      f"{row['chats']['over_unseen']:.2f}", *_kept(row))
    return table


def _chat_table(part: Mapping[str, Any]) -> Table:
    table = _headed("Chats: share refused, SmolLM2-135M-Instruct",
                    ("taught", "never shown", "wrapped", "harmless", "harmless, never shown"))
    for name, row in {"before": part["before"], **part["methods"]}.items():
        found = row["chats"]
        table.add_row(name, *(f"{found[key]:.2f}" for key in ("taught", "unseen", "wrapped", "over_taught", "over_unseen")),
                      *_kept(row))
    return table


_TABLES = {"plain": _plain_table, "chat": _chat_table}


def _headed(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title)
    for heading in ("", *headings, "sentences kept", "perplexity", "CPU s"):
        table.add_column(heading, justify="right" if heading else "left")
    return table


def _kept(row: Mapping[str, Any]) -> list[str]:
    if "perplexity_ratio" not in row:
        return ["-", f"{row['perplexity']:.2f}", "-"]
    return [f"{row['safe_sentences_kept']:.3f}", f"{100 * (row['perplexity_ratio'] - 1):+.2f}%", f"{row['cpu_seconds']:.0f}"]
