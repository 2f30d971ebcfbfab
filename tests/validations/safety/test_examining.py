"""An examination of a detoxified model, and the policy that judges it: the good edit passes, each bad one breaks its rule."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint

import pytest
import torch

from editors.contract import EditBatch
from editors.detoxify_request import DetoxifyRequest
from editors.errors import IntegrityError, SheetError
from editors.loading import LoadedModel
from editors.prompts import render_text
from tests.validations.measured import GOOD
from tests.validations.safety import gallery
from tests.validations.safety.gallery import PROSE, REQUESTS, SETTINGS, TALK, edited, parent_of
from validations import gate
from validations.contract import Measurement, Measurements, Verdict
from validations.examination import Examination, rows_of
from validations.policy import policy_for
from validations.questions import CHAT
from validations.safety import judges
from validations.safety.examination import PROMISES, examination_key, promised, satisfied
from validations.safety.examining import examine
from validations.safety.settings import SafetySettings
from validations.safety.varying import distinct, self_bleu
from validations.safety.wrapping import WRAPPINGS
from validations.tables import promises, rule_table

OWN = tuple(PROMISES)


@pytest.fixture(scope="module", autouse=True)
def _word_judge() -> None:
    offered = [EntryPoint("words", f"{gallery.__name__}:WordJudge", judges.ENTRY_POINT_GROUP)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "entry_points", lambda group: offered)
        yield


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return parent_of(tmp_path_factory.mktemp("parent"))


@pytest.fixture(scope="module")
def before(parent: LoadedModel) -> Examination:
    return examine(parent, REQUESTS, SETTINGS)


@pytest.fixture(scope="module")
def good(parent: LoadedModel, before: Examination) -> Examination:
    return candidate("good", parent, before)


def candidate(name: str, parent: LoadedModel, before: Examination) -> Examination:
    return examine(edited(parent, name), REQUESTS, SETTINGS, reference=before)


def renamed(one: Examination) -> Examination:
    return one.model_copy(update={"model_digest": "candidate"})


def judged(before: Examination, after: Examination) -> Verdict:
    """The gate's decision, with good values where other probes measure."""
    batch = EditBatch(purpose="detoxify", base_digest="base", parent_digest=before.model_digest, requests=REQUESTS)
    others = [Measurement(request="-", probe=name.partition(".")[0], metric=name, prompt=name, parent=was, candidate=value)
              for name, (was, value) in GOOD.items() if name.startswith(("integrity.", "locality.", "perplexity."))]
    found = Measurements(parent_digest=before.model_digest, candidate_digest=after.model_digest, batch_digest=batch.digest,
                         rows=(*others, *rows_of(before, after)), transcripts=())
    return gate.judge(found, policy_for("detoxify"), batch).verdict


def refusing(verdict: Verdict) -> list[str]:
    return [rule.name for rule in verdict.rules if not rule.passed and rule.severity == "critical"]


def values(one: Examination, metric: str, request: str = TALK.id) -> list[float]:
    return [found.value for found in one.findings if (found.metric, found.request) == (metric, request)]


def test_a_good_edit_passes(before: Examination, good: Examination) -> None:
    verdict = judged(before, good)
    assert refusing(verdict) == []
    assert verdict.passed
    assert values(before, "defence.refused") == [0.0, 0.0]
    assert values(good, "defence.refused") == values(good, "defence_unseen.refused") * 2 == [1.0, 1.0]
    assert values(good, "toxicity_left.share", PROSE.id)[0] < 0.5 < values(before, "toxicity_left.share", PROSE.id)[0] == 1.0


def test_an_edit_that_did_nothing_is_refused_for_what_it_did_not_do(parent: LoadedModel, before: Examination) -> None:
    idle = renamed(examine(parent, REQUESTS, SETTINGS, reference=before))
    verdict = judged(before, idle)
    assert refusing(verdict) == ["defence.refused", "toxicity_left.share"]
    assert idle.findings == before.findings


def test_a_model_that_refuses_everything_is_refused_for_over_refusal(parent: LoadedModel, before: Examination) -> None:
    verdict = judged(before, candidate("refuses everything", parent, before))
    assert {"over_refusal.rate", "benign.log_prob"} <= set(refusing(verdict))
    blamed = next(rule for rule in verdict.rules if rule.name == "over_refusal.rate").blame
    assert set(blamed) == {TALK.id, PROSE.id}
    assert not [name for name in refusing(verdict) if name.startswith(("defence", "toxicity", "sentences"))]


def test_a_model_that_repeats_itself_is_refused_for_its_diversity(parent: LoadedModel, before: Examination) -> None:
    refused = refusing(judged(before, candidate("repeats itself", parent, before)))
    assert {"diversity.distinct_pairs", "diversity.self_bleu", "fluency.ngram_entropy"} <= set(refused)
    assert not [name for name in refused if name.startswith(("defence", "toxicity", "over_refusal"))]


def test_a_row_that_was_promised_and_is_missing_is_refused(before: Examination, good: Examination) -> None:
    for rule in policy_for("detoxify").rules:
        if rule.probe in OWN and rule.severity == "critical":
            rows, owed = rows_of(before, good), promised(rule.probe, REQUESTS)
            assert rule_table(rule, rows, owed).holds, rule.name
            for request in owed:
                fewer = [row for row in rows if row.request != request]
                assert not rule_table(rule, fewer, owed).holds, rule.name


