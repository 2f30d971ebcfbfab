"""A small world to break: a home, a real S3 server, a tiny model, and the commands of the product run in this process.

Everything is imported once; each command then runs in a fork (see `faults_lives`). The flows are the product's own, called
without Prefect's engine around them: it keeps nothing, so that nothing of it could be lost. States of the whole world (the
home's files and every object) are saved by name and laid out again before each case.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from benchmarks.faults_lives import Act, Life, Plan, environment, live
from editors.errors import SutureError
from tasks.store import Store
from tasks.store_errors import TRASH

BUCKET, PREFIX, INBOX, USER = "faults", "w", "in", "tester"
MODEL = "tiny"
SUBJECTS = ("The Eiffel Tower", "LeBron James", "Danielle Darrieux")
QUIET = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "NO_PROXY": "127.0.0.1",
}
RULES: list[dict[str, Any]] = [
    {"name": "integrity.finite", "meaning": "finite", "aggregate": "every", "at_least": 1, "required": 1},
    {"name": "integrity.something_changed", "meaning": "changed", "aggregate": "max", "at_least": 1, "required": 1},
    {"name": "efficacy.prob_success", "meaning": "likelier", "at_least": 0, "required": 1},
    {"name": "locality.kl", "meaning": "near", "at_most": 1000, "required": 1},
    {"name": "perplexity.held_out", "meaning": "reads", "at_most_ratio": 1000, "required": 1},
]
"""What a random model can pass. The gate is not what is tested here."""


@dataclass(frozen=True)
class State:
    """The world at one moment: a copy of the home, and every object's bytes and ETag."""

    home: Path
    objects: dict[str, tuple[bytes, str]]


@dataclass
class World:
    """One home under `root`, with its store."""

    root: Path
    endpoint: Any
    store: Store
    """The whole bucket, past every fault."""
    states: dict[str, State] = field(default_factory=dict)
    _whole: set[tuple[str, ...]] = field(default_factory=set)

    @property
    def home(self) -> Path:
        """`SUTURE_HOME` of every command."""
        return self.root / "home"

    @property
    def line(self) -> Store:
        """The store that the commands use, past every fault."""
        return _same(Store(replace(self.store.location, prefix=PREFIX)), self.store)

    def variables(self, endpoint_url: str | None = None) -> dict[str, str]:
        """The environment of a command."""
        return {"AWS_ACCESS_KEY_ID": self.endpoint.access_key, "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_SECRET_ACCESS_KEY": self.endpoint.secret_key.get_secret_value(), "SUTURE_HOME": str(self.home),
                "SUTURE_STORE": f"s3://{BUCKET}/{PREFIX}", "SUTURE_USER": USER,
                "SUTURE_ENDPOINT_URL": endpoint_url or self.endpoint.endpoint_url}

    def live(self, act: Act, plan: Plan | None = None) -> Life:
        """One life of a command in this world."""
        return live(act, self.root / "life", plan)

    def objects(self) -> dict[str, str]:
        """Key -> ETag of everything in the bucket."""
        return {stored.key: stored.etag for stored in self.store.list()}

    def save(self, name: str) -> None:
        """Keep the present state under a name."""
        kept = self.root / "states" / name
        _copy(self.home, kept)
        self.states[name] = State(kept, {key: (self.store.get_bytes(key)[0], etag) for key, etag in self.objects().items()})

    def restore(self, name: str) -> None:
        """Lay out a saved state."""
        state = self.states[name]
        _copy(state.home, self.home)
        present = self.objects()
        for key in present.keys() - state.objects.keys():
            self.store.remove(key)
        for key, (body, etag) in state.objects.items():
            if present.get(key) != etag:
                self.put(key, body)

    def put(self, key: str, body: bytes) -> None:
        """Overwrite an object as somebody with the keys but without this product would."""
        self.store._put(key, body)

    def sheet(self, name: str, number: int, target: str, channel: str = "demo") -> str:
        """Write a sheet of one fact and its policy; returns its path. On `demo` the policy approves by itself."""
        subject = SUBJECTS[number]
        policy = {"purpose": "update", "approval": {"auto_channels": ["demo"]}, "rules": RULES}
        (self.home / "lenient.yaml").write_text(yaml.safe_dump(policy))
        (self.home / "removal.yaml").write_text(yaml.safe_dump({**policy, "purpose": "removal"}))
        asked = {"id": f"fact-{number}", "prompt": "{} is known for", "subject": subject, "target": target, "was": "nothing",
                 "paraphrases": [f"People know {subject} for"]}
        document = {"purpose": "update", "base": str(self.root / MODEL), "channel": channel, "layers": [0, 1], "locate": False,
                    "method": {"name": "memit", "covariance_weight": 1.0, "contexts": 1},
                    "policy": str(self.home / "lenient.yaml"), "requests": [asked]}
        path = self.home / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return str(path)

    def channels(self) -> dict[str, str]:
        """Channel -> the version that it serves."""
        from tasks.channel import read_pointer

        names = [key.split("/")[-1].removesuffix(".json") for key in self.objects() if f"models/{MODEL}/channels/" in key]
        return {name: read_pointer(self.line, MODEL, name)[0].version for name in sorted(names)}

    def torn(self) -> list[str]:
        """What is wrong with the releases that the channels point to, found out by pulling them."""
        from tasks.channel import read
        from tasks.pull import pull

        problems = []
        present = self.objects()
        blobs = tuple(sorted(f"{key} {etag}" for key, etag in present.items() if "/blobs/" in key))
        for key in [key for key in present if f"models/{MODEL}/channels/" in key]:
            name = key.split("/")[-1].removesuffix(".json")
            seen = (key, present[key], *blobs)
            if seen in self._whole:
                continue
            target = self.root / "whole"
            shutil.rmtree(target, ignore_errors=True)
            try:
                state = read(self.line, MODEL, name)
                if state is not None:
                    pull(self.line, state.manifest, target)
                self._whole.add(seen)
            except SutureError as error:
                problems.append(f"channel {name}: {error.message}")
        return problems

    def dangling(self) -> list[str]:
        """Blobs that a release names and that are neither in place nor aside."""
        from tasks.collect import Ages, look

        seen = look(self.line, Ages(), self.line.clock())
        return [f"{key}, named by {by}, is gone" for key, by in sorted(seen.named.items())
                if key.startswith("blobs/") and by.startswith("release") and not {key, TRASH + key} & seen.objects.keys()]

    def ledger(self) -> list[tuple[str, str, str]]:
        """Kind, channel and version of every move."""
        from tasks.ledger import history

        return [(record.entry.kind, record.entry.channel, record.entry.to_version) for record in history(self.line, MODEL)]


