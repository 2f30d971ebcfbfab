"""What one edit leaves in the experiment tracker: parameters, means, tables, files. Plain values; no MLflow here.

Whether the text of requests may be shown is decided here, for every door into the tracker.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editors.contract import EditBatch, Location
from editors.digest import digest_file
from editors.errors import IntegrityError
from tasks.manifest import Candidate
from validations.contract import Measurement, Measurements, Verdict

PURPOSES_WITH_TEXT = frozenset({"update", "detoxify", "debias"})
"""Purposes whose requests are no personal data by nature. The others leave digests and numbers, never words."""
TEXT_FREE = frozenset({"page.html", "certificate.html", "expectations.json", "neurons.csv", "neurons.png"})
"""Artefacts that hold no text of such requests: they are made of seals, ids and numbers."""
LONGEST_PARAMETER = 500
PATCH_FILES = ("patch.json", "patch.safetensors")
DIGEST, VERDICT, PASSED, APPROVAL = "suture.digest", "suture.verdict_digest", "suture.verdict", "approval"
"""Tags that the registry is searched by: which candidate, under which verdict, what the gate and what a person said."""


@dataclass(frozen=True)
class Submission:
    """A judged candidate with all that documents it."""

    candidate: Candidate
    base_folder: Path
    """Plain Hugging Face folder of the unedited base on this machine."""
    patches: tuple[Path, ...]
    """Folders of the whole stack, in order; the last is an edit's own."""
    batch: EditBatch
    location: Location | None
    """None for a removal, which plans no edit."""
    options: Mapping[str, Any]
    measurements: Measurements
    verdict: Verdict
    requester: str
    artefacts: Mapping[str, Path] = field(default_factory=dict)
    """Other files and folders by the name they get in the run: the page, the gate's own result, the locator's evidence.
    Where the text of requests may not be kept, only those named in `TEXT_FREE` are."""
    removed: str | None = None
    """Digest of the patch that a removal took out of the parent's stack."""

    def __post_init__(self) -> None:
        expected = [entry.digest for entry in self.candidate.stack]
        found = [digest_file(folder / "patch.json") for folder in self.patches]
        if found != expected:
            raise IntegrityError(f"the patches of version {self.candidate.version} are {expected}, the folders hold {found}",
                                 "give the folders of the whole stack, in order")

    @property
    def shows_text(self) -> bool:
        """Whether words of its requests may be stored."""
        return self.batch.purpose in PURPOSES_WITH_TEXT

    @property
    def method(self) -> str:
        """What made the version: the editor's name, or `removal`."""
        return "removal" if self.removed else self.candidate.stack[-1].method


def parameters_of(submission: Submission) -> dict[str, str]:
    """What was done, as short strings by name."""
    candidate, batch, location = submission.candidate, submission.batch, submission.location
    known = {
        "purpose": batch.purpose, "method": submission.method, "requests": len(batch.requests), "batch_digest": batch.digest,
        "base": candidate.base.name, "base_digest": candidate.base.digest, "parent": candidate.parent,
        "parent_digest": batch.parent_digest, "patch_digest": None if submission.removed else candidate.stack[-1].digest,
        "removed": submission.removed, "stack": len(candidate.stack),
        "layers": ",".join(map(str, location.layers)) if location else None,
        "layers_source": location.source if location else None,
        "traced_peak": location.traced_peak if location else None, "policy": submission.verdict.policy,
        "policy_digest": submission.verdict.policy_digest, "channel": candidate.channel,
    }
    options = {f"option.{name}": value for name, value in submission.options.items()}
    return {name: str(value)[:LONGEST_PARAMETER] for name, value in {**known, **options}.items() if value is not None}


def metrics_of(measurements: Measurements) -> dict[str, float]:
    """Means over the rows of each metric: `<metric>.parent`, `<metric>.candidate`, and `<metric>.n`.

    A row counts as often as the observations it averages. A metric with a value that is not finite has no mean here;
    the verdict speaks about it.
    """
    rows: dict[str, list[Measurement]] = defaultdict(list)
    for row in measurements.rows:
        rows[row.metric].append(row)
    means: dict[str, float] = {}
    for metric, group in rows.items():
        weights = [max(row.n, 1) for row in group]
        for side in ("parent", "candidate"):
            values = [getattr(row, side) for row in group]
            if all(value is not None and math.isfinite(value) for value in values):
                total = sum(value * weight for value, weight in zip(values, weights, strict=True))
                means[f"{metric}.{side}"] = total / sum(weights)
        means[f"{metric}.n"] = float(sum(row.n for row in group))
    return means


