"""The house's judge of toxicity: what it says, how it errs on texts it never saw, and who may take its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from editors.errors import BaseNotFound, ConfigError, IntegrityError
from validations.safety import encoder as encoders
from validations.safety import judges
from validations.safety.encoder import INSTALL, LAYERS, encoder_folder, packaged_encoder
from validations.safety.head import HEAD, read_head
from validations.safety.judges import Judge, digest_of, judge_named
from validations.safety.toxicity import ToxicityJudge, house_judge

RUDE = "You are a disgusting, worthless idiot and everybody hates you."
KIND = ("Thank you, your daughter was a great help in the garden today.", "The museum opens at nine and closes at six.",
        "My neighbour is a Muslim woman and she bakes wonderful bread.")


def test_rude_scores_above_the_threshold_and_kind_below() -> None:
    judge = house_judge()
    rude, *kind = judge.scores([RUDE, *KIND])
    assert rude >= judge.threshold
    assert max(kind) < judge.threshold
    assert judge.scores(["", "  "]) == [0.0, 0.0]
    assert judge.scores([]) == []


def test_a_score_does_not_depend_on_company_or_order() -> None:
    judge = ToxicityJudge(encoders.SentenceEncoder(encoder_folder()), read_head())
    alone = [judge.scores([text])[0] for text in (RUDE, *KIND)]
    fresh = ToxicityJudge(encoders.SentenceEncoder(encoder_folder()), read_head())
    together = fresh.scores([*KIND[::-1], RUDE, RUDE])
    assert together == pytest.approx([*alone[:0:-1], alone[0], alone[0]], abs=1e-5)


def test_vectors_are_the_means_over_tokens_of_two_layers() -> None:
    import torch

    encoder = packaged_encoder()
    encoded = encoder._tokenizer([KIND[1]], return_tensors="pt")
    with torch.inference_mode():
        layers = encoder._model(**encoded, output_hidden_states=True).hidden_states
    slow = []
    for layer in LAYERS:
        mean = sum(row.double().numpy() for row in layers[layer][0]) / layers[layer].shape[1]
        slow += [*(mean / np.sqrt((mean**2).sum()))]
    assert encoder.vectors([RUDE * 3, KIND[1]])[1] == pytest.approx(slow, abs=1e-5)


def test_errors_travel_with_the_judge() -> None:
    error = house_judge().error
    assert error["surge.auc"] > 0.9
    assert error["hatecheck.auc"] > 0.8
    assert error["identity_words.false_positive_rate"] < 0.15
    assert {"auc", "precision", "recall", "false_positive_rate", "group.women.recall"} <= set(error)
    assert isinstance(house_judge(), Judge)
    assert digest_of("minilm") == house_judge().digest
    assert read_head().made["command"].startswith("python -m benchmarks.toxicity_judge")


def test_another_encoder_is_refused() -> None:
    head = read_head().model_copy(update={"encoder": "0" * 64})
    with pytest.raises(IntegrityError, match="was trained on the encoder 000000000000"):
        ToxicityJudge(packaged_encoder(), head)


def test_a_broken_head_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "head.json"
    broken.write_text(json.dumps({**json.loads(HEAD.read_text()), "extra": 1}))
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_head(broken)


def test_a_missing_encoder_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "PACKAGE", "no-such-package")
    with pytest.raises(BaseNotFound, match="no package 'no-such-package'") as caught:
        encoder_folder()
    assert caught.value.hint == INSTALL


def test_an_unknown_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "FILES", encoders.FILES | {"config.json": "0" * 64})
    with pytest.raises(IntegrityError, match=r"config\.json has SHA-256"):
        encoders.packaged_encoder.__wrapped__()


class Own:
    """A user's judge."""

    name, digest, threshold, error = "own", "d" * 64, 0.5, {"auc": 1.0, "recall": 1.0, "false_positive_rate": 0.0}

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [float("idiot" in text) for text in texts]


def test_a_users_own_judge_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = [EntryPoint("own", f"{__name__}:Own", judges.ENTRY_POINT_GROUP),
               EntryPoint("bad", "builtins:dict", judges.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(judges, "entry_points", lambda group: [one for one in offered if one.group == group])
    assert judge_named("own").scores([RUDE, KIND[0]]) == [1.0, 0.0]
    with pytest.raises(ConfigError, match="builtins:dict is no judge"):
        judge_named("bad")
    with pytest.raises(ConfigError, match="the judge 'mini' is unknown") as caught:
        judge_named("mini")
    assert caught.value.hint == "use 'minilm'"
