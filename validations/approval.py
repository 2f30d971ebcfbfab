"""Who may let a passed candidate through: the `approval` block of a policy, and what it comes to for one channel.

Names are compared as people write them: without regard to case or to space around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from editors.contract import Frozen

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]
Names = tuple[Name, ...]
Days = Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100)]


def person(name: str) -> str:
    """The form of a name by which two spellings are one person."""
    return " ".join(name.split()).casefold()


class ChannelRule(Frozen):
    """How candidates of one channel are approved."""

    automatic: bool = False
    """Whether the policy itself may approve, without a named person."""
    approvers: Names = ()
    """Who may approve; empty: anybody."""
    required: Count = 1
    """How many different people must approve."""
    own_requests: bool = True
    """Whether who asked for the edit may approve it."""
    expires_days: Days | None = None
    """Days after which an approval counts no more; None: it stays."""

    def is_named(self, name: str) -> bool:
        """Whether this person may have a say."""
        return not self.approvers or person(name) in map(person, self.approvers)

    def may_approve(self, name: str, requesters: Sequence[str]) -> bool:
        """Whether this person may approve what `requesters` asked for."""
        return self.is_named(name) and (self.own_requests or person(name) not in map(person, requesters))


class ChannelOverride(Frozen):
    """What a channel has otherwise than the block says; None: as the block says."""

    approvers: Names | None = None
    required: Count | None = None
    own_requests: bool | None = None
    expires_days: Days | None = None


class Approval(Frozen):
    """Who may let a passed candidate through."""

    auto_channels: tuple[str, ...] = ()
    """Channels whose passed candidates need no named person; every other channel does."""
    approvers: Names = ()
    """Who may approve; empty: anybody. Names are those given with `--by`, which nothing proves: sign releases to prove them."""
    required: Count = 1
    """How many different people must approve."""
    own_requests: bool | None = None
    """Whether who asked for an edit may approve it. None: yes, as long as nobody is named and one approval is enough.

    Where one person works alone there is nobody else to ask, and a second invented name would be no second look. Whoever
    names approvers or asks for several has a team, and there nobody decides about a request of his own.
    """
    expires_days: Days | None = None
    """Days after which an approval counts no more; None: it stays."""
    channels: Mapping[str, ChannelOverride] = {}
    """What single channels have otherwise."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Approval:
        both = [name for name in self.channels if name in self.auto_channels]
        if both:
            raise ValueError(f"the channel {both[0]!r} is in auto_channels and in channels: it needs people or it does not")
        for channel in ("", *self.channels):
            rule = self.rule_for(channel)
            people = {person(name) for name in rule.approvers}
            where = f"channels.{channel}: " if channel else ""
            if len(people) < len(rule.approvers):
                raise ValueError(f"{where}approvers names somebody twice: {', '.join(rule.approvers)}")
            if rule.approvers and rule.required > len(people):
                raise ValueError(f"{where}required is {rule.required}, and only {len(people)} may approve: "
                                 f"{', '.join(rule.approvers)}")
        return self

    def rule_for(self, channel: str) -> ChannelRule:
        """What the block comes to for one channel."""
        own = self.channels.get(channel, ChannelOverride())
        approvers = self.approvers if own.approvers is None else own.approvers
        required = own.required or self.required
        allowed = self.own_requests if own.own_requests is None else own.own_requests
        return ChannelRule(
            automatic=channel in self.auto_channels, approvers=approvers, required=required,
            own_requests=not approvers and required == 1 if allowed is None else allowed,
            expires_days=own.expires_days or self.expires_days)

    def document(self) -> dict[str, Any]:
        """The block as the policy's digest covers it: what is not given is left out, so that a policy written before there
        was a field keeps its digest.
        """
        given = self.model_dump(mode="json", exclude_defaults=True)
        return {**given, "auto_channels": list(self.auto_channels)}
