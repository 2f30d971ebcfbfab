"""Probes on tiny models that are really edited: each number against its own definition, each mix-up refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from editors.contract import UpdateRequest
from editors.loading import LoadedModel, load
from editors.prompts import encode, render_text
from tests.validations.line import CHAT, EARLIER, OVERWRITTEN, PLAIN, SETTINGS, Line, of
from validations import probes
from validations.observation import (
    Likeliest,
    Observation,
    Reply,
    Scope,
    Scored,
    neutral_prompts,
    observation_key,
)
from validations.observing import observe
from validations.probes.locality import kl_divergence


def mean_log_prob(model: LoadedModel, request: UpdateRequest, text: str, answer: str) -> tuple[float, float]:
    """Mean log-probability and share of first choices, by one full forward."""
    whole = encode(render_text(request, model.tokenizer, text, answer), model.tokenizer)
    with torch.inference_mode():
        log_probs = model.model(torch.tensor([whole.ids])).logits[0].log_softmax(-1)[whole.prompt_length - 1:-1]
    wanted = torch.tensor(whole.ids[whole.prompt_length:])
    return float(log_probs[torch.arange(len(wanted)), wanted].mean()), float((log_probs.argmax(-1) == wanted).float().mean())


@pytest.mark.parametrize("which", ["parent", "candidate"])
def test_likelihoods_equal_their_definition(line: Line, which: str) -> None:
    model = load(line.parent if which == "parent" else line.candidate)
    for metric, request, text, wanted, other in (
        ("efficacy", PLAIN, PLAIN.question, "Rome", "Paris"),
        ("paraphrase", PLAIN, PLAIN.paraphrases[1], "Rome", "Paris"),
        ("neighbourhood", PLAIN, PLAIN.neighbours[0].prompt, "Paris", "Rome"),
        ("neighbourhood", CHAT, CHAT.neighbours[1].prompt, "mother tongue", CHAT.target_text),
    ):
        likely, hits = mean_log_prob(model, request, text, wanted)
        rival, _ = mean_log_prob(model, request, text, other)
        reply = next(reply for reply in (line.before if which == "parent" else line.after).replies
                     if reply.probe == metric and reply.prompt == _digest(model, request, text))
        name = "kept" if metric == "neighbourhood" else "target"
        assert reply.scores[name].mean == pytest.approx(likely, abs=1e-4)
        [success] = [row for row in of(line.measured(), f"{metric}.prob_success") if row.prompt == reply.prompt]
        [forced] = [row for row in of(line.measured(), f"{metric}.teacher_forced") if row.prompt == reply.prompt]
        assert getattr(success, which) == float(likely > rival)
        assert getattr(forced, which) == pytest.approx(hits)


def _digest(model: LoadedModel, request: UpdateRequest, text: str) -> str:
    from editors.digest import digest_bytes

    return digest_bytes(render_text(request, model.tokenizer, text, None).text.encode())


def test_every_promised_prompt_has_its_row(line: Line) -> None:
    measured = line.measured()
    counts = {"efficacy": 2, "paraphrase": 3, "neighbourhood": 4, "portability": 2, "history": 1}
    for probe, count in counts.items():
        for protocol in ("prob_success", "teacher_forced", "generate_exact"):
            rows = of(measured, f"{probe}.{protocol}")
            assert len(rows) == count, (probe, protocol)
            assert all(row.parent is not None and row.n >= 1 for row in rows)
    assert [row.request for row in of(measured, "efficacy.generate_accept")] == ["name"]
    assert [row.request for row in of(measured, "neighbourhood.generate_accept")] == ["name"]
    assert len(of(measured, "locality.same_answer")) == 4 + sum(map(len, neutral_prompts().values()))
    assert {row.metric for row in measured.rows if row.probe == "fluency"} == {
        "fluency.ngram_entropy", "fluency.repetition"}
    assert [row.n for row in of(measured, "perplexity.held_out")] == [300 - 2]


def test_an_answer_that_the_model_really_learnt_is_seen_in_free_generation(line: Line, tmp_path: Path) -> None:
    model = load(line.parent)
    wanted = next(reply for reply in line.before.replies if reply.probe == "efficacy" and reply.request == "tower")
    learnt = str(model.tokenizer.decode(list(wanted.greedy[:3]))).strip()
    request = PLAIN.model_copy(update={"target": learnt, "was": None, "paraphrases": (), "neighbours": ()})
    scope = Scope.of([request], settings=SETTINGS)
    reply = observe(model, scope).replies[0]
    [row] = [row for row in probes.get("efficacy").rows(scope, [(reply, reply)]) if row.metric.endswith("generate_exact")]
    assert row.candidate == 1.0
    unlearnt = scope.requests[0].model_copy(update={"target": "Rome"})
    [row] = [row for row in probes.get("efficacy").rows(Scope.of([unlearnt]), [(reply, reply)])
             if row.metric.endswith("generate_exact")]
    assert row.candidate == 0.0


def test_the_parents_own_answer_is_the_expectation_where_the_sheet_gives_none(line: Line) -> None:
    before = {reply.key: reply for reply in line.before.replies}
    after = {reply.key: reply for reply in line.after.replies}
    own = before["neighbourhood", "tower", "neighbour", 1]
    target = own.scores["target"]
    assert own.scores["kept"].ids == own.greedy[:len(target.ids)]
    assert after[own.key].scores["kept"].ids == own.scores["kept"].ids
    untold = before["efficacy", "name", "edit", 0]
    assert untold.scores["was"].ids == untold.greedy[:len(untold.scores["target"].ids)]
    assert after[untold.key].scores["was"].ids == untold.scores["was"].ids
    rows = [row for row in of(line.measured(), "neighbourhood.generate_exact") if row.prompt == own.prompt]
    assert [row.parent for row in rows] == [1.0]


def test_locality_sees_the_difference_and_equals_the_whole_divergence(line: Line) -> None:
    text = neutral_prompts()["plain"][0]
    distributions = []
    for checkpoint in (line.parent, line.candidate):
        model = load(checkpoint)
        with torch.inference_mode():
            distributions.append(model.model(torch.tensor([model.tokenizer(text)["input_ids"]])).logits[0, -1].log_softmax(-1))
    before, after = (distribution.double() for distribution in distributions)
    whole = float((before.exp() * (before - after)).sum())
    [row] = [row for row in of(line.measured(), "locality.kl") if row.prompt == _digest(model, PLAIN, text)]
    assert 0 < row.candidate <= whole + 1e-6
    assert row.candidate == pytest.approx(whole, rel=0.05)
    [same] = [one for one in of(line.measured(), "locality.same_answer") if one.prompt == row.prompt]
    assert same.candidate == float(before.argmax() == after.argmax())


def test_divergence_by_hand() -> None:
    parent = Likeliest(ids=(1, 2), log_probs=(math.log(0.5), math.log(0.3)), rest=math.log(0.2))
    moved = Likeliest(ids=(1, 2), log_probs=(math.log(0.25), math.log(0.5)), rest=math.log(0.25))
    expected = 0.5 * math.log(2) + 0.3 * math.log(0.6) + 0.2 * math.log(0.8)
    assert kl_divergence(parent, moved) == pytest.approx(expected)
    assert kl_divergence(parent, parent) == 0.0
    broken = moved.model_copy(update={"log_probs": (math.nan, 0.0)})
    assert math.isnan(kl_divergence(parent, broken))


def test_perplexity_equals_one_forward_for_short_texts(line: Line) -> None:
    text = "The mother tongue of Danielle Darrieux is French."
    settings = SETTINGS.model_copy(update={"held_out": (text,), "window_tokens": 512})
    model = load(line.parent)
    scope = Scope.of([PLAIN], settings=settings)
    replies = [reply for reply in observe(model, scope).replies if reply.probe == "perplexity"]
    [row] = probes.get("perplexity").rows(scope, [(reply, reply) for reply in replies])
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        expected = math.exp(float(model.model(ids, labels=ids).loss))
    assert row.candidate == pytest.approx(expected, rel=1e-4)
    assert row.n == ids.shape[1] - 1


def test_history_leaves_out_what_was_overwritten_and_says_so(line: Line) -> None:
    measured = line.measured()
    assert [row.request for row in of(measured, "history.superseded")] == ["old"]
    assert line.scope.history == (EARLIER,)
    again = EARLIER.model_copy(update={"target": "finite"})
    assert Scope.of([PLAIN], [EARLIER, again]).history == (again,)


def test_transcripts_show_both_answers(line: Line) -> None:
    measured = line.measured()
    assert [(one.request, one.role) for one in measured.transcripts] == [
        ("tower", "edit"), ("name", "edit"), ("tower", "paraphrase"), ("tower", "paraphrase"), ("name", "paraphrase"),
        *[("tower", "neighbour")] * 2, *[("name", "neighbour")] * 2, ("tower", "implication"), ("name", "implication")]
    first = measured.transcripts[0]
    assert (first.prompt, first.expected) == (PLAIN.question, "Rome")
    answers = [reply for reply in line.after.replies if reply.key == ("efficacy", "tower", "edit", 0)]
    assert first.candidate == answers[0].text.strip()
    assert any(one.parent != one.candidate for one in measured.transcripts)


def test_observations_keep_their_value_through_json_and_have_an_address(line: Line) -> None:
    stored = json.loads(line.before.model_dump_json())
    assert Observation.model_validate(stored) == line.before
    key = observation_key(line.parent.digest, line.scope)
    assert key == observation_key(line.parent.digest, Scope.of((PLAIN, CHAT), [OVERWRITTEN, EARLIER], SETTINGS))
    others = {observation_key(line.base.digest, line.scope), observation_key(line.parent.digest, Scope.of((PLAIN,))),
              observation_key(line.parent.digest, line.scope, line.before)}
    assert len(others | {key}) == 4


def test_a_prompt_is_read_once_however_many_probes_ask(line: Line) -> None:
    from validations.observing import Plan

    tokenizer = load(line.parent).tokenizer
    questions = [question for name in probes.names() for question in probes.get(name).questions(line.scope, tokenizer)]
    plan = Plan()
    for question in questions:
        plan.add(question)
    assert len(plan.asks) == len({question.ids for question in questions})
    assert len(plan.asks) < len(questions)


def test_scores_count_first_choices() -> None:
    assert Scored(ids=(4, 5), mean=-0.1, hits=2).is_first_choice
    assert not Scored(ids=(4, 5), mean=-0.1, hits=1).is_first_choice
    assert Reply(probe="p", request="r", role="edit", index=0, prompt="d", first=1, finite=True).text == ""
