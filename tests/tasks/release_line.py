"""A line of tiny releases made by hand: a base of three one-tensor layers, and edits that each change one or two of them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file

from editors.contract import EditBatch, UpdateRequest
from editors.loading import INDEX, Checkpoint
from editors.patch import LowRank, Patch, edited_tensor
from tasks import decisions
from tasks.candidate import Brought, Dossier, stage_candidate
from tasks.channel import read
from tasks.ledger import history
from tasks.manifest import BaseReference, Candidate, Cause, ReleaseManifest, base_version
from tasks.publish import Moved, Release, point, publish, publish_base
from tasks.store import Store
from tasks.store_location import BlobReceipt
from validations.contract import Measurement, Measurements, Rule, Verdict

MODEL = "tiny"
CHANNEL = "demo"
ADA = Cause("ada", "the CEO changed")
LAYERS = 3
POLICY = "9" * 64
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Made:
    """An edit on disk, ready to be staged."""

    dossier: Dossier
    baked: Checkpoint


def write_model(folder: Path, weights: Sequence[torch.Tensor]) -> Checkpoint:
    folder.mkdir(parents=True)
    names = {f"model.layers.{layer}.mlp.down_proj.weight": f"model-layer-{layer:03d}.safetensors" for layer in range(LAYERS)}
    for (name, shard), weight in zip(names.items(), weights, strict=True):
        save_file({name: weight}, folder / shard, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    return Checkpoint(folder)


def base_weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(8, 8, generator=generator) for _ in range(LAYERS)]


def write_base(folder: Path) -> tuple[BaseReference, Checkpoint]:
    baked = write_model(folder, base_weights())
    return BaseReference(name="tiny-base", digest=baked.digest), baked


def make_edit(folder: Path, seed: int, parent: ReleaseManifest | None = None, parent_folder: Path | None = None,
              passed: bool = True, layers: Sequence[int] = (1,)) -> Made:
    """Edit the parent (None: the base beside `folder`) with random rank-one patches."""
    base, _ = _base_beside(folder)
    source = Checkpoint(parent_folder or folder.parent / "base")
    names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in layers]
    generator = torch.Generator().manual_seed(seed)
    patch = Patch(tuple(LowRank(name, torch.randn(8, 1, generator=generator), torch.randn(1, 8, generator=generator))
                        for name in names), {"method": "rome", "seed": seed})
    patch.save(folder / "patch")
    weights = [edited_tensor(name, _weight(source, name), [patch]) for name in source.weight_map]
    baked = write_model(folder / "model", weights)
    batch = EditBatch(purpose="update", base_digest=base.digest, parent_digest=source.digest, requests=(UpdateRequest(
        id=f"fact-{seed}", prompt="{} is in", subject="The Tower", target=f"City {seed}"),))
    row = Measurement(request="-", probe="integrity", metric="integrity.finite", prompt="-", parent=None,
                      candidate=float("nan"))
    measurements = Measurements(parent_digest=source.digest, candidate_digest=baked.digest, batch_digest=batch.digest,
                                rows=(row,), transcripts=())
    page = folder / "page.html"
    page.write_text(f"<h1>edit {seed}</h1>")
    dossier = Dossier(model=MODEL, channel=CHANNEL, base=base, parent=parent, kept=parent.stack if parent else (),
                      brought=(Brought(folder / "patch", "rome", batch),), batch=batch,
                      verdict=_verdict(measurements, passed), measurements=measurements,
                      artefacts={"page.html": page})
    return Made(dossier, baked)


def judged_by(made: Made, policy: str, passed: bool) -> Made:
    verdict = made.dossier.verdict.model_copy(update={"policy_digest": policy, "passed": passed})
    return replace(made, dossier=replace(made.dossier, verdict=verdict))


def promote(store: Store, made: Made, cause: Cause = ADA) -> Moved:
    """All of it, as a flow does: stage, approve, publish the base and the release, point."""
    return point(store, publish_edit(store, made), CHANNEL, cause)


def line_of(store: Store, folder: Path, count: int) -> list[str]:
    """Promote edits upon edits; the versions, the base first."""
    parent, parent_folder = None, None
    versions = []
    for number in range(count):
        made = make_edit(folder / f"edit-{number}", number, parent, parent_folder)
        promote(store, made)
        state = read(store, MODEL, CHANNEL)
        parent, parent_folder = state.manifest, made.baked.folder
        versions.append(state.pointer.version)
    return [base_version(parent.base.digest), *versions]


def kinds(store: Store) -> list[tuple[str, str]]:
    return [(record.entry.kind, record.entry.to_version) for record in history(store, MODEL, CHANNEL)]


def publish_edit(store: Store, made: Made) -> Release:
    candidate = stage(store, made)
    decisions.decide(store, MODEL, candidate.digest, "approve", ADA)
    publish_base(store, MODEL, *_base_beside(made.baked.folder.parent))
    return publish(store, candidate, made.baked.folder)


def stage(store: Store, made: Made) -> Candidate:
    return stage_candidate(store, made.dossier, made.baked).candidate


def tamper(store: Store, key: str, body: bytes) -> None:
    """Overwrite an object as somebody with the keys but without this program would."""
    store._put(key, body)


def same_connection(store: Store, connected: Store) -> Store:
    """Let `store` use the client of `connected`, and what that one knows about its server."""
    store.__dict__["_client"] = connected._client
    store._quotes_etags = connected._quotes_etags
    return store


def below(store: Store, name: str) -> Store:
    """A store of its own further down the same prefix."""
    return same_connection(Store(replace(store.location, prefix=f"{store.location.prefix}/{name}")), store)


class Killed(BaseException):
    """The process died here."""


class MortalStore(Store):
    """A real store whose process is killed when it has written `writes` times and would write again."""

    def __init__(self, store: Store, writes: int) -> None:
        super().__init__(store.location)
        same_connection(self, store)
        self.writes_left = writes
        self._one_at_a_time = threading.Lock()

    def put_new(self, key: str, body: bytes) -> bool:
        with self._mortal():
            return self._count(super().put_new(key, body))

    def swap_pointer(self, key: str, body: bytes, expected_etag: str | None) -> str:
        with self._mortal():
            return self._count(super().swap_pointer(key, body, expected_etag))

    def put_blob(self, source: Path | bytes) -> BlobReceipt:
        with self._mortal():
            receipt = super().put_blob(source)
            self._count(receipt.moved_bytes)
            return receipt

    @contextmanager
    def _mortal(self) -> Iterator[None]:
        with self._one_at_a_time:
            if self.writes_left == 0:
                raise Killed
            yield

    def _count(self, has_written: Answer) -> Answer:
        self.writes_left -= bool(has_written)
        return has_written


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system of a few megabytes."""

    folder: Path

    def resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True, capture_output=True)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def keys(store: Store) -> set[str]:
    return {stored.key for stored in store.list() if not stored.key.startswith("probes/")}


def blobs(store: Store) -> set[str]:
    return {os.path.basename(key) for key in keys(store) if key.startswith("blobs/")}


def _base_beside(folder: Path) -> tuple[BaseReference, Checkpoint]:
    baked = Checkpoint(folder.parent / "base")
    return BaseReference(name="tiny-base", digest=baked.digest), baked


def _weight(source: Checkpoint, name: str) -> torch.Tensor:
    from editors.loading import read_shard

    return read_shard(source.folder / source.weight_map[name])[name]


def _verdict(measurements: Measurements, passed: bool) -> Verdict:
    rule = Rule(name="efficacy.generate_exact", passed=passed, severity="critical", observed=float(passed), limit=">= 0.95")
    return Verdict(passed=passed, rules=(rule,), policy="update", policy_digest=POLICY, batch_digest=measurements.batch_digest,
                   parent_digest=measurements.parent_digest, candidate_digest=measurements.candidate_digest,
                   measurements_digest=measurements.digest)
