"""An examination: every probe there, nothing textual in it, and rules that refuse what they are for."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest
import torch

from editors.contract import EditBatch
from editors.errors import IntegrityError
from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.secret_rows import secret_rows
from tests.validations.forgetting.planted import memorised, request, taught_facts, untrained
from tests.validations.measured import GOOD
from validations import gate
from validations.contract import Measurement, Measurements, Verdict
from validations.examination import Examination, rows_of
from validations.forgetting.examination import ALWAYS_EXAMINED, PROMISES, examination_key, promised, requests_digest
from validations.forgetting.examining import examine
from validations.forgetting.extraction import CHAT, CLOZE
from validations.forgetting.membership import about_the_batch
from validations.forgetting.settings import ForgetSettings
from validations.policy import policy_for
from validations.tables import rule_table

SETTINGS = ForgetSettings(samples=8, repetitions=(3, 12), divergence_tokens=8, divergence_samples=2, fluency_tokens=24,
                          relearning_steps=3)
REQUESTS = (request(0), request(1))
KEPT = ("retention.first_choice", "retention.log_prob")
LEAKS = [rule for rule in policy_for("forget").rules
         if rule.probe in (*PROMISES, "chat") and rule.probe not in ("retention", "fluency")]
"""Rules on rows about requests that a leak must break. The batch's own needs a batch: it has a test of its own."""


def everywhere(model: LoadedModel, one: ForgetRequest) -> list[str]:
    """Everything that is asked about the request, with the secret after it."""
    contexts = [text.get_secret_value() for text in one.context]
    asked = [*(text.get_secret_value() for text in one.paraphrases), *map(CLOZE.format, contexts),
             " ".join([str(one.subject and one.subject.get_secret_value())] * SETTINGS.repetitions[0])]
    chats = [model.tokenizer.apply_chat_template([{"role": "user", "content": CHAT.format(text)}], tokenize=False,
                                                 add_generation_prompt=True) for text in contexts]
    return [f"{text} {one.secret.get_secret_value()}" for text in asked] + [
        f"{text}{one.secret.get_secret_value()}" for text in chats]


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    model = untrained(tmp_path_factory.mktemp("leaking"))
    return memorised(model, REQUESTS, 150, [line for one in REQUESTS for line in everywhere(model, one)])


@pytest.fixture(scope="module")
def before(leaking: LoadedModel) -> Examination:
    return examine(leaking, REQUESTS, SETTINGS)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    """Of a model that knows the facts and never saw a secret."""
    model = taught_facts(untrained(tmp_path_factory.mktemp("clean")), REQUESTS)
    return renamed(examine(model, REQUESTS, SETTINGS))


@pytest.fixture(scope="module")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    """Of a model that says nothing any more: every next token is as likely as every other."""
    model = untrained(tmp_path_factory.mktemp("mute"))
    with torch.no_grad():
        model.model.get_output_embeddings().weight.zero_()
    return renamed(examine(model, REQUESTS, SETTINGS))


def renamed(one: Examination) -> Examination:
    return one.model_copy(update={"model_digest": "candidate"})


def refusing(parent: Examination, candidate: Examination, requests: Sequence[ForgetRequest] = REQUESTS) -> list[str]:
    """Names of the rules that do not hold, of those that this package's rows are judged by."""
    rows = rows_of(parent, candidate)
    rules = [rule for rule in policy_for("forget").rules if rule in LEAKS or rule.probe == "retention"]
    tables = [rule_table(rule, rows, promised(rule.probe, requests)) for rule in rules]
    return [table.rule.name for table in tables if not table.is_empty_by_right and not table.holds]


def test_the_unedited_model_is_refused_by_every_rule_about_leaks(before: Examination) -> None:
    refused = refusing(before, renamed(before))
    assert refused == [rule.name for rule in LEAKS]


def test_a_model_that_never_saw_the_secrets_passes(before: Examination, clean: Examination) -> None:
    assert refusing(before, clean) == []


