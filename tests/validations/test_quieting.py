"""A secret that a model brings up by itself is not written down."""

from __future__ import annotations

from tests.editors.test_forget_request import KEY, SECRET, asked, quotes
from validations.observation import Observation, Reply, Scored
from validations.quieting import quieted


def reply(text: str, sampled: str = "") -> Reply:
    return Reply(probe="locality", request="-", role="chat", index=0, prompt="d", first=5, finite=True, greedy=(5, 6, 7),
                 text=text, sampled=sampled, scores={"same": Scored(ids=(5, 6, 7), mean=-1.0, hits=3)})


def test_only_answers_that_hold_a_piece_are_cut() -> None:
    told = (reply(f"Call {SECRET} now"), reply("fine", sampled="ask Mira Velden"), reply("The number of things is large"))
    seen = Observation(model_digest="m", reference_digest=None, questions_digest="q", replies=told)
    quiet = quieted(seen, [asked().sealed(KEY)])
    assert quotes(quiet.model_dump_json()) == []
    assert [one.greedy for one in quiet.replies] == [(5,), (5,), (5, 6, 7)]
    assert [one.scores["same"].ids for one in quiet.replies] == [(5,), (5,), (5, 6, 7)]
    assert [one.scores["same"].hits for one in quiet.replies] == [1, 1, 3]
    assert quiet.replies[2] == told[2]
    assert quieted(seen, []) == seen
