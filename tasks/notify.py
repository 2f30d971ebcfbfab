"""Telling people that something waits for them, or happened: by Apprise, to wherever its addresses lead.

A message names versions, channels and people who decided, never a request: it may be about somebody, and it leaves the house.
A message that does not arrive stops nothing; it is a line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from editors.errors import ConfigError

logger = logging.getLogger("suture")
Event = Literal["waiting", "refused", "promoted", "rolled back", "alarm"]
KINDS: dict[Event, str] = {"waiting": "info", "refused": "warning", "promoted": "success", "rolled back": "warning",
                           "alarm": "failure"}
"""Event -> how Apprise marks it."""


@dataclass(frozen=True)
class Bell:
    """Where messages go. Addresses hold tokens, so they are never shown."""

    addresses: SecretStr | None
    """Apprise addresses, parted by spaces: https://github.com/caronc/apprise/wiki. None: nobody is told."""

    def ring(self, event: Event, answer: Mapping[str, Any]) -> None:
        """Tell what an answer is about."""
        if self.addresses is None:
            return
        title, body = message(event, answer)
        if not self._sender().notify(title=title, body=body, notify_type=KINDS[event]):
            logger.warning("the notification did not reach everybody: %s", title)

    def check(self) -> None:
        """See that every address can be read, before any work is done.

        Raises:
            ConfigError: one cannot.
        """
        if self.addresses is not None:
            self._sender()

    def _sender(self) -> Any:
        import apprise

        sender = apprise.Apprise()
        for number, address in enumerate((self.addresses or SecretStr("")).get_secret_value().split(), start=1):
            if not sender.add(address):
                raise ConfigError(f"address {number} of SUTURE_NOTIFY is none that Apprise knows",
                                  "see the forms: https://github.com/caronc/apprise/wiki")
        return sender


def message(event: Event, answer: Mapping[str, Any]) -> tuple[str, str]:
    """Title and body: what, where, who, and the next thing to type."""
    version, channel = answer.get("version"), answer.get("channel")
    title = {"waiting": f"{version} waits for approval", "refused": f"the gate refused {version}",
             "promoted": f"channel {channel} serves {version}", "rolled back": f"channel {channel} is back at {version}",
             "alarm": f"channel {channel} does not serve what was approved"}[event]
    failed = [rule["name"] for rule in (answer.get("verdict") or {}).get("rules", ())
              if not rule["passed"] and rule["severity"] == "critical"]
    about = {"model": answer.get("model"), "channel": channel, "by": answer.get("by"), "failed": ", ".join(failed)}
    lines = [f"{name}: {value}" for name, value in about.items() if value]
    return f"Suture: {title}", "\n".join([*lines, *answer.get("next", ())])
