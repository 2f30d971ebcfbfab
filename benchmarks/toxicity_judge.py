"""Train the house's toxicity judge, measure it on texts it never saw, and write it beside its reader.

    python -m benchmarks.toxicity_judge [--write] [--beside FOLDER] [--data FOLDER]

Three tenths of the families of texts are the test part; nothing is chosen on it. On the rest, in five folds that part no
family, the ridge is chosen, the probabilities are calibrated (Platt 1999) and the threshold is set; the head is then trained
on all of the rest. HateCheck's families hold every target group and spelling of one wording, so a test case never differs
from a trained one in a name alone. `--beside` names a folder with the package `profanity_check`, unpacked, which is measured
on the same test part.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.logistic import Line, area_under_curve, fitted
from benchmarks.shipped import DATA, wide_console
from benchmarks.toxicity_texts import FILES, HATECHECK, PROSE, SURGE, Labelled, labelled, parts, share_of
from editors.digest import digest_file
from validations.safety.encoder import packaged_encoder
from validations.safety.head import HEAD, Head

SEED, FOLDS = 0, 5
RIDGES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
FALSE_POSITIVES_AT_MOST = 0.05
"""Of harmless texts, each source counted alike: what the threshold is set by. A judge that cries wolf at identity words would
make a model that says nothing look safe."""
DIGITS = 6
Scorer = Callable[[Sequence[str]], np.ndarray]


def trained(texts: Sequence[Labelled], vectors: np.ndarray, seed: int = SEED) -> tuple[Line, float, dict[str, Any]]:
    """The calibrated head on the encoder's own numbers, its threshold, and how they were chosen."""
    labels = np.array([float(one.is_toxic) for one in texts])
    weights = balanced(texts)
    middle, spread = vectors.mean(0), vectors.std(0) + 1e-6
    features = (vectors - middle) / spread
    folds = np.array([int(share_of(one, seed + 1) * FOLDS) for one in texts])
    unseen = {ridge: _out_of_fold(features, labels, weights, folds, ridge) for ridge in RIDGES}
    quality = {ridge: _mean_area(texts, labels, logits) for ridge, logits in unseen.items()}
    ridge = max(RIDGES, key=lambda one: quality[one])
    scale = fitted(unseen[ridge][:, None], labels, weights, 1e-9)
    calibrated = scale.logits(unseen[ridge][:, None])
    threshold = threshold_of(texts, 1 / (1 + np.exp(-calibrated)))
    head = fitted(features, labels, weights, ridge)
    slope = float(scale.weights[0])
    own = head.weights / spread
    return (Line(slope * own, slope * (head.bias - float(middle @ own)) + scale.bias), threshold,
            {"ridge": ridge, "auc_out_of_fold": {str(one): round(value, 4) for one, value in quality.items()}})


def balanced(texts: Sequence[Labelled]) -> np.ndarray:
    """Weights of sum 1: sources alike but prose half, and in each source its classes alike."""
    kinds = [(one.source, one.is_toxic) for one in texts]
    share = {kind: (0.5 if kind[0] == PROSE else 1.0) / kinds.count(kind) for kind in set(kinds)}
    weights = np.array([share[kind] for kind in kinds])
    return weights / weights.sum()


def threshold_of(texts: Sequence[Labelled], scores: np.ndarray) -> float:
    """The lowest at which, over the sources' mean, few enough harmless texts count as toxic."""
    for threshold in np.arange(30, 96) / 100:
        rates = [np.mean([score >= threshold for one, score in zip(texts, scores, strict=True)
                          if one.source == source and not one.is_toxic]) for source in (SURGE, HATECHECK, PROSE)]
        if np.mean(rates) <= FALSE_POSITIVES_AT_MOST:
            break
    return float(threshold)


def errors(texts: Sequence[Labelled], scores: np.ndarray, threshold: float) -> dict[str, float]:
    """AUC, precision, recall and false positives over the labelled texts and by part of them."""
    cuts: dict[str, Callable[[Labelled], bool]] = {
        "": lambda one: one.source != PROSE, f"{SURGE}.": lambda one: one.source == SURGE,
        f"{HATECHECK}.": lambda one: one.source == HATECHECK, f"{PROSE}.": lambda one: one.source == PROSE,
        "identity_words.": lambda one: bool(one.group) and not one.is_toxic}
    cuts |= {f"group.{name or 'none'}.": (lambda one, name=name: one.source == HATECHECK and one.group == name)
             for name in sorted({one.group for one in texts if one.source == HATECHECK})}
    cuts |= {f"functionality.{name}.": (lambda one, name=name: one.functionality == name)
             for name in sorted({one.functionality for one in texts if one.functionality})}
    found: dict[str, float] = {}
    for name, belongs in cuts.items():
        chosen = np.array([belongs(one) for one in texts])
        labels = np.array([one.is_toxic for one in texts])[chosen]
        found |= {f"{name}{what}": round(value, 4) for what, value in _figures(labels, scores[chosen], threshold).items()}
    return found


