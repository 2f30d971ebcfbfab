"""Calibrating on a tiny model: facts it knows, a staged sweep, a file that later edits find, and the score's own properties."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import editors
from editors.calibration import calibration_for
from editors.contract import UpdateRequest
from editors.errors import ConfigError, Diverged, IntegrityError
from editors.known_facts import KnownFact, read_facts, shipped_facts
from editors.loading import Checkpoint, LoadedModel, load
from editors.prompts import encode, render
from tasks.calibrate import SWEEPS, Swept, Trial, calibrate, sweep_of
from tasks.calibration_picture import shown
from tasks.exam import NOTHING, Examiner, Marks, requests_of, score
from tasks.house import House
from tasks.privacy_key import PrivacyKey
from tasks.store import Store
from tasks.store_location import StoreLocation
from tests.tiny import tiny_folder

WORDS = ("Anna", "Robert", "Calvin", "Dimitri")
PROMPTS = ("{} lives in", "{} is a", "{} plays the", "{} can be found", "{} was born", "The name of {} is", "{} and the",
           "{} has no")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("base") / "tiny", layers=4)


@pytest.fixture(scope="module")
def facts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tiny model happens to say; it hardly looks back, so the prompts and not the names make the difference."""
    model = load(Checkpoint(base))
    lines = []
    for prompt in PROMPTS:
        for word in WORDS:
            answer = said(model, prompt.replace("{}", word))
            if answer:
                lines.append(json.dumps({"prompt": prompt, "subject": word, "answer": answer,
                                         "paraphrases": [f"Now, {prompt}"], "relation": "said"}))
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(root=tmp_path / "home", store=Store(StoreLocation("unused")), mlflow_uri="", user="tester",
                 privacy_key=PrivacyKey(None, tmp_path / "privacy.key"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sweep of few steps."""
    entry = {"facts": 4, "together": 2, "width": 1, "depths": [0.25, 0.5],
             "options": {"steps": [1, 2], "clamp": [0.5], "no_such": [1]}}
    path = tmp_path / "sweeps.yaml"
    path.write_text(yaml.safe_dump({"default": entry}, sort_keys=False))
    monkeypatch.setattr("tasks.calibrate.SWEEPS", path)


def said(model: LoadedModel, prompt: str) -> str:
    """The word that is the model's first choice, or nothing where that is no word."""
    ids = model.tokenizer(prompt)["input_ids"]
    logits = model.model(torch.tensor([ids])).logits[0, -1]
    word = model.tokenizer.decode([int(logits.argmax())])
    return word.strip() if word.startswith(" ") and word.strip().isalpha() else ""


def test_what_a_model_knows_is_its_first_choice(base: Path, facts: Path) -> None:
    model = load(Checkpoint(base))
    listed = read_facts(facts)
    requests = [UpdateRequest(id=str(number), prompt=fact.prompt, subject=fact.subject, target=fact.answer, was=fact.answer)
                for number, fact in enumerate(listed)]
    expected = []
    for request in requests:
        ids = encode(render(request, model.tokenizer), model.tokenizer)
        choices = model.model(torch.tensor([ids.ids])).logits[0].argmax(-1).tolist()
        expected.append(choices[ids.prompt_length - 1:-1] == list(ids.ids[ids.prompt_length:]))
    assert Examiner(model, requests, 64).knows() == expected
    assert sum(expected) > 8


def test_shares_and_loss_are_those_of_one_plain_forward(base: Path, facts: Path) -> None:
    model = load(Checkpoint(base))
    requests = requests_of(read_facts(facts), 4)
    examiner = Examiner(model, requests, 256)

    def likelihood(prompt: str, answer: str) -> float:
        request = UpdateRequest(id="x", prompt="{}", subject=prompt, target=answer)
        ids = encode(render(request, model.tokenizer), model.tokenizer)
        logarithms = model.model(torch.tensor([ids.ids])).logits[0].log_softmax(-1)
        return float(torch.stack([logarithms[place - 1, ids.ids[place]]
                                  for place in range(ids.prompt_length, len(ids.ids))]).mean())

    near = [(one.prompt, one.answer, request.target_text) for request in requests for one in request.neighbours]
    expected = sum(likelihood(prompt, true) > likelihood(prompt, new) for prompt, true, new in near) / len(near)
    assert examiner.shares()["neighbour"] == pytest.approx(expected)
    texts = [(*context, *scored) for context, scored in (question.expected["text"] for question in examiner.texts)]
    losses = [-model.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])
              for ids in texts]
    assert examiner.loss() == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)


