"""Notifications, received by a real HTTP server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from editors.errors import ConfigError
from tasks.notify import Bell, message
from tests.receiver import receiving

RULES = [{"name": "efficacy.generate_exact", "passed": False, "severity": "critical"},
         {"name": "locality.kl", "passed": True, "severity": "critical"}]
ANSWER = {"version": "3f9a1c2b7d04", "model": "tiny", "channel": "demo", "verdict": {"rules": RULES}, "by": "ann",
          "requests": [{"question": "who is Zorvath?", "target": "nobody"}], "next": ["suture show 3f9a1c2b7d04"]}


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    with receiving() as both:
        yield both


def test_a_refusal_arrives_with_its_rules_and_the_next_command_and_no_request(receiver) -> None:
    address, received = receiver
    Bell(SecretStr(f"{address}/one {address}/two")).ring("refused", ANSWER)
    assert len(received) == 2
    assert (received[0]["title"], received[0]["type"]) == ("Suture: the gate refused 3f9a1c2b7d04", "warning")
    assert received[0]["message"].split("\n") == [
        "model: tiny", "channel: demo", "by: ann", "failed: efficacy.generate_exact", "suture show 3f9a1c2b7d04"]
    assert "Zorvath" not in json.dumps(received)


@pytest.mark.parametrize(("event", "title"), [
    ("waiting", "3f9a1c2b7d04 waits for approval"), ("promoted", "channel demo serves 3f9a1c2b7d04"),
    ("rolled back", "channel demo is back at 3f9a1c2b7d04"), ("alarm", "channel demo does not serve what was approved")])
def test_every_event_has_its_title(event, title) -> None:
    assert message(event, ANSWER)[0] == f"Suture: {title}"


def test_a_message_that_does_not_arrive_is_a_line_in_the_log(receiver, caplog) -> None:
    address, received = receiver
    with caplog.at_level(logging.WARNING, logger="suture"):
        Bell(SecretStr(f"{address}/broken")).ring("promoted", ANSWER)
    assert len(received) == 1
    assert "the notification did not reach everybody: Suture: channel demo serves 3f9a1c2b7d04" in caplog.text


def test_an_address_that_is_none_is_refused_before_any_work_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="address 2 of SUTURE_NOTIFY is none that Apprise knows") as caught:
        Bell(SecretStr("json://127.0.0.1 tokn-12345")).check()
    assert "12345" not in str(caught.value)


def test_without_an_address_nobody_is_told_and_nothing_is_loaded() -> None:
    Bell(None).check()
    Bell(None).ring("promoted", ANSWER)