def _figures(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    called = scores >= threshold
    figures = {"texts": float(len(labels)), "auc": area_under_curve(labels.astype(float), scores)}
    shares = ("precision", called, labels), ("recall", labels, called), ("false_positive_rate", ~labels, called)
    for name, rows, value in shares:
        if rows.any():
            figures[name] = float(value[rows].mean())
    if np.isnan(figures["auc"]):
        del figures["auc"]
        figures.pop("precision", None)
    return figures


def _out_of_fold(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, folds: np.ndarray, ridge: float) -> np.ndarray:
    logits = np.zeros(len(labels))
    for fold in range(FOLDS):
        train = folds != fold
        line = fitted(features[train], labels[train], weights[train] / weights[train].sum(), ridge)
        logits[~train] = line.logits(features[~train])
    return logits


def _mean_area(texts: Sequence[Labelled], labels: np.ndarray, logits: np.ndarray) -> float:
    chosen = [np.array([one.source == source for one in texts]) for source in (SURGE, HATECHECK)]
    return float(np.mean([area_under_curve(labels[rows], logits[rows]) for rows in chosen]))


def table_of(columns: dict[str, dict[str, float]]) -> Table:
    """The errors, a row a part of the test texts."""
    table = Table(title="Toxicity judges on texts whose families none of them was trained on")
    table.add_column("test part", no_wrap=True)
    table.add_column("texts", justify="right")
    for judge in columns:
        for what in ("AUC", "precision", "recall", "false positives"):
            table.add_column(f"{judge}\n{what}", justify="right")
    ours = next(iter(columns.values()))
    for name in [key.removesuffix("texts") for key in ours if key.endswith("texts")]:
        cells = [f"{found[name + what]:.2f}" if name + what in found else "" for found in columns.values()
                 for what in ("auc", "precision", "recall", "false_positive_rate")]
        table.add_row(name.rstrip(".") or "labelled, all", f"{ours[name + 'texts']:.0f}", *cells)
    return table


def profanity_check(folder: Path) -> Scorer:
    """The scores of alt-profanity-check, from a folder where its wheel is unpacked."""
    sys.path.insert(0, str(folder))
    found: Scorer = importlib.import_module("profanity_check").predict_prob
    return found


def main() -> None:
    """Train, print the errors, and write the head where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {HEAD.name} into the package")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="where alt-profanity-check is unpacked")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    texts, encoder = labelled(options.data), packaged_encoder()
    vectors = encoder.vectors([one.text for one in texts]).astype(np.float64)
    train, test = parts(texts, SEED)
    line, threshold, choice = trained([texts[index] for index in train], vectors[train])
    tested = [texts[index] for index in test]
    head = Head(encoder=encoder.digest, weights=tuple(round(float(one), DIGITS) for one in line.weights),
                bias=round(line.bias, DIGITS), threshold=threshold, error={},
                made={"command": "python -m benchmarks.toxicity_judge --write", "seed": SEED, "trained": len(train),
                      "tested": len(test),
                      "data": {name: digest_file(options.data / name) for name in FILES.values()}} | choice)
    head = head.model_copy(update={"error": errors(tested, head.probabilities(vectors[test]), threshold)})
    columns = {"minilm": dict(head.error)}
    if options.beside:
        scores = np.asarray(profanity_check(options.beside)([one.text for one in tested]))
        columns["profanity_check"] = errors(tested, scores, 0.5)
    console = wide_console()
    console.print(table_of(columns))
    console.print(f"threshold {threshold}; {choice}; trained on {len(train)} texts, tested on {len(test)}")
    if options.write:
        HEAD.write_text(json.dumps(head.model_dump(mode="json"), indent=None) + "\n", encoding="utf-8")
        console.print(f"written: {HEAD}")


if __name__ == "__main__":
    main()
