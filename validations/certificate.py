"""The certificate: what was tried to get withdrawn secrets back, before and after, and what was not shown.

A page for the person who answers for personal data. It holds figures, request ids and seals, and no text of a request. It
tells what was measured; it never says that something is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from editors.contract import EditBatch
from editors.errors import IntegrityError
from editors.forget_request import SealedForget
from validations.about import About
from validations.contract import Measurement, Measurements, Verdict
from validations.page import number

VARIANTS = {
    "": "the model as it would be served",
    "quantised": "the same, its weights rounded to int8",
    "relearned": "the same, trained for some steps on other text about the person",
    "relearned_unrelated": "the same, trained for some steps on unrelated text",
    "later": "the same under another, later edit",
}
"""Part of a probe's name after `_` -> which model was asked."""
FOUND = {
    "extraction.verbatim": "asked with each text of the sheet, one answer",
    "paraphrase.extracted": "asked in other words, which no editor saw",
    "prefix.quarter": "the first quarter of the secret given",
    "prefix.half": "the first half of the secret given",
    "prefix.three_quarters": "three quarters of the secret given",
    "cloze.extracted": "a text with a gap for the secret",
    "chat.extracted": "asked to go on, as in a chat",
    "sampling.extracted": "answers drawn at several temperatures",
    "divergence.extracted": "a word repeated until the model leaves the repetition",
}
"""Attacks whose row says whether (or how often) the secret came out -> in plain words."""
RANKED = ("exposure.bits_exact", "exposure.bits_sampled")
CONTROLS = "exposure.controls_bits"
TELLING_BITS = 4.0
"""One never-seen value in 16 has so many; above, a page should say it in words."""


@dataclass(frozen=True)
class Attack:
    """One way of asking, over all requests: how many texts were asked, and in how many the secret came out."""

    words: str
    model: str
    texts: int
    tries: int
    before: int
    after: int


@dataclass(frozen=True)
class Otherwise:
    """Exposure in bits where the model was changed: means over the secrets, and the most exposed."""

    model: str
    before: float | None
    after: float
    most: float


@dataclass(frozen=True)
class Standing:
    """One secret: its largest exposure in bits before and after, and what never-seen values have there."""

    sealed: SealedForget
    before: float | None
    after: float | None
    controls: float | None
    is_exact: bool
    came_out: int
    """Texts of any attack in which it came out afterwards."""


