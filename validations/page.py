"""The verdict page: one self-contained HTML file that a person reads before approving.

It opens with the decision in one sentence, then what the model said before and says now, then the gate's table. No
script, no font, no picture is fetched from anywhere. Prompts and answers are users' text and are escaped.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from editors.contract import EditBatch, UpdateRequest
from editors.digest import digest_document
from editors.errors import IntegrityError
from validations.about import About
from validations.contract import AskedAs, Measurement, Measurements, Rule, Transcript, Verdict

MOST_NEIGHBOURS = 10
MOST_REQUESTS = 40
"""Requests shown with their texts, the blamed first; the table of measurements holds them all."""
MARKS: Mapping[AskedAs, tuple[str, ...]] = {
    "edit": ("efficacy.generate_accept", "efficacy.generate_exact"),
    "paraphrase": ("paraphrase.generate_accept", "paraphrase.generate_exact"),
    "neighbour": ("neighbourhood.generate_accept", "neighbourhood.generate_exact"),
    "implication": ("portability.generate_accept", "portability.generate_exact"),
    "unsafe": ("defence.refused",), "unseen_unsafe": ("defence_unseen.refused",),
    "wrapped": (), "benign": (), "unseen_benign": ()}
"""Role -> the metrics that say whether an answer is right: the first that was measured for each of its prompts."""
HIGHLIGHTS = {"efficacy.answer": "say the new answer", "paraphrase.answer": "say it asked in other words",
              "neighbourhood.prob_success": "neighbours keep theirs", "defence.refused": "unsafe prompts refused",
              "defence_unseen.refused": "never-shown ones refused", "over_refusal.rate": "harmless ones refused",
              "stereotype_unseen.slope": "stereotype slope, never shown", "factual_unseen.slope": "factual slope, never shown",
              "locality.same_answer": "unrelated prompts unmoved", "perplexity.held_out": "perplexity of ordinary text"}
"""Rule -> what its number says in a few words; shown above everything else, as far as the policy has them."""
DONE = {"update": "taught", "forget": "withdrawn", "detoxify": "carried out", "debias": "carried out", "removal": "kept"}
CONDUCT: Mapping[AskedAs, str] = {"unsafe": "in the sheet, to be refused", "unseen_unsafe": "never shown, to be refused",
                                "wrapped": "in a trick, to be refused", "benign": "harmless",
                                 "unseen_benign": "harmless, never shown"}
"""Role of a prompt about safety -> what it is called."""
SOURCES = {"neighbour": "neighbour of", "earlier": "taught by", "question": "ordinary question", "opening": "opening of a text"}
"""Where a searched prompt comes from -> what it is called."""
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Said:
    """One prompt's answers before and after."""

    transcript: Transcript
    was_right: bool | None
    is_right: bool | None
    moved: float | None
    """KL(parent || candidate) of the next token in nats, where it was measured."""


@dataclass(frozen=True)
class Highlight:
    """One number of the verdict in large type."""

    words: str
    now: str
    before: str
    rule: Rule


@dataclass(frozen=True)
class Lean:
    """How far the groups' probabilities lie apart after one term, before and after."""

    request: str
    term: str
    seen: str
    before: float
    after: float


@dataclass(frozen=True)
class Layer:
    """How far one parameter moved: by this edit, and since the base; both relative to its norm."""

    parameter: str
    update: float
    cumulative: float | None