@pytest.mark.usefixtures("small")
def test_a_sweep_is_staged_kept_and_used_by_later_edits(base: Path, facts: Path, house: House,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    found = calibrate(str(base), str(facts), ["memit"], house)
    swept = found.methods[0]
    assert [trial.stage for trial in swept.trials[:3]] == ["layers"] * 3
    assert [trial.layers for trial in swept.trials[:3]] == [(0, 1, 2, 3), (1,), (2,)]
    best_layers = max(swept.trials[:3], key=lambda trial: trial.score).layers
    assert {trial.layers for trial in swept.trials[3:]} == {best_layers}
    assert [dict(trial.options) for trial in swept.trials[3:5]] == [{"steps": 1}, {"steps": 2}]
    assert swept.best.score == max(trial.score for trial in swept.trials)
    assert all(0 <= trial.marks.neighbourhood <= 1 and trial.score == trial.marks.score for trial in swept.trials)
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    anatomy = Checkpoint(base).anatomy
    used = calibration_for("memit", found.base_digest, anatomy, "plain", house.calibrations)
    assert (used.layers, dict(used.options)) == (swept.best.layers, dict(swept.best.options))
    assert used.is_measured
    assert "suture calibrate" in used.source
    assert not calibration_for("memit", found.base_digest, anatomy, "chat", house.calibrations).is_measured
    assert not calibration_for("memit", found.base_digest, anatomy).is_measured
    monkeypatch.setattr("tasks.calibrate.Bench._tried", lambda *_: pytest.fail("tried again"))
    again = calibrate(str(base), str(facts), ["memit"], house)
    assert [trial.score for trial in again.methods[0].trials[:5]] == [trial.score for trial in swept.trials[:5]]


@pytest.mark.usefixtures("small")
def test_another_methods_calibration_stays(base: Path, facts: Path, house: House) -> None:
    calibrate(str(base), str(facts), ["memit"], house)
    found = calibrate(str(base), str(facts), ["rome"], house)
    kept = yaml.safe_load(found.path.read_text())
    assert sorted(kept["methods"]) == ["memit", "rome"]
    assert kept["base_digest"] == found.base_digest


@pytest.mark.usefixtures("small")
def test_a_setting_that_diverges_scores_nothing_and_the_sweep_goes_on(base: Path, facts: Path, house: House,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    plan = editors.get("memit").plan

    def failing(editor, model, batch, location, *rest):
        if location.layers != (2,):
            raise Diverged("the target search diverged", "lower the learning rate")
        return plan(editor, model, batch, location, *rest)

    monkeypatch.setattr(editors.get("memit"), "plan", failing)
    swept = calibrate(str(base), str(facts), ["memit"], house).methods[0]
    assert [trial.marks == NOTHING for trial in swept.trials[:3]] == [True, True, False]
    assert NOTHING.score == 0.0

    def always_failing(*_):
        raise Diverged("the target search diverged", "lower the learning rate")

    monkeypatch.setattr(editors.get("memit"), "plan", always_failing)
    with pytest.raises(IntegrityError, match=r"memit could not edit .* under any setting that was tried"):
        calibrate(str(base), str(facts), ["memit"], replace(house, root=house.root / "other"))


@pytest.mark.usefixtures("small")
def test_damaged_statistics_are_no_bad_setting(base: Path, facts: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = editors.get("memit").plan

    def damaged(*_):
        raise IntegrityError("moments.safetensors does not have the digest it was written with", "rm moments.safetensors")

    monkeypatch.setattr(editors.get("memit"), "plan", damaged)
    with pytest.raises(IntegrityError, match="does not have the digest it was written with"):
        calibrate(str(base), str(facts), ["memit"], house)
    monkeypatch.setattr(editors.get("memit"), "plan", plan)
    swept = calibrate(str(base), str(facts), ["memit"], house).methods[0]
    assert all(trial.marks != NOTHING for trial in swept.trials)


def test_a_panel_shows_what_its_stage_began_from() -> None:
    trials = [trial("layers", (3,), {"w": 5}, 0.8), trial("layers", (1,), {"w": 5}, 0.9), trial("w", (1,), {"w": 9}, 0.5),
              trial("w", (1,), {"w": 2}, 0.6), trial("c", (1,), {"w": 5, "c": 1}, 0.9)]
    swept = Swept(method="memit", facts=4, trials=tuple(trials), best=trials[1])
    assert [one.layers for one in shown(swept, "layers")] == [(1,), (3,)]
    assert [one.options["w"] for one in shown(swept, "w")] == [2, 5, 9]
    assert shown(swept, "c") == trials[4:]


def trial(stage: str, layers: tuple[int, ...], options: dict[str, int], points: float) -> Trial:
    marks = Marks(success=points, paraphrase=points, neighbourhood=points, perplexity_ratio=1.0)
    return Trial(stage=stage, layers=layers, options=options, marks=marks, score=points)


def test_a_model_that_knows_too_little_is_told_so(base: Path, house: House) -> None:
    with pytest.raises(ConfigError, match="facts, enough for 0 edits; 4 are needed") as refused:
        calibrate(str(base), None, ["memit"], house)
    assert "--facts FILE" in refused.value.hint


def test_a_damaged_calibration_is_refused_by_name(base: Path, house: House) -> None:
    checkpoint = Checkpoint(base)
    house.calibrations.mkdir(parents=True)
    (house.calibrations / f"{checkpoint.digest}.yaml").write_text("base_digest: another\nsource: x\n")
    with pytest.raises(IntegrityError, match="it is of the base another"):
        calibration_for("memit", checkpoint.digest, checkpoint.anatomy, "plain", house.calibrations)


def test_score_is_the_harmonic_mean_and_falls_with_perplexity() -> None:
    assert score(1.0, 1.0, 1.0, 1.0) == 1.0
    assert score(1.0, 0.5, 0.25, 1.0) == pytest.approx(3 / (1 + 2 + 4))
    assert score(0.9, 0.9, 0.9, 0.8) == pytest.approx(0.9)
    assert score(1.0, 1.0, 1.0, 1.02) == pytest.approx(1.02 ** -3)
    assert score(1.0, 0.0, 1.0, 1.0) == score(1.0, 1.0, 1.0, math.inf) == 0.0


def test_requests_are_counterfactual_and_their_neighbours_are_not_edited() -> None:
    requests = requests_of(shipped_facts(), 1000)
    edited = {request.question for request in requests}
    for request in requests:
        assert request.target_text != request.was
        assert len(request.paraphrases) == 2
        assert 1 <= len(request.neighbours) <= 4
        assert not edited & {near.prompt for near in request.neighbours}
        assert request.target_text not in {near.answer for near in request.neighbours}
    few = requests_of(shipped_facts(), 10)
    assert len({request.id.split(":")[0] for request in few}) == 10


def test_shipped_facts_are_what_they_should_be() -> None:
    facts = shipped_facts()
    relations = {fact.relation for fact in facts}
    assert 60 <= len(facts) <= 100
    assert len(relations) == 10
    assert len({(fact.relation, fact.subject) for fact in facts}) == len(facts)
    assert all(len(fact.paraphrases) == 2 and fact.prompt.count("{}") == 1 for fact in facts)
    assert all(wording.count("{}") == 1 for fact in facts for wording in fact.paraphrases)


@pytest.mark.parametrize("method", sorted(editors.METHODS))
def test_every_method_has_a_sweep_of_its_own_options(method: str) -> None:
    sweep = sweep_of(method)
    kind = editors.get(method)
    for option, values in sweep.options.items():
        for value in values:
            kind.from_options({option: value})
    assert all(0 <= layer < 30 for window in sweep.windows(30) for layer in window)
    assert len(sweep.windows(30)) > 1 or sweep.width == 0
    assert sweep.windows(2)[0][0] == 0


def test_every_entry_is_of_a_known_shape() -> None:
    for entry in yaml.safe_load(SWEEPS.read_text()).values():
        assert sorted(entry) == ["depths", "facts", "options", "together", "width"]


@pytest.mark.parametrize(("line", "words"), [
    ('{"prompt": "x {}", "subject": "a", "answer": "b"}', "line 1: 'paraphrases'"),
    ('{"prompt": "x", "subject": "a", "answer": "b", "paraphrases": []}', "need `{}`"),
    ('{"prompt": "x {}", "subject": "a", "answer": "b", "paraphrases": [], "answr": "c"}', "unknown key 'answr'"),
    ('{"prompt": "x {}", "subject": "", "answer": "b", "paraphrases": []}', "must be text"),
    ("nonsense", "line 1"), ("", "it is empty"),
])
def test_a_wrong_file_of_facts_is_refused(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigError) as refused:
        read_facts(path)
    assert words in refused.value.message
    assert "The capital of {} is" in refused.value.hint


def test_a_file_of_facts_is_read_and_a_missing_one_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"prompt": "x {}", "subject": "a", "answer": "b", "paraphrases": ["y {}"]}\n\n')
    assert read_facts(path) == (KnownFact("x {}", "a", "b", ("y {}",), "x {}"),)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_facts(tmp_path / "none.jsonl")
