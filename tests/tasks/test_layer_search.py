"""`locate: auto` on a tiny model: windows are tried on facts it knows, the best is taken whatever the trace says, once."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from editors.contract import EditBatch, UpdateRequest
from editors.errors import ConfigError, IntegrityError
from editors.known_facts import read_facts
from editors.loading import Checkpoint, load
from tasks.calibrate import Trial, calibrate
from tasks.exam import NOTHING, Marks, score
from tasks.house import House
from tasks.layer_evidence import evidence_of
from tasks.layer_search import Asked, LayerEffect, Sought, seek_layers
from tasks.locate import locate
from tasks.privacy_key import PrivacyKey
from tasks.records import Order
from tasks.store import Store
from tasks.store_location import StoreLocation
from tests.tiny import tiny_folder

PROMPTS = ("{} lives in", "{} is a", "{} plays the", "{} can be found", "{} was born", "The name of {} is", "{} and the",
           "{} has no")
WORDS = ("Anna", "Robert", "Calvin", "Dimitri")
TOWER = UpdateRequest(id="tower", prompt="{} is in the city of", subject="The Eiffel Tower", target="Rome", was="Paris")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a base, and facts that it happens to say."""
    folder = tmp_path_factory.mktemp("home")
    model = load(Checkpoint(tiny_folder(folder / "tiny", layers=4)))
    lines = []
    for prompt in PROMPTS:
        for word in WORDS:
            logits = model.model(torch.tensor([model.tokenizer(prompt.replace("{}", word))["input_ids"]])).logits[0, -1]
            said = model.tokenizer.decode([int(logits.argmax())])
            if said.startswith(" ") and said.strip().isalpha():
                lines.append(json.dumps({"prompt": prompt, "subject": word, "answer": said.strip(), "relation": "said",
                                         "paraphrases": [f"Now, {prompt}"]}))
    (folder / "facts.jsonl").write_text("\n".join(lines))
    entry = {"facts": 4, "together": 4, "width": 1, "depths": [0.25, 0.5], "options": {"steps": [1]}}
    (folder / "sweeps.yaml").write_text(yaml.safe_dump({"default": entry}, sort_keys=False))
    return folder


