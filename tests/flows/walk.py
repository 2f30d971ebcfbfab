"""Driving the real command line against a home of its own, on a tiny model with a lenient policy."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.flows.ready import ready

ROOT = Path(__file__).resolve().parents[2]
LENIENT = {
    "purpose": "update",
    "approval": {"auto_channels": ["demo", "killed"]},
    "rules": [
        {"name": "integrity.finite", "meaning": "finite", "aggregate": "every", "at_least": 1, "required": 1},
        {"name": "integrity.something_changed", "meaning": "changed", "aggregate": "max", "at_least": 1, "required": 1},
        {"name": "efficacy.prob_success", "meaning": "likelier", "at_least": 0, "required": 1},
        {"name": "locality.kl", "meaning": "near", "at_most": 50, "required": 1},
        {"name": "perplexity.held_out", "meaning": "reads", "at_most_ratio": 50, "required": 1},
        {"name": "history.prob_success", "meaning": "kept", "aggregate": "every", "margin": 0},
    ],
}


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    document: dict[str, Any]
    errors: str


@dataclass(frozen=True)
class Walk:
    """One home, and commands run in it as a user runs them."""

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """What leads to a team's servers; empty: embedded ones."""

    @property
    def environment(self) -> dict[str, str]:
        """The user's environment with this home; nothing lingers."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "AWS_"))}
        return {**kept, "SUTURE_HOME": str(self.home), "SUTURE_LINGER_SECONDS": "20", "SUTURE_USER": "tester",
                "PYTHONPATH": str(ROOT), **self.settings}

    def command(self, *arguments: str) -> list[str]:
        """The command line of a process of its own."""
        return [sys.executable, "-c", "from flows.cli import main; main()", *arguments]

    def run(self, *arguments: str, typed: str = "") -> Answer:
        """Run `suture ... --json`, `typed` on its standard input."""
        code, printed, said = ready().run([*arguments, "--json"], self.environment, self.home, typed, timeout=1200)
        try:
            document = json.loads(printed)
        except ValueError:
            raise AssertionError(f"exit {code}, printed {printed!r}\n{said[-3000:]}") from None
        return Answer(code, document, said)

    def edit_killed_at(self, sheet: str, stage: str) -> None:
        """Run the edit and SIGKILL it as soon as `stage` has one more finished output."""
        folder = self.home / "work" / stage
        before = set(folder.glob("[!.]*"))
        process = subprocess.Popen(self.command("edit", sheet), env=self.environment, cwd=self.home,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 300
        while set(folder.glob("[!.]*")) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert set(folder.glob("[!.]*")) != before, f"{stage} never finished"

    def artifacts(self) -> dict[str, str]:
        """Key -> newest content of what the runs left in the home's Prefect."""
        with sqlite3.connect(self.home / "prefect" / "prefect.db") as database:
            return dict(database.execute("SELECT key, data FROM artifact WHERE flow_run_id IS NOT NULL ORDER BY created"))

    def sheet(self, name: str, base: str, requests: list[dict[str, Any]], **head: Any) -> str:
        """Write a sheet and its lenient policy; returns the sheet's path."""
        policy = self.home / "lenient.yaml"
        policy.write_text(yaml.safe_dump(LENIENT))
        method = {"name": "memit", "covariance_weight": 1.0, "contexts": 1}
        document = {"purpose": "update", "base": base, "channel": "demo", "method": method, "layers": [0, 1],
                    "policy": str(policy), "requests": requests, **head}
        path = self.home / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, allow_unicode=True))
        return str(path)


def request(number: int, target: str) -> dict[str, Any]:
    """One made-up fact."""
    subject = ("The Eiffel Tower", "LeBron James", "Danielle Darrieux")[number]
    return {"id": f"fact-{number}", "prompt": "{} is known for", "subject": subject, "target": target, "was": "nothing",
            "paraphrases": [f"People know {subject} for"], "neighbours": [{"prompt": "The Louvre is known for"}]}
