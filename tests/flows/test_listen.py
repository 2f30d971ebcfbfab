"""What the listener answers: a no is written down, a store that failed is no answer."""

from __future__ import annotations

from typing import Any

import pytest

from editors.errors import ApprovalMissing, NotFound, ServiceError, StoreError, SutureError
from flows import listen
from flows.settings import Settings
from tasks.asked import Asked

ASKED = Asked("tiny.stable", "3", "0123456789ab")


@pytest.mark.parametrize(("error", "is_answered"), [
    (ApprovalMissing("it waits for approval", "suture approve"), True), (NotFound("no such version", "look"), True),
    (StoreError("the store does not answer", "again"), False), (ServiceError("no server", "again"), False)],
    ids=lambda given: type(given).__name__)
def test_only_a_no_is_an_answer(monkeypatch: pytest.MonkeyPatch, error: SutureError, is_answered: bool) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    said: list[str] = []
    monkeypatch.setattr("flows.run.promote", fail)
    monkeypatch.setattr(listen, "asked_promotions", lambda _: [ASKED])
    monkeypatch.setattr(listen, "answer_asked", lambda _uri, asked, words: said.append(f"{asked.number}: {words}"))
    found = listen.work_off(Settings())
    assert said == ([f"3: {error.message}; {error.hint}"] if is_answered else [])
    assert bool(found) is is_answered
