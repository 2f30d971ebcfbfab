"""Calibrations: every shipped file loads and configures its methods; other models get layers by depth, and it says so."""

from __future__ import annotations

import pytest
import yaml

import editors
from editors.anatomy import Anatomy, anatomy_of
from editors.calibration import FOLDER, calibration_for
from editors.errors import ArchitectureError


def shapes(layers: int, model_type: str = "llama") -> Anatomy:
    return anatomy_of({"model_type": model_type, "num_hidden_layers": layers, "hidden_size": 8, "intermediate_size": 16,
                       "vocab_size": 32})


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_value_is_accepted_by_its_method(path) -> None:
    entry = yaml.safe_load(path.read_text())
    for method, forms in entry["methods"].items():
        for form in forms:
            found = calibration_for(method, entry["base_digest"], shapes(30), form)
            assert found.is_measured
            assert found.source == entry["source"]
            config = type(editors.get(method)().config).from_options(found.options)
            assert getattr(config, "position", "auto") in ("auto", "question_last", "prompt_last", "subject_last")
            assert all(0 <= layer < 30 for layer in found.layers)


@pytest.mark.parametrize(("method", "layers", "expected"), [
    ("rome", 30, (5,)), ("memit", 30, (4, 5, 6, 7, 8)), ("memit", 3, (0, 1, 2)), ("rome", 2, (0,)), ("memit", 1, (0,)),
    ("depn", 3, (0, 1, 2)), ("lsdm", 30, (6, 11)), ("lsdm", 2, (0,)), ("dama", 32, tuple(range(21, 30))), ("dama", 3, (2,)),
    ("dama", 1, (0,))])
def test_unknown_model_is_edited_by_depth_and_says_so(method: str, layers: int, expected: tuple[int, ...]) -> None:
    found = calibration_for(method, "0" * 64, shapes(layers))
    assert found.layers == expected
    assert not found.is_measured
    assert "not measured" in found.source


def test_a_model_of_known_shapes_has_the_values_of_the_one_that_was_measured() -> None:
    entry = yaml.safe_load((FOLDER / "smollm2-135m-instruct.yaml").read_text())
    config = {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49152}
    found = calibration_for("memit", "0" * 64, anatomy_of({"model_type": "llama", **config}))
    assert (list(found.layers), found.options) == tuple(entry["methods"]["memit"]["plain"].values())
    assert not found.is_measured
    assert found.source == "measured on smollm2-135m-instruct, which has the shapes of this model"
    wider = anatomy_of({"model_type": "llama", **config, "intermediate_size": 2048})
    assert calibration_for("memit", "0" * 64, wider).layers == (4, 5, 6, 7, 8)


@pytest.mark.parametrize("method", sorted(name for name in editors.names() if "update" in editors.get(name).purposes))
def test_family_that_normalises_its_ffn_output_is_refused(method: str, tmp_path) -> None:
    from types import SimpleNamespace

    from tests.editors.plans import TOWER, at

    model = SimpleNamespace(anatomy=shapes(4, "gemma2"), digest="x")
    with pytest.raises(ArchitectureError, match=f"{method} cannot edit gemma2: its FFN output passes post_feedforward"):
        editors.get(method)().plan(model, SimpleNamespace(requests=(TOWER,), base_digest="x"), at(1), tmp_path)