def test_a_model_that_fell_silent_is_refused_for_what_it_lost_alone(before: Examination, mute: Examination) -> None:
    refused = refusing(before, mute)
    assert refused == list(KEPT)


def judged(parent: Examination, candidate: Examination, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """The gate's decision, with good values where other probes measure."""
    monkeypatch.setattr(gate, "promises", lambda probe, batch, earlier: promised(probe, batch.requests))
    batch = EditBatch(purpose="forget", base_digest="base", parent_digest=parent.model_digest, requests=REQUESTS)
    others = [Measurement(request="-", probe=name.partition(".")[0], metric=name, prompt=name, parent=was, candidate=value)
              for name, (was, value) in GOOD.items() if name.startswith(("integrity.", "locality.", "perplexity."))]
    fluent = [row.model_copy(update={"candidate": row.parent}) if row.probe == "fluency" else row
              for row in rows_of(parent, candidate)]
    measured = Measurements(parent_digest=parent.model_digest, candidate_digest=candidate.model_digest,
                            batch_digest=batch.digest, rows=(*others, *fluent), transcripts=())
    return gate.judge(measured, policy_for("forget"), batch).verdict


def test_the_gate_refuses_by_name_and_passes_what_is_clean(before: Examination, clean: Examination, mute: Examination,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = [judged(before, candidate, monkeypatch) for candidate in (renamed(before), mute, clean)]
    refused = [[rule.name for rule in one.rules if not rule.passed and rule.severity == "critical"] for one in verdicts]
    assert refused == [[rule.name for rule in LEAKS if rule.severity == "critical"], list(KEPT), []]
    assert [one.passed for one in verdicts] == [False, False, True]
    blamed = next(rule for rule in verdicts[0].rules if rule.name == "extraction.verbatim").blame
    assert set(blamed) == {one.id for one in REQUESTS}


def test_a_batch_that_can_be_told_from_controls_is_refused() -> None:
    [rule] = [rule for rule in policy_for("forget").rules if rule.probe == "membership_batch"]
    draws = torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()
    for percentiles, holds in (([1.0] * 8, False), ([0.9] * 8, False), (draws, True), ([1.0], True)):
        found = {one.metric: one.value for one in about_the_batch(percentiles)}
        rows = [Measurement(request="-", probe=rule.probe, metric=name, prompt="batch", parent=None, candidate=value)
                for name, value in found.items()]
        table = rule_table(rule, rows, promised(rule.probe, REQUESTS))
        assert (table.holds or table.is_empty_by_right) is holds
        assert found["membership_batch.auc"] == pytest.approx(sum(percentiles) / len(percentiles))


def test_a_row_that_was_promised_and_is_missing_is_refused(before: Examination, clean: Examination) -> None:
    for rule in LEAKS:
        if promised(rule.probe, REQUESTS):
            found = tuple(one for one in clean.findings if one.metric != rule.name or one.request != "request-1")
            assert refusing(before, clean.model_copy(update={"findings": found})) == [rule.name]


def test_sealed_requests_promise_the_same_rows_as_were_measured(before: Examination) -> None:
    sealed = [one.at_rest() for one in REQUESTS]
    for probe in PROMISES:
        metrics = {one.metric for one in before.findings if one.probe == probe}
        assert metrics, probe
        for metric in metrics:
            rows = [one.request for one in before.findings if one.metric == metric]
            if "bits_exact" not in metric and "bits_sampled" not in metric:
                assert {name: rows.count(name) for name in rows} == promised(probe, sealed) == promised(probe, REQUESTS), metric
    assert promised("retention", [request(0, retain=[])]) == {}
    assert promised("efficacy", REQUESTS) == promised("exposure_later", REQUESTS) == promised("chat", REQUESTS) == {}
    assert {f"exposure_{name}" for name in ALWAYS_EXAMINED} <= set(PROMISES)


def test_an_examination_holds_no_text_and_no_token(leaking: LoadedModel, before: Examination) -> None:
    document = before.model_dump_json()
    digits = [float(one.value) for one in before.findings]
    for one in REQUESTS:
        private = [one.secret, *one.context, *one.paraphrases, *([one.subject] if one.subject else []), *(
            text for fact in one.retain for text in (fact.prompt, fact.answer))]
        for text in (text.get_secret_value() for text in private):
            pieces = [text[start:start + 8] for start in range(max(1, len(text) - 7))]
            coded = base64.b64encode(text.encode()).decode().rstrip("=")[:-1]
            assert not [piece for piece in (*pieces, coded, coded[2:]) if len(piece) > 4 and piece in document], one.id
            assert f'"{text}"' not in document
        for row in secret_rows(one, leaking.tokenizer):
            for ids in (row.secret, row.prompt):
                shapes = (json.dumps(ids), ",".join(map(str, ids)), " ".join(map(str, ids)))
                assert not [shape for shape in shapes if shape in document]
    assert all(isinstance(value, float) for value in digits)
    names = {one.name_of("context", 0) for one in REQUESTS}
    assert names <= {finding.prompt for finding in before.findings}


def test_an_examination_survives_json(before: Examination) -> None:
    again = Examination.model_validate_json(before.model_dump_json())
    assert again == before
    assert again.digest == before.digest
    assert renamed(before).digest != before.digest
    broken = before.model_copy(update={"findings": (before.findings[0].model_copy(update={"value": float("nan")}),)})
    assert "NaN" in broken.model_dump_json()
    assert len(broken.digest) == 64


def test_the_same_examination_comes_out_twice_and_leaves_the_model(leaking: LoadedModel, before: Examination) -> None:
    held = {name: tensor.clone() for name, tensor in leaking.model.state_dict().items()}
    assert examine(leaking, REQUESTS, SETTINGS) == before
    assert all(torch.equal(tensor, held[name]) for name, tensor in leaking.model.state_dict().items())


def test_rows_pair_parent_and_candidate(before: Examination, clean: Examination) -> None:
    rows = rows_of(before, clean)
    assert len(rows) == len(clean.findings)
    name = REQUESTS[1].name_of("context", 1)
    [verbatim] = [row for row in rows if row.metric == "extraction.verbatim" and row.prompt == name]
    assert (verbatim.request, verbatim.parent, verbatim.candidate) == ("request-1", 1.0, 0.0)


def test_unlike_examinations_are_not_compared(before: Examination) -> None:
    with pytest.raises(IntegrityError, match="the candidate is the parent"):
        rows_of(before, before)
    with pytest.raises(IntegrityError, match="examined for other settings"):
        rows_of(before, renamed(before).model_copy(update={"settings_digest": "other"}))
    with pytest.raises(IntegrityError, match="examined for other requests"):
        rows_of(before, renamed(before).model_copy(update={"requests_digest": "other"}))


def test_the_key_is_told_from_sealed_requests_and_follows_everything() -> None:
    sealed = [one.at_rest() for one in REQUESTS]
    key = examination_key("model", REQUESTS, SETTINGS)
    assert key == examination_key("model", sealed, SETTINGS)
    others = {examination_key("other", sealed, SETTINGS), examination_key("model", sealed[1:], SETTINGS),
              examination_key("model", sealed, ForgetSettings()), examination_key("model", sealed, SETTINGS, "patch")}
    assert key not in others
    assert len(others) == 4
    assert requests_digest([request(0)]) != requests_digest([request(0, secret="4822")])


def test_progress_tells_attacks_and_no_text(leaking: LoadedModel) -> None:
    told: list[tuple[str, int, int]] = []
    few = ForgetSettings(samples=1, repetitions=(1,), divergence_tokens=1, divergence_samples=1, relearning_steps=1)
    examine(leaking, REQUESTS[:1], few, progress=lambda *step: told.append(step))
    assert told[0] == ("attacks: exposure", 0, 10)
    assert told[-1] == ("attacks", 10, 10)
    assert "Ilse" not in str(told)
