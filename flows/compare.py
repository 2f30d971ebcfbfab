"""Compare two versions of one base: from the store's records where they answer, else by measuring both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.house import open_house
from flows.progress import current
from flows.settings import Settings
from flows.sides import base_under, sides_of
from tasks.compare import Compared, compare, recorded


def compare_versions(settings: Settings, before: str, after: str, page: Path | None, policy: str | None) -> dict[str, Any]:
    """What the version `after` does where either was taught something, beside `before`; either may be `base`.

    Args:
        settings: Where the store is.
        before: The version to compare with.
        after: The version compared.
        page: Where the page is written; None: `BEFORE-AFTER.html` in the working directory.
        policy: A gate policy's file; None: the records' own, or the shipped one for removals.

    Raises:
        NotFound: a version is unknown.
        ConfigError: their bases differ, or `tasks.compare` refuses them.
    """
    with open_house(settings) as house:
        current().stage("look up")
        first, second = sides_of([before, after], house)
        old, new = (Compared(side.version, side.contents, side.patches) for side in (first, second))
        found = recorded(old, new, house) if policy is None else None
        if found is None:
            current().stage("compare")
            found = compare(old, new, base_under(second, house), policy, house)
    target = page or Path(f"{first.version}-{second.version}.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(found.page)
    source = f"the records of {second.version}" if found.is_recorded else "measured now"
    return {"before": first.version, "after": second.version, "base": second.base.name, "source": source,
            "passed": found.verdict.passed, "verdict": found.verdict.model_dump(mode="json"),
            "transcripts": [row.model_dump(mode="json") for row in found.measurements.transcripts],
            "page": str(target.absolute()),
            "next": [f"suture chat --version {second.title} --against {first.title}"]}