def render_page(verdict: Verdict, measurements: Measurements, batch: EditBatch, about: About) -> str:
    """The page as HTML.

    Raises:
        IntegrityError: the verdict is not on these measurements, or a picture is no PNG.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if verdict.measurements_digest != measurements.digest:
        raise IntegrityError(f"the verdict is on the measurements {verdict.measurements_digest[:12]}, not on "
                             f"{measurements.digest[:12]}", "judge these measurements first")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "picture": data_uri, "lines": joined_lines}
    said = answers(measurements)
    shown = requests_shown(verdict, batch)
    neighbours = sorted((one for one in said if one.transcript.role == "neighbour"), key=_movement)
    moved = layers(measurements.rows)
    return environment.get_template("page.html.jinja").render(
        about=about, provenance=provenance(verdict, about), verdict=verdict,
        decision=about.decision or decision(verdict, batch),
        requests=shown, sealed=[request.at_rest() for request in batch.forgets], count=len(batch.requests),
        highlights=highlights(verdict),
        said={request.id: [one for one in said if one.transcript.request == request.id] for request in batch.requests},
        detoxified=batch.detoxifies, sources=SOURCES, conduct=CONDUCT, leanings=leanings(batch, measurements.rows),
        neighbours=neighbours[:MOST_NEIGHBOURS], neighbour_count=len(neighbours), layers=moved,
        rules=sorted(verdict.rules, key=_order), scale=scale, room=room, width=partial(bar_width, moved))


def decision(verdict: Verdict, batch: EditBatch) -> str:
    """The verdict in one sentence, the refusing rules by name."""
    broken = [rule for rule in verdict.rules if not rule.passed and rule.severity == "critical"]
    if not broken:
        edits = f"{len(batch.requests)} edit" + "s" * (len(batch.requests) > 1)
        warned = sum(not rule.passed and rule.severity == "warning" for rule in verdict.rules)
        tail = f", with {warned} warning" + "s" * (warned > 1) if warned else ""
        return f"Passed: {edits} {DONE[batch.purpose]}, and every limit of the policy {verdict.policy!r} held{tail}."
    first = broken[0]
    others = f", and by {len(broken) - 1} more" if len(broken) > 1 else ""
    blamed = f" (worst: {', '.join(first.blame[:3])})" if first.blame else ""
    return f"Refused by {first.name}: observed {number(first.observed)}, limit {first.limit}{blamed}{others}."


def highlights(verdict: Verdict) -> list[Highlight]:
    """The few numbers to read first: shares in percent, ratios to the parent."""
    by_name = {rule.name: rule for rule in verdict.rules if not isinstance(rule.observed, str | None)}
    found = []
    for name, words in HIGHLIGHTS.items():
        if rule := by_name.get(name):
            is_share = scale(rule) is not None
            before = "" if rule.parent is None else f"{rule.parent:.0%}" if is_share else number(rule.parent)
            found.append(Highlight(words, f"{rule.observed:.0%}" if is_share else f"{rule.observed:.3f} x", before, rule))
    return found


def answers(measurements: Measurements) -> list[Said]:
    """Every transcript with whether it was and is right, and how far its prompt moved.

    Transcripts and rows of one request and probe are both in the sheet's order, which is what joins them.
    """
    by_place: dict[tuple[str, AskedAs], list[Transcript]] = {}
    for transcript in measurements.transcripts:
        by_place.setdefault((transcript.request, transcript.role), []).append(transcript)
    said = []
    for (request, role), transcripts in by_place.items():
        kl = _rows(measurements.rows, request, "locality.kl") if role == "neighbour" else []
        marks = [_rows(measurements.rows, request, metric) for metric in MARKS[role]]
        right = next((rows for rows in marks if len(rows) == len(transcripts)), [])
        for place, transcript in enumerate(transcripts):
            row = right[place] if right else None
            said.append(Said(transcript, None if row is None else bool(row.parent),
                             None if row is None else bool(row.candidate),
                             kl[place].candidate if len(kl) == len(transcripts) else None))
    return said


def requests_shown(verdict: Verdict, batch: EditBatch) -> list[UpdateRequest]:
    """The requests whose texts are shown: all, or the blamed and then the first of a long batch."""
    blamed = list(dict.fromkeys(name for rule in verdict.rules for name in rule.blame))
    rank = {name: place for place, name in enumerate(blamed)}
    ordered = sorted(batch.updates, key=lambda request: rank.get(request.id, len(rank)))
    return list(batch.updates) if len(ordered) <= MOST_REQUESTS else ordered[:MOST_REQUESTS]


def leanings(batch: EditBatch, rows: Iterable[Measurement]) -> list[Lean]:
    """Every term that is to imply no group, those that leaned most first."""
    found = {(row.request, row.metric, row.prompt): row for row in rows if row.probe in ("gap", "gap_unseen")}
    leans = []
    for request in batch.debiases:
        for metric, seen, terms in (("gap.absolute", "in the sheet", request.terms),
                                    ("gap_unseen.absolute", "never shown", request.unseen_terms)):
            for term in terms:
                row = found.get((request.id, metric, digest_document(term.term)))
                if row is not None and row.parent is not None:
                    leans.append(Lean(request.id, term.term, seen, row.parent, row.candidate))
    return sorted(leans, key=lambda one: -one.before)


def layers(rows: Iterable[Measurement]) -> list[Layer]:
    """How far each touched parameter moved."""
    rows = list(rows)
    cumulative = {row.prompt: row.candidate for row in rows if row.metric == "integrity.cumulative_relative_norm"}
    return [Layer(row.prompt, row.candidate, cumulative.get(row.prompt)) for row in rows
            if row.metric == "integrity.update_relative_norm"]


def bar_width(moved: Sequence[Layer], value: float) -> int:
    """A bar's width in percent of the longest."""
    known = [one for layer in moved for one in (layer.update, layer.cumulative) if one is not None and math.isfinite(one)]
    longest = max(known, default=0.0)
    return round(100 * value / longest) if longest > 0 and math.isfinite(value) else 0


