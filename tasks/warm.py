"""Base -> Warmed: what the closed forms need to know of a base, made and kept before an edit asks for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import editors
from editors.calibration import ALL_LAYERS, calibration_for
from editors.contract import Frozen
from editors.corpus import corpus_file, default_corpus, held_corpus
from editors.errors import ConfigError
from editors.factors import factor_file, moment_factors
from editors.loading import Checkpoint, load
from editors.moments import held_moments
from editors.null_space import moment_spectra, spectrum_file
from tasks.house import House
from tasks.intake import find_base

FORMS = ("plain", "chat")
What = Literal["own text", "second moment", "factor", "spectrum"]
SPECTRAL = "alphaedit"
"""The method that asks for spectra. One costs as much as fifteen factors, so only its own layers get theirs ahead."""


class Statistic(Frozen):
    """One file of the store."""

    what: What
    layer: int | None
    path: Path
    size_bytes: int
    made: bool
    """Whether it was made by this run."""


class Warmed(Frozen):
    """The statistics of a base, all there."""

    base: str
    base_digest: str
    layers: tuple[int, ...]
    items: tuple[Statistic, ...]


def warm(base: str, layers: str | None, house: House) -> Warmed:
    """Fill the store for the layers (`3-7,15`, `all`, None: those of the calibrated methods); what is there stays.

    Raises:
        BaseNotFound: the base leads nowhere.
        ConfigError: a layer is not one of the model's.
    """
    checkpoint = find_base(base, house)
    chosen = calibrated_layers(checkpoint, house) if layers is None else layers_of(layers, checkpoint.anatomy.layer_count)
    spectral = tuple(layer for layer in chosen if layer in _layers_by_default(SPECTRAL, checkpoint, house))
    before = _inventory(checkpoint, chosen, spectral, house)
    if len(before) < 1 + 2 * len(chosen) + len(spectral):
        model = load(checkpoint, house.device)
        corpus = default_corpus(model, checkpoint.digest, house.statistics, house.progress)
        moment_factors(model, chosen, corpus, house.statistics, house.progress, checkpoint.digest)
        moment_spectra(model, spectral, corpus, house.statistics, house.progress, checkpoint.digest)
    items = [Statistic(what=what, layer=layer, path=path, size_bytes=path.stat().st_size, made=(what, layer) not in before)
             for (what, layer), path in _inventory(checkpoint, chosen, spectral, house).items()]
    return Warmed(base=base, base_digest=checkpoint.digest, layers=chosen, items=tuple(items))


def calibrated_layers(checkpoint: Checkpoint, house: House) -> tuple[int, ...]:
    """Every layer that a method edits by default, for requests in either form. Those that edit all layers make what they need
    of each when they are asked first; `--layers all` makes it ahead.
    """
    found = [_layers_by_default(method, checkpoint, house) for method in editors.names() if method not in ALL_LAYERS]
    return tuple(sorted({layer for layers in found for layer in layers}))


def layers_of(text: str, count: int) -> tuple[int, ...]:
    """The layers that `3-7,15` or `all` names, sorted, of a model with `count`.

    Raises:
        ConfigError: the text is no such list, or a layer is not one of the model's.
    """
    if text.strip() == "all":
        return tuple(range(count))
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not 0 <= first <= last < count:
            raise ConfigError(f"layers {text!r}: {part.strip()!r} is not among the layers 0 to {count - 1} of this model",
                              f"--layers 0-{count - 1}, or --layers all")
        found += range(first, last + 1)
    return tuple(sorted(dict.fromkeys(found)))


def _layers_by_default(method: str, checkpoint: Checkpoint, house: House) -> set[int]:
    found = [calibration_for(method, checkpoint.digest, checkpoint.anatomy, form, house.calibrations) for form in FORMS]
    return {layer for one in found for layer in one.layers}


def _inventory(checkpoint: Checkpoint, layers: tuple[int, ...], spectral: tuple[int, ...],
               house: House) -> dict[tuple[What, int | None], Path]:
    corpus = held_corpus(checkpoint.anatomy, checkpoint.digest, house.statistics)
    if corpus is None:
        return {}
    moments = held_moments(checkpoint.digest, layers, corpus, checkpoint.dtype_on(house.device), house.statistics)
    factors = {layer: factor_file(path) for layer, path in moments.items() if factor_file(path).exists()}
    spectra = {layer: spectrum_file(moments[layer]) for layer in spectral
               if layer in moments and spectrum_file(moments[layer]).exists()}
    found: dict[tuple[What, int | None], Path] = {
        ("own text", None): corpus_file(checkpoint.anatomy, checkpoint.digest, house.statistics)}
    found.update({("second moment", layer): path for layer, path in moments.items()})
    found.update({("factor", layer): path for layer, path in factors.items()})
    found.update({("spectrum", layer): path for layer, path in spectra.items()})
    return found