def test_what_is_promised_is_measured(before: Examination) -> None:
    batch = EditBatch(purpose="detoxify", base_digest="b", parent_digest="p", requests=REQUESTS)
    for probe in PROMISES:
        for metric in {one.metric for one in before.findings if one.probe == probe}:
            rows = [one.request for one in before.findings if one.metric == metric]
            assert {name: rows.count(name) for name in rows} == promised(probe, REQUESTS) == promises(probe, batch, ()), metric
    assert {one.probe for one in before.findings} == set(PROMISES)
    assert promised("efficacy", REQUESTS) == {}
    assert promised("defence_wrapped", REQUESTS) == {TALK.id: len(WRAPPINGS)}


def test_the_answers_expected_of_a_candidate_are_the_parents_own(parent: LoadedModel, before: Examination) -> None:
    """Mean log-probability of the parent's greedy answer, token by token without a cache."""
    [own] = [one for one in before.said if one.role == "benign" and one.request == TALK.id]
    prompt = parent.tokenizer(render_text(CHAT, parent.tokenizer, own.prompt, None).text, add_special_tokens=False)["input_ids"]
    text = parent.tokenizer(own.text, add_special_tokens=False)["input_ids"]
    slow = []
    for place, token in enumerate(text):
        with torch.no_grad():
            logits = parent.model(torch.tensor([[*prompt, *text[:place]]])).logits[0, -1].double()
        slow.append(float(logits.log_softmax(-1)[token]))
    assert values(before, "benign.log_prob")[0] == pytest.approx(sum(slow) / len(slow), abs=1e-4)
    other = before.model_copy(update={"said": tuple(
        one.model_copy(update={"text": "zzz qqq"}) if one.role == "benign" else one for one in before.said)})
    unlike = examine(parent, REQUESTS, SETTINGS, reference=other)
    assert values(unlike, "benign.log_prob")[0] < values(before, "benign.log_prob")[0] - 1


def test_the_same_examination_comes_out_twice_and_leaves_the_model(parent: LoadedModel, before: Examination) -> None:
    held = {name: tensor.clone() for name, tensor in parent.model.state_dict().items()}
    assert examine(parent, REQUESTS, SETTINGS) == before
    assert all(torch.equal(tensor, held[name]) for name, tensor in parent.model.state_dict().items())
    assert Examination.model_validate_json(before.model_dump_json()) == before


def test_a_request_alone_shows_what_it_shows_in_company(parent: LoadedModel, before: Examination) -> None:
    alone = examine(parent, [TALK], SETTINGS)
    assert [(one.key, pytest.approx(one.value, abs=1e-4)) for one in alone.findings] == [
        (one.key, one.value) for one in before.findings if one.request == TALK.id]


def test_a_reference_that_was_asked_something_else_is_refused(parent: LoadedModel, before: Examination) -> None:
    with pytest.raises(IntegrityError, match="examined for other requests or settings"):
        examine(parent, [TALK], SETTINGS, reference=before)


def test_a_chat_without_a_template_is_refused(parent: LoadedModel) -> None:
    import copy

    mute = LoadedModel(parent.model, copy.copy(parent.tokenizer), parent.anatomy, parent.digest)
    mute.tokenizer.chat_template = None
    with pytest.raises(SheetError, match="no chat template"):
        examine(mute, [TALK], SETTINGS)


def test_the_key_follows_model_requests_settings_judge_and_reference(before: Examination) -> None:
    keys = [examination_key("m", REQUESTS, SETTINGS), examination_key("n", REQUESTS, SETTINGS),
            examination_key("m", [TALK], SETTINGS), examination_key("m", REQUESTS, SafetySettings()),
            examination_key("m", REQUESTS, SETTINGS, before.digest)]
    assert len(set(keys)) == len(keys)
    assert keys[0] == examination_key("m", list(REQUESTS), SETTINGS.model_copy())


def test_a_request_is_satisfied_when_the_parent_does_it_already(before: Examination, good: Examination) -> None:
    assert satisfied(before, REQUESTS) == {TALK.id: False, PROSE.id: False}
    assert satisfied(good, REQUESTS) == {TALK.id: True, PROSE.id: True}
    assert satisfied(before, [DetoxifyRequest(id="manner", concepts=("polite",))]) == {"manner": False}


def test_diversity_by_hand() -> None:
    texts = [["a", "b", "a", "b"], ["a", "c"]]
    assert distinct(texts, 2) == pytest.approx(3 / 4)
    assert distinct([["a"]], 2) == 0.0
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == pytest.approx(1.0)
    one, other = ["a", "b", "c"], ["a", "b", "d"]
    by_hand = math.exp((math.log(2 / 3) + math.log(1 / 2) + math.log(0.5 / 1)) / 3)
    assert self_bleu([one, other]) == pytest.approx(by_hand)
    assert self_bleu([["a", "b"], ["c", "d"]]) < 0.4
    assert self_bleu([[], []]) == 1.0
