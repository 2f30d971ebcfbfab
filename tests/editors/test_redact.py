"""Redact: a secret stands where a never-seen value might, and what is known besides stays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from editors import get
from editors.contract import Location
from editors.errors import ConfigError
from editors.forget_aim import Aim
from editors.loading import LoadedModel
from editors.patch import Patch, applied, load_patch
from tests.editors.memorised import FORGOTTEN, NAMES, TEMPLATES, batch_on, memorised, requests, secret_of
from tests.tiny import FAMILIES

OPTIONS = {"covariance_weight": 0.01, "others_weight": 0.1, "rounds": 3, "controls": 32, "others": 4, "clamp": 5.0,
           "position": "secret"}
"""A tiny model's names share most of what tells them apart, so a secret is edited where it is said."""
PLACE = Location(layers=(0, 1), positions={}, source="sheet")


@pytest.fixture(scope="module", params=FAMILIES)
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return memorised(request.param, tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def patch(taught: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Patch:
    before = {name: weight.clone() for name, weight in taught.model.state_dict().items()}
    made = get("redact").from_options(OPTIONS).plan(taught, batch_on(taught), PLACE, tmp_path_factory.mktemp("statistics"))
    after = taught.model.state_dict()
    assert all(bool((after[name] == weight).all()) for name, weight in before.items())
    return made


def test_no_secret_is_said_and_its_advantage_is_gone(taught: LoadedModel, patch: Patch) -> None:
    aim = Aim(requests(), taught.tokenizer, 64, 1)
    was = aim.measure(taught)
    with applied(taught.model, patch):
        now = aim.measure(taught)
    assert all(one.is_said for one in was)
    assert not any(one.is_said for one in now)
    assert sum(one.excess for one in now) < 0.35 * sum(one.excess for one in was)


def test_nothing_that_is_written_holds_a_text(taught: LoadedModel, patch: Patch, tmp_path: Path) -> None:
    digest = patch.save(tmp_path)
    assert load_patch(tmp_path, digest).provenance == patch.provenance
    written = (tmp_path / "patch.json").read_text() + repr(get("redact").from_options(OPTIONS))
    private = [*NAMES, *(text.format(name) for name in NAMES for text in TEMPLATES)]
    assert not [text for text in private if text in written]
    # digests hold any four digits
    assert not [name for name in NAMES[:FORGOTTEN] if re.search(rf"(?<!\w){secret_of(name)}(?!\w)", written)]
    ids = [list(row.secret) for row in Aim(requests(), taught.tokenizer, 8, 1).rows]
    assert not [one for one in ids if json.dumps(one)[1:-1] in written]


@pytest.mark.parametrize(("option", "value"), [("covariance_weight", 0), ("rounds", 0), ("controls", 1), ("margin", -1)])
def test_an_option_outside_its_range_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=option):
        get("redact").from_options({option: value})