def judged_by(verdict: Verdict) -> dict[str, float]:
    """What the gate judged by, under its rules' own names: the observed number of every rule that has a finite one.

    A rule's name has one dot and a mean's has two, so that neither is taken for the other.
    """
    return {rule.name: float(rule.observed) for rule in verdict.rules
            if isinstance(rule.observed, int | float) and math.isfinite(rule.observed)}


def write_files(submission: Submission, folder: Path) -> None:
    """Lay out the run's files under `folder`: `measurements/`, `patch/`, `verdict.json` and the other artefacts."""
    measured, patch = folder / "measurements", folder / "patch"
    measured.mkdir(parents=True)
    with (measured / "measurements.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(Measurement.model_fields))
        table.writeheader()
        table.writerows(row.model_dump() for row in submission.measurements.rows)
    if not submission.removed:
        patch.mkdir()
        for name in PATCH_FILES:
            shutil.copyfile(submission.patches[-1] / name, patch / name)
    (folder / "verdict.json").write_text(submission.verdict.model_dump_json(indent=1))
    (folder / "candidate.json").write_text(submission.candidate.model_dump_json(indent=1))
    for name, source in submission.artefacts.items():
        if not submission.shows_text and name not in TEXT_FREE:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    if submission.shows_text:
        _write_texts(submission, folder)


def _write_texts(submission: Submission, folder: Path) -> None:
    (folder / "requests.json").write_text(submission.batch.model_dump_json(indent=1), encoding="utf-8")
    rows = [transcript.model_dump() for transcript in submission.measurements.transcripts]
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    (folder / "measurements" / "transcripts.json").write_text(text, encoding="utf-8")


def write_stack(submission: Submission, folder: Path) -> None:
    """Copy the stack's patches under `folder`, one folder each, whose names sort in stack order."""
    for number, (source, entry) in enumerate(zip(submission.patches, submission.candidate.stack, strict=True)):
        target = folder / f"{number:04d}-{entry.digest[:12]}"
        target.mkdir(parents=True)
        for name in PATCH_FILES:
            shutil.copyfile(source / name, target / name)


def version_tags(submission: Submission) -> dict[str, str]:
    """What the registry shows and is searched by."""
    candidate, verdict = submission.candidate, submission.verdict
    return {
        DIGEST: candidate.digest, "suture.version": candidate.version, "suture.parent": candidate.parent or "",
        "suture.base": candidate.base.name, "suture.base_digest": candidate.base.digest,
        "suture.patch": candidate.stack[-1].digest, "suture.purpose": submission.batch.purpose,
        "suture.method": submission.method, "suture.requester": submission.requester,
        PASSED: "passed" if verdict.passed else "refused", VERDICT: verdict.digest,
        # what the gate refused waits for nobody
        APPROVAL: "pending" if verdict.passed else "refused",
    }


def description_of(submission: Submission) -> str:
    """One paragraph for the registry's page; no word of any request."""
    candidate, verdict = submission.candidate, submission.verdict
    done = f"the edit of patch `{submission.removed[:12]}` taken out" if submission.removed else (
        f"{candidate.stack[-1].purpose} by {submission.method}")
    broken = [rule.name for rule in verdict.rules if not rule.passed and rule.severity == "critical"]
    judged = f"The gate passed it under policy `{verdict.policy}`." if verdict.passed else (
        f"The gate refused it under policy `{verdict.policy}`: {', '.join(broken) or 'see verdict.json'}.")
    return (f"Version `{candidate.version}` of `{candidate.model}`, channel `{candidate.channel}`: {done}, "
            f"{len(submission.batch.requests)} requests, on top of `{candidate.parent}`; base `{candidate.base.name}` "
            f"under {len(candidate.stack)} patches. {judged}")
