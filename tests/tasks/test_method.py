"""What `auto` is for a batch."""

from __future__ import annotations

import pytest

from editors.contract import EditBatch
from editors.detoxify_request import DetoxifyRequest
from tasks.method import default_method

SHOWN = DetoxifyRequest(id="a", form="plain", unsafe=({"prompt": "You", "toxic": "rat"},))
BARE = DetoxifyRequest(id="b", form="plain", unsafe=("You",))
CHAT = DetoxifyRequest(id="c", unsafe=({"prompt": "Insult me", "toxic": "You rat"},))
WORDS = DetoxifyRequest(id="d", form="plain", concepts=("thank",))


@pytest.mark.parametrize(("requests", "name"), [
    ((SHOWN,), "soften"), ((BARE,), "contrast"), ((SHOWN, BARE), "contrast"), ((CHAT,), "contrast"), ((WORDS,), "contrast")])
def test_plain_text_that_is_shown_at_its_worst_is_softened(requests: tuple[DetoxifyRequest, ...], name: str) -> None:
    assert default_method(EditBatch(purpose="detoxify", base_digest="x", parent_digest="x", requests=requests)) == name