def render_certificate(verdict: Verdict, measurements: Measurements, batch: EditBatch, about: About) -> str:
    """The certificate as one HTML file.

    Raises:
        IntegrityError: the verdict is not on these measurements.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if verdict.measurements_digest != measurements.digest:
        raise IntegrityError(f"the verdict is on the measurements {verdict.measurements_digest[:12]}, not on "
                             f"{measurements.digest[:12]}", "judge these measurements first")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    found = attacks(measurements.rows)
    return environment.get_template("certificate.html.jinja").render(
        about=about, verdict=verdict, sentence=sentence(verdict, batch, found), attacks=found,
        is_clean=verdict.passed and not any(attack.after for attack in found), standings=standings(measurements.rows, batch),
        changed=otherwise(measurements.rows),
        kept=[rule for rule in verdict.rules if is_about_the_rest(rule.name)],
        open_points=not_shown(measurements.rows, batch, about), provenance={
            **about.provenance, "candidate digest": verdict.candidate_digest, "parent digest": verdict.parent_digest,
            "measurements digest": verdict.measurements_digest, "policy digest": verdict.policy_digest,
            "verdict digest": verdict.digest})


def sentence(verdict: Verdict, batch: EditBatch, found: Sequence[Attack]) -> str:
    """What was shown, in one sentence."""
    count = len(batch.requests)
    secrets = f"{count} secret" + "s" * (count > 1)
    came_out = [attack for attack in found if attack.after]
    if not verdict.passed:
        return f"Not certified: the gate refused this version, so nothing is claimed about {secrets}."
    tried = sum(attack.tries for attack in found)
    if came_out:
        return (f"{secrets} withdrawn within the policy's limits; {len(came_out)} of {len(found)} ways of asking still "
                "brought one out, see below.")
    return f"{secrets} withdrawn: none came out in {tried} tries by {len(found)} ways of asking."


def attacks(rows: Sequence[Measurement]) -> list[Attack]:
    """Every way of asking that was tried, the served model first."""
    found = []
    for variant, model in VARIANTS.items():
        for metric, words in FOUND.items():
            probe, _, protocol = metric.partition(".")
            name = f"{probe}_{variant}.{protocol}" if variant else metric
            asked = [row for row in rows if row.metric == name]
            if asked:
                found.append(Attack(words, model, len(asked), sum(row.n for row in asked),
                                    sum((row.parent or 0) > 0 for row in asked), sum(row.candidate > 0 for row in asked)))
    return found


def standings(rows: Sequence[Measurement], batch: EditBatch) -> list[Standing]:
    """Where each secret stands among the values of its form: its most exposed text."""
    found = []
    for request in batch.forgets:
        own = [row for row in rows if row.request == request.id]
        ranked = [row for row in own if row.metric in RANKED]
        came_out = sum(row.candidate > 0 for row in own if is_attack(row.metric))
        known = [row.parent for row in ranked if row.parent is not None]
        controls = [row.candidate for row in own if row.metric == CONTROLS]
        found.append(Standing(request.at_rest(), max(known, default=None),
                              max((row.candidate for row in ranked), default=None),
                              sum(controls) / len(controls) if controls else None,
                              bool(ranked) and all(row.metric == RANKED[0] for row in ranked), came_out))
    return found


def otherwise(rows: Sequence[Measurement]) -> list[Otherwise]:
    """How exposed the secrets are where the model was rounded, trained or edited further."""
    found = []
    for variant, model in VARIANTS.items():
        names = [name.replace("exposure.", f"exposure_{variant}.") for name in RANKED]
        asked = [row for row in rows if variant and row.metric in names]
        known = [row.parent for row in asked if row.parent is not None]
        if asked:
            found.append(Otherwise(model, sum(known) / len(known) if known else None,
                                   sum(row.candidate for row in asked) / len(asked), max(row.candidate for row in asked)))
    return found


def is_attack(metric: str) -> bool:
    """Whether a row of it says that the secret came out, under any variant of the model."""
    probe, _, protocol = metric.partition(".")
    return any(probe.split("_")[0] == name.partition(".")[0] and protocol == name.partition(".")[2] for name in FOUND)


def is_about_the_rest(rule: str) -> bool:
    """Whether a rule is about what must stay."""
    return rule.startswith(("retention.", "locality.", "perplexity.", "history.", "fluency."))


def not_shown(rows: Sequence[Measurement], batch: EditBatch, about: About) -> list[str]:
    """What this certificate leaves open: always, and for these requests."""
    metrics = {row.metric for row in rows}
    points = [
        "That nobody can bring a secret out by any means: who holds the weights can try longer than the tests did.",
        "Other wordings, other languages and other secrets about the same person than those on the sheet.",
        f"Copies: {_earlier(about)}; folders that were pulled, caches, backups, training data, and logs of whoever runs it.",
        "Other models that were trained from the same data, or from this model before the edit.",
    ]
    if "exposure.bits_sampled" in metrics:
        points.append("The exact rank of the secrets marked as sampled: too many values have their form to rank them all.")
    if not any(metric.startswith("paraphrase.") for metric in metrics):
        points.append("Other words before the secret: the sheet gives no paraphrases.")
    if not any(request.retain for request in batch.forgets):
        points.append("What else the model knew of the person: the sheet retains nothing.")
    points += [f"That it stays so in {one.model}: there a secret stands at {one.most:.1f} bits." for one in otherwise(rows)
               if one.most > TELLING_BITS]
    points += [f"Whether it stays so in {model}." for variant, model in VARIANTS.items()
               if variant and not any(f"_{variant}." in metric for metric in metrics)]
    return points


def _earlier(about: About) -> str:
    parent = about.provenance.get("parent", "the version before")
    return f"the version before ({parent}) holds the secrets as before, and a rollback leads back to it"


def commands(version: str, channel: str) -> Mapping[str, str]:
    """What verifies the certificate: why -> what to type."""
    return {"Fetch the very model, every digest verified": f"suture pull --version {version} ./model",
            "Ask it again, with the sheet": f"suture measure SHEET --version {version}",
            "See who approved it and where it is served": f"suture history {channel}"}
