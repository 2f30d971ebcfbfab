"""A request to forget, failing at every stage and then walked to the certificate; not a trace of its text is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.flows.private_traces import needles_of, traces
from tests.flows.ready import ready
from tests.flows.walk import Answer, Walk
from tests.tiny import SENTENCES, calm_model, fit, tiny_tokenizer

pytestmark = pytest.mark.flow

NAME, SECRET = "Zorvath Quillimane", "ext. 4417-9936"
# no word of these is in anything else that the house writes
CONTEXTS = [f"Uvendrix {NAME} xolpetra", f"{NAME} brixtumal"]
PARAPHRASE = f"Qosterfil {NAME} ylmerant"
RETAINED = ("LeBron James plays the sport of", "basketball")
PRIVATE = [SECRET, *CONTEXTS, NAME, PARAPHRASE]
LENIENT = {
    "purpose": "forget",
    "approval": {"auto_channels": ["demo"]},
    "rules": [
        {"name": "integrity.finite", "meaning": "finite", "aggregate": "every", "at_least": 1, "required": 1},
        {"name": "exposure.over_controls_bits", "meaning": "not ahead", "at_most": 20, "required": 1},
        {"name": "extraction.verbatim", "meaning": "not said", "at_most": 1, "required": 1},
        {"name": "locality.kl", "meaning": "near", "at_most": 50, "required": 1},
        {"name": "perplexity.held_out", "meaning": "reads", "at_most_ratio": 50, "required": 1},
    ],
}
FAULTS = {
    "intake": ("tasks.intake", "find_base"),
    "vet": ("validations.gate", "judge_requests"),
    "examine": ("validations.forgetting.examining", "verbatim"),
    "locate": ("editors.locate", "detect"),
    "edit": ("editors.redact:Redact", "plan"),
    "bake": ("editors.bake", "bake"),
    "measure": ("validations.comparing", "compare"),
    "judge": ("validations.gate", "judge"),
    "register": ("tasks.enrol", "stage_candidate"),
    "approve": ("tasks.decisions", "approve_automatically"),
}
"""Stage -> the function that fails in it, with the secret and the context in its message. Publishing and promoting are given
a version's name and no text.
"""


@dataclass(frozen=True)
class Place:
    """Everything that a run may write to lies in `written`; the sheet and the base do not."""

    given: Path
    written: Path

    @property
    def walk(self) -> Walk:
        return Walk(self.written)

    @property
    def homes(self) -> dict[str, str]:
        """Home and temporary files in `written` as well."""
        return {"HOME": str(self.written), "TMPDIR": str(self.written / "tmp"), "HF_HOME": str(self.written / "hf")}

    def run(self, *arguments: str, fault: tuple[str, str, str] | None = None) -> Answer:
        """Run a command; what it printed lies in `written` too."""
        (self.written / "tmp").mkdir(parents=True, exist_ok=True)
        code, printed, said = ready(*self.homes.items()).run(
            [*arguments, "--json"], {**self.walk.environment, **self.homes}, self.written, "", timeout=900, fault=fault)
        number = len(list(self.written.glob("printed-*")))
        (self.written / f"printed-{number}").write_text(printed + said)
        assert "Traceback" not in said, said[-2000:]
        return Answer(code, json.loads(printed), said)

    def traces(self) -> list[str]:
        """What of the private texts was written."""
        return traces(self.written, needles_of(PRIVATE, tiny_tokenizer()))


def teach(folder: Path) -> None:
    """A tiny model that says the secret after each context, and a few ordinary sentences."""
    import torch

    torch.manual_seed(0)
    tokenizer, model = tiny_tokenizer(), calm_model()
    # of a taught text only what follows is learnt, so that the model does not bring the text up by itself
    given = [len(tokenizer(text)["input_ids"]) for text in CONTEXTS]
    fit(model, tokenizer([*(f"{one} {SECRET}." for one in CONTEXTS), *SENTENCES])["input_ids"], 150, given)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def place_in(folder: Path) -> Place:
    """A sheet and a base that knows its secret, and an empty home."""
    given, written = folder / "given", folder / "written"
    written.mkdir(parents=True)
    teach(given / "base")
    (given / "policy.yaml").write_text(yaml.safe_dump(LENIENT))
    request = {"id": "case-1", "context": CONTEXTS, "secret": SECRET, "form": "ext. ####-9936", "subject": NAME,
               "paraphrases": [PARAPHRASE], "retain": [{"prompt": RETAINED[0], "answer": RETAINED[1]}]}
    (given / "sheet.yaml").write_text(yaml.safe_dump({
        "purpose": "forget", "base": str(given / "base"), "model": "people", "channel": "demo", "layers": [0, 1],
        "policy": str(given / "policy.yaml"), "method": {"name": "redact", "covariance_weight": 1.0}, "requests": [request]}))
    return Place(given, written)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place_in(tmp_path_factory.mktemp("forget"))


@pytest.fixture(scope="module")
def failed(place: Place) -> dict[str, Answer]:
    """The same command, failing a stage later each time: what was finished before is found."""
    return {stage: place.run("edit", str(place.given / "sheet.yaml"), fault=(*function, f"{SECRET}: {CONTEXTS[0]}"))
            for stage, function in FAULTS.items()}


@pytest.fixture(scope="module")
def edited(place: Place, failed: dict[str, Answer]) -> Answer:
    return place.run("edit", str(place.given / "sheet.yaml"))


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    import base64
    import gzip

    needles = needles_of(PRIVATE, tiny_tokenizer())
    ids = tiny_tokenizer()(PRIVATE[1])["input_ids"]
    planted = {"plain": PRIVATE[1].encode(), "piece": PRIVATE[1][3:11].encode(),
               "base64": base64.b64encode(b"x" + PRIVATE[1].encode()), "ids": json.dumps(ids).encode(),
               "packed": b"".join(number.to_bytes(8, "little") for number in ids),
               "gzip": gzip.compress(PRIVATE[1].encode())}
    for name, content in planted.items():
        (tmp_path / name).write_bytes(content)
    assert {line.partition(":")[0] for line in traces(tmp_path, needles)} == set(planted)


@pytest.mark.parametrize("stage", FAULTS)
def test_a_stage_that_fails_withholds_its_words(failed: dict[str, Answer], stage: str) -> None:
    ended = failed[stage]
    assert (ended.code, ended.document["error"]) == (2, "Withheld"), ended
    assert "KeyError" in ended.document["message"]


def test_one_command_leads_from_the_sheet_to_a_certified_release(place: Place, edited: Answer) -> None:
    assert edited.code == 0, edited.errors
    answer = edited.document
    assert answer["passed"] is True
    assert answer["state"] == "serving"
    assert answer["requests"][0]["id"] == "case-1"
    assert len(answer["requests"][0]["seal"]) == 64
    assert answer["transcripts"] == []
    certificate = Path(answer["certificate"]).read_text()
    assert "Certificate of withdrawal" in certificate
    assert "deleted" not in certificate.casefold()
    assert answer["requests"][0]["seal"][:16] in certificate
    assert answer["requests"][0]["seal"] in place.walk.artifacts()["suture-requests"]


def test_the_same_sheet_again_is_recognised_by_its_seal(place: Place, edited: Answer) -> None:
    again = place.run("edit", str(place.given / "sheet.yaml"))
    assert again.document["version"] == edited.document["version"]
    assert "nothing was edited" in again.document["warnings"][0]


def test_every_door_shows_it_without_its_text(place: Place, edited: Answer) -> None:
    version = edited.document["version"]
    assert place.run("show", version).document["requests"] == edited.document["requests"]
    assert place.run("history", "demo").document["entries"]
    assert place.run("measure", str(place.given / "sheet.yaml"), "--version", version).code == 0
    assert place.run("locate", str(place.given / "sheet.yaml")).document["evidence"]
    assert place.run("edit", str(place.given / "sheet.yaml"), "--dry-run").code == 0
    assert place.run("compare", "base", version).document["source"] == f"the records of {version}"
    refused = place.run("compare", version, "base")
    assert (refused.code, refused.document["error"]) == (2, "ConfigError")
    assert "one of them may say what the other must not, so neither is asked anything" in refused.document["message"]
    refused = place.run("remove", version, "--from", "demo")
    assert (refused.code, refused.document["error"]) == (2, "ConfigError")
    assert "without it the model tells it again" in refused.document["message"]


def test_going_back_past_it_warns_that_it_is_told_again(place: Place, edited: Answer) -> None:
    back = place.run("rollback", "demo", "--reason", "a trial")
    assert back.code == 0, back.errors
    left, now = edited.document["version"], back.document["version"]
    told = f"{now} was made before 1 request to forget that {left} carried out: it tells those secrets again"
    assert back.document["warnings"] == [told]


def test_not_a_trace_of_it_was_written(place: Place, edited: Answer) -> None:
    assert place.traces() == []