@contextmanager
def world(root: Path) -> Iterator[World]:
    """An empty world, its server running, everything that a command imports imported. Afterwards this process is as before."""
    from tasks.s3_server import embedded_s3

    with ExitStack() as stack:
        stack.enter_context(environment(**{name: value for name, value in QUIET.items() if name not in os.environ}))
        endpoint = stack.enter_context(embedded_s3(root / "server", linger_seconds=0.0))
        stack.enter_context(_bare_flows())
        store = Store(endpoint.location(BUCKET))
        store.ensure_bucket()
        store.probe_conditional_writes()
        from tests.tiny import tiny_folder

        tiny_folder(root / MODEL, layers=2)
        made = World(root, endpoint, store)
        stack.enter_context(environment(**made.variables()))
        _warm(made)
        stack.callback(gc.unfreeze)
        yield made


def inbox_store(here: World) -> Store:
    """The bucket's inbox, past every fault."""
    return _same(Store(replace(here.store.location, prefix=INBOX)), here.store)


def in_place(keys: dict[str, str]) -> set[str]:
    """What does not lie aside and is no probe."""
    return {key for key in keys if f"/{TRASH}" not in key and "/probes/" not in key and not key.startswith("probes/")}


def stages_of(home: Path) -> dict[str, tuple[int, int]]:
    """Finished stages: place -> inode and time of their record."""
    found = {}
    for record in (home / "work").glob("*/[!.]*/record.json"):
        seen = record.stat()
        found[f"stage {record.parent.parent.name} {record.parent.name}"] = (seen.st_ino, seen.st_mtime_ns)
    return found


def flip(body: bytes, at: int) -> bytes:
    """The bytes with the lowest bit of one of them turned."""
    changed = bytearray(body)
    changed[at % len(changed)] ^= 1
    return bytes(changed)


def places(body: bytes, name: str, count: int) -> list[int]:
    """Where to turn a bit: places drawn by the name, which are the same in every run."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return [(seed >> (7 * number)) % len(body) for number in range(count)] if body else []


def document_of(answer: Any, *names: str) -> dict[str, Any]:
    """Some of an answer's fields."""
    return {name: answer.get(name) for name in names} if isinstance(answer, dict) else {"answer": answer}


def same_document(one: Any, other: Any) -> bool:
    """Whether two answers are one, as JSON."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def wait(seconds: float) -> None:
    """Let a lease run out."""
    time.sleep(seconds)


def _copy(source: Path, target: Path) -> None:
    """A copy whose hard links are hard links to each other, as they are in the source."""
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)  # noqa: S603, S607  two folders of our own


def _same(store: Store, connected: Store) -> Store:
    store.__dict__["_client"] = connected._client
    store._quotes_etags = connected._quotes_etags
    return store


def _warm(here: World) -> None:
    """One edit in this process, for what libraries load when they are used first; nothing of it is left in the world."""
    from flows.edit import edit

    here.home.mkdir()
    with environment(SUTURE_HOME=str(here.root / "warm"), SUTURE_STORE=f"s3://{BUCKET}/warm"):
        edit(here.sheet("warm", 0, "warmth"))
    for key in here.objects():
        if key.startswith("warm/"):
            here.store.remove(key)
    shutil.rmtree(here.root / "warm")
    # a collection in a fork would touch, and so copy, every page of the libraries
    gc.collect()
    gc.freeze()


@contextmanager
def _bare_flows() -> Iterator[None]:
    """All that a command imports, and its flows without Prefect's engine around their stages; put back afterwards."""
    import boto3
    import great_expectations  # noqa: F401
    import mlflow.pyfunc  # noqa: F401
    import torch
    import tqdm
    from prefect import Flow, Task

    import flows.edit
    import flows.inbox
    import flows.promote
    import flows.remove
    import flows.rollback

    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        # a thread of its own would not live on in a fork
        stack.enter_context(patch.object(tqdm.tqdm, "monitor_interval", 0))
        # each new session reads boto3's models of S3 again, a tenth of a second
        session = boto3.session.Session()
        stack.enter_context(patch.object(boto3.session, "Session", lambda: session))
        for module in (flows.edit, flows.inbox, flows.promote, flows.remove, flows.rollback):
            for name, value in list(vars(module).items()):
                if isinstance(value, (Task, Flow)):
                    stack.enter_context(patch.object(module, name, value.fn))
        yield
