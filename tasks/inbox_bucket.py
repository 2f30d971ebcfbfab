"""An inbox under an `s3://` prefix: a claim is an object that is created once, renewed and taken over by compare-and-swap.

`claimed/<name>.json` says who has the sheet and until when. The sheet stays where it was dropped until its answer is written.
The bucket should not keep versions: on one that does, a sheet that was moved is still there.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from editors.errors import NotFound, StoreError
from tasks.inbox import CLAIMED, OUTCOMES, SHIPPED, Outcome, Terms, is_sheet, stamp, written
from tasks.store import Store
from tasks.store_errors import ImmutableConflict, PointerMoved


@dataclass
class BucketClaim:
    """A claim's object, as this worker wrote it last."""

    store: Store
    terms: Terms
    name: str
    since: str
    attempt: int
    token: str
    sheet: str
    """ETag of the sheet when it was claimed: one that was dropped again under the name is another one."""
    etag: str = ""

    @property
    def address(self) -> str:
        """Where it was dropped."""
        return f"{self.store.location.url}/{self.name}"

    def body(self, until: float) -> bytes:
        """The claim's object; `until` is in seconds since 1970, by the worker's clock."""
        said = {"since": self.since, "attempt": self.attempt, "token": self.token, "sheet": self.sheet, "until": until}
        return json.dumps(said).encode()

    def renew(self) -> bool:
        """Swap the object for one that lasts longer."""
        try:
            self.etag = self.store.swap_pointer(_claim_key(self.name), self.body(self.lease_end()), self.etag)
        except PointerMoved:
            return False
        return True

    def lease_end(self) -> float:
        """When a claim made now runs out."""
        return time.time() + self.terms.lease_seconds

    def answered(self) -> tuple[Outcome, dict[str, Any]] | None:
        """The answer that was written before the sheet was moved."""
        for outcome in OUTCOMES:
            with suppress(NotFound):
                return outcome, dict(self.store.get_json(self._target(outcome) + ".json"))
        return None

    def finish(self, outcome: Outcome, document: Mapping[str, Any]) -> bool:
        """The answer, the sheet's new place, its old place, the claim: who dies between leaves what the next one finishes."""
        if not self.renew():
            return False
        if self.answered() is None:
            self.store.put_new(self._target(outcome) + ".json", written(document))
        with suppress(NotFound):
            content, etag = self.store.get_bytes(self.name)
            if etag == self.sheet:
                self.store.put_new(self._target(outcome), content)
                self.store.remove(self.name)
        self.store.remove(_claim_key(self.name))
        return True

    def give_back(self) -> None:
        """A claim of an earlier attempt that ran out long ago."""
        self.attempt -= 1
        with suppress(PointerMoved):
            self.store.swap_pointer(_claim_key(self.name), self.body(0), self.etag)

    def _target(self, outcome: Outcome) -> str:
        return f"{outcome}/{self.since}.{self.name}"


@dataclass(frozen=True)
class BucketInbox:
    """Sheets under a prefix."""

    store: Store
    terms: Terms = SHIPPED

    @property
    def place(self) -> str:
        """The prefix."""
        return self.store.location.url

    def waiting(self) -> tuple[str, ...]:
        """Names of the sheets that nobody has; first those that somebody had."""
        keys = {stored.key for stored in self.store.list()}
        sheets = sorted(key for key in keys if "/" not in key and is_sheet(key))
        claimed = [name for name in sheets if _claim_key(name) in keys]
        return (*(name for name in claimed if self._is_over(name)), *(name for name in sheets if name not in claimed))

    def claim(self, ticket: str) -> BucketClaim | None:
        """Create the claim, or take over one that ran out; the store lets one worker do either."""
        self.store.probe_conditional_writes()
        try:
            sheet = self.store.head(ticket).etag
            claim = BucketClaim(self.store, self.terms, ticket, stamp(), 1, secrets.token_hex(8), sheet)
            if not self._created(claim) and not self._taken_over(claim):
                return None
            # whoever had it may have finished between our look and our claim
            if self.store.exists(ticket):
                return claim
        except NotFound:
            return None
        self.store.remove(_claim_key(ticket))
        return None

    def _created(self, claim: BucketClaim) -> bool:
        try:
            self.store.put_new(_claim_key(claim.name), claim.body(claim.lease_end()))
        except ImmutableConflict:
            return False
        claim.etag = self.store.head(_claim_key(claim.name)).etag
        return True

    def _taken_over(self, claim: BucketClaim) -> bool:
        body, etag = self.store.get_bytes(_claim_key(claim.name))
        said = json.loads(body)
        if said["until"] > time.time():
            return False
        if said["sheet"] == claim.sheet:
            claim.since, claim.attempt = said["since"], said["attempt"] + 1
        claim.etag = etag
        return claim.renew()

    def _is_over(self, name: str) -> bool:
        with suppress(StoreError):
            return bool(self.store.get_json(_claim_key(name))["until"] <= time.time())
        return False


def _claim_key(name: str) -> str:
    return f"{CLAIMED}/{name}.json"