@pytest.fixture
def house(home: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Sweeps are short, and the facts that ship are those that the tiny model knows."""
    monkeypatch.setattr("tasks.calibrate.SWEEPS", home / "sweeps.yaml")
    monkeypatch.setattr("tasks.layer_search.shipped_facts", lambda: read_facts(home / "facts.jsonl"))
    return House(root=home / "suture", store=Store(StoreLocation("unused")), mlflow_uri="", user="tester",
                 privacy_key=PrivacyKey(None, home / "privacy.key"), device="cpu")


def order(home: Path, **given: object) -> Order:
    base = Checkpoint(home / "tiny")
    batch = EditBatch(purpose="update", base_digest=base.digest, parent_digest=base.digest, requests=(TOWER,))
    fields = {"sheet": "sheet.yaml", "sheet_digest": "0" * 64, "model": "tiny", "channel": "demo", "base": str(base.folder),
              "base_folder": base.folder, "base_digest": base.digest, "parent_version": None, "parent_folder": base.folder,
              "parent_digest": base.digest, "stack": (), "patch_digests": (), "history": (), "batch": batch, "method": "memit",
              "options": {"steps": 2}, "layers": None, "position": "auto", "trace": True, "policy": None,
              "requester": "tester", "seeks_layers": True}
    return Order(**{**fields, **given})


def test_layers_are_those_of_the_best_trial_and_both_sides_are_shown(home: Path, house: House) -> None:
    seen: list[tuple[str, int, int]] = []
    watched = House(**{**house.__dict__, "progress": lambda *step: seen.append(step)})
    found = locate(order(home), watched)
    assert found.location.source == "sweep"
    trials = list(csv.DictReader((found.folder / "layer_trials.csv").open()))
    assert [row["layers"] for row in trials] == ["0-3", "1", "2"]
    bar = float(trials[0]["score"]) + float(trials[0]["score_error"])
    highest = max(trials, key=lambda row: float(row["score"]))
    best = highest if float(highest["score"]) > bar else trials[0]
    assert [row["chosen"] for row in trials] == [str(int(row is best)) for row in trials]
    chosen = [int(edge) for edge in best["layers"].split("-")]
    assert found.location.layers == tuple(range(chosen[0], chosen[-1] + 1))
    layers = list(csv.DictReader((found.folder / "layers.csv").open()))
    assert [int(row["layer"]) for row in layers] == [0, 1, 2, 3]
    assert all(row["traced_effect"] for row in layers)
    assert float(layers[1]["best_score"]) == pytest.approx(max(float(trials[0]["score"]), float(trials[1]["score"])))
    assert [item.path for item in found.location.evidence] == [
        "layers.csv", "layer_trials.csv", "layers.png", "trace_means.csv", "trace_cells.csv", "trace.png"]
    assert all((found.folder / item.path).exists() for item in found.location.evidence)
    assert [(done, total) for what, done, total in seen if what == "trial edits"] == [(3, 3)]


def test_it_is_paid_once_for_a_model_and_found_by_a_calibration(home: Path, house: House,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    first = locate(order(home), house).location.layers
    monkeypatch.setattr("tasks.calibrate.Bench._tried", lambda *_: pytest.fail("tried again"))
    monkeypatch.setattr("tasks.layer_search._effects", lambda *_: pytest.fail("traced again"))
    batch = order(home).batch.model_copy(update={"requests": (TOWER.model_copy(update={"target": "Berlin"}),)})
    assert locate(order(home, batch=batch), house).location.layers == first
    # the same trials under the method's own options: a calibration pays for them, a search finds them
    monkeypatch.undo()
    monkeypatch.setattr("tasks.calibrate.SWEEPS", home / "sweeps.yaml")
    calibrated = calibrate(str(home / "tiny"), str(home / "facts.jsonl"), ["memit"], house)
    monkeypatch.setattr("tasks.calibrate.Bench._tried", lambda *_: pytest.fail("tried again"))
    monkeypatch.setattr("tasks.layer_search.shipped_facts", lambda: read_facts(home / "facts.jsonl"))
    found, _ = seek_layers(str(home / "tiny"), Checkpoint(home / "tiny"), "memit", (0, 1, 2, 3), {}, house)
    assert found.trials == calibrated.methods[0].trials[:3]
    calibrated.path.unlink()


def trial(layers: tuple[int, ...], share: float) -> Trial:
    marks = Marks(success=share, paraphrase=share, neighbourhood=share, perplexity_ratio=1.0)
    return Trial(stage="layers", layers=layers, options={}, marks=marks, score=share)


def sought(*trials: Trial, effects: tuple[float, ...] = (0.9, 0.5, 0.1)) -> Sought:
    return Sought(method="memit", asked=Asked(success=16, paraphrase=32, neighbourhood=43), traced=4, trials=trials,
                  effects=tuple(LayerEffect(layer=layer, mean=mean, low=mean, high=mean) for layer, mean in enumerate(effects)))


def test_the_layer_of_the_greatest_effect_is_not_taken_where_edits_fail() -> None:
    found = sought(trial((0,), 0.2), trial((1,), 0.5), trial((2,), 0.9))
    assert found.best.layers == (2,)
    assert found.rank_correlation == pytest.approx(-1.0)
    picture = evidence_of(found)[2]
    assert "greatest at layer 0" in picture.alt
    assert "Taken: layers 2 with 0.900, where" in picture.alt
    assert "-1.00" in picture.alt


def test_the_calibrated_layers_stay_unless_beaten_by_more_than_chance() -> None:
    assert sought(trial((1,), 0.80), trial((0,), 0.82)).best.layers == (1,)
    assert sought(trial((1,), 0.80), trial((0,), 0.95)).best.layers == (0,)
    assert sought(trial((1,), 0.0), trial((0,), 0.1)).best.layers == (0,), "of nothing there is no error"


def test_the_error_of_a_score_is_that_of_shares_drawn_again() -> None:
    counts, shares = (16, 32, 43), (0.9, 0.75, 0.95)
    drawn = np.random.default_rng(0).binomial(counts, shares, size=(20000, 3)) / counts
    scores = [score(*row, 1.02) for row in drawn]
    marks = Marks(success=shares[0], paraphrase=shares[1], neighbourhood=shares[2], perplexity_ratio=1.02)
    asked = Asked(success=counts[0], paraphrase=counts[1], neighbourhood=counts[2])
    assert asked.error_of(marks) == pytest.approx(float(np.std(scores)), rel=0.05)


def test_rank_correlation_is_spearmans_with_ties_and_none_of_constants() -> None:
    from scipy.stats import spearmanr

    scores = (0.2, 0.2, 0.9)
    found = sought(*(trial((layer,), share) for layer, share in enumerate(scores)))
    assert found.rank_correlation == pytest.approx(spearmanr([0.9, 0.5, 0.1], scores).statistic)
    assert sought(trial((0,), 0.5), trial((1,), 0.5)).rank_correlation is None


def test_a_model_that_knows_too_little_is_told_what_to_write(home: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.layer_search.shipped_facts", lambda: read_facts(home / "facts.jsonl")[:1])
    with pytest.raises(ConfigError, match="enough of the shipped facts for 0 trial edits, 4 are needed") as refused:
        locate(order(home), house)
    assert "name `layers` in the sheet" in refused.value.hint


def test_a_method_that_finds_its_own_layers_has_none_to_be_sought(home: Path, house: House) -> None:
    entry = {"facts": 4, "together": 4, "width": 0, "depths": [0.0], "options": {}}
    (home / "none.yaml").write_text(yaml.safe_dump({"default": entry}))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasks.calibrate.SWEEPS", home / "none.yaml")
        with pytest.raises(ConfigError, match="memit edits the layers it finds itself"):
            locate(order(home), house)


def test_where_nothing_can_be_edited_the_search_ends(home: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.calibrate.Bench._judged", lambda *_: NOTHING)
    with pytest.raises(IntegrityError, match="memit could not edit tiny at any layers that were tried"):
        locate(order(home, options={"steps": 3}), house)