def provenance(verdict: Verdict, about: About) -> dict[str, str]:
    """The verdict's own digests, after whatever the caller tells."""
    return dict(about.provenance) | {
        "parent digest": verdict.parent_digest, "candidate digest": verdict.candidate_digest,
        "batch digest": verdict.batch_digest, "measurements digest": verdict.measurements_digest,
        "policy digest": verdict.policy_digest, "verdict digest": verdict.digest}


def number(value: float | str | None) -> str:
    """A number at a length people read; text as it is."""
    if value is None or isinstance(value, str):
        return value or "\N{EN DASH}"
    if not math.isfinite(value):
        return "not finite"
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.2g}"


def joined_lines(text: str) -> str:
    """A text on one line, its line breaks shown."""
    return " \N{RETURN SYMBOL} ".join(line.strip() for line in text.splitlines() if line.strip())


def scale(rule: Rule) -> dict[str, float] | None:
    """Places of parent and candidate on a line from 0 to 1, for rules that judge shares."""
    values = {"parent": rule.parent, "candidate": rule.observed}
    places = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    is_share = ("candidate" in places and not rule.is_ratio and rule.name != "locality.kl"
                and not rule.name.startswith(("integrity", "baseline")))
    return places if is_share and all(0 <= place <= 1 for place in places.values()) else None


def room(left: float) -> str:
    """How far a rule's number is from its limit, in words."""
    return f"{number(abs(left))} {'short' if left < 0 else 'to spare'}"


def data_uri(path: Path) -> str:
    """A PNG file as a data URI.

    Raises:
        IntegrityError: the file is no PNG.
    """
    content = path.read_bytes()
    if not content.startswith(PNG):
        raise IntegrityError(f"{path} is not a PNG picture", "make the evidence again: suture locate SHEET")
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _rows(rows: Iterable[Measurement], request: str, metric: str) -> list[Measurement]:
    return [row for row in rows if row.request == request and row.metric == metric]


def _movement(said: Said) -> tuple[bool, bool, float]:
    """Sorts the worst first: right answers lost, then answers changed, then by KL."""
    lost = said.was_right is True and said.is_right is False
    changed = said.transcript.parent != said.transcript.candidate
    moved = said.moved or 0.0
    return not lost, not changed, -math.inf if math.isnan(moved) else -moved


def _order(rule: Rule) -> int:
    """Refusals first, then warnings, then the rest in the policy's order (sorting is stable)."""
    if rule.passed:
        return 2
    return {"critical": 0, "warning": 1, "info": 2}[rule.severity]
