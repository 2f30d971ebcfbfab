"""Every parser under a coverage-guided fuzzer: whatever it is fed, nothing comes out but a value or a typed error.

    python -m benchmarks.fuzz [--seconds 60] [--parser NAME ...] [--corpus FOLDER]

Needs atheris (`pip install atheris`, Linux wheels); without it says so and ends with 0. Each parser gets a process of its own
and begins with real files: the shipped sheets, records and a patch as the product writes them. What crashed is kept beside the
corpus.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from editors.errors import SutureError

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODULES = ["editors", "tasks", "validations", "safetensors"]
LONGEST = 8192
Parser = Callable[[bytes], object]


def parsers() -> dict[str, Parser]:
    """By name; each is given any bytes."""
    from editors.loading import Checkpoint, read_shard
    from editors.patch import load_patch
    from editors.sheet import parse_sheet
    from tasks.manifest import Candidate, Decision, LedgerEntry, Pointer, ReleaseManifest, parse

    scratch = Path(tempfile.mkdtemp(prefix="suture-fuzz-"))

    def sheet(content: bytes) -> None:
        for name in ("a.yaml", "a.json", "a.jsonl"):
            with suppress(SutureError):
                parse_sheet(content, name)

    def manifest(content: bytes) -> None:
        for kind in (Candidate, ReleaseManifest, Pointer, Decision):
            with suppress(SutureError):
                parse(kind, content, "s3://here")

    def patch(content: bytes) -> None:
        """The two files, parted by the first zero byte."""
        document, _, tensors = content.partition(b"\0\0")
        (scratch / "patch.json").write_bytes(document)
        (scratch / "patch.safetensors").write_bytes(tensors)
        load_patch(scratch)

    def header(content: bytes) -> None:
        (scratch / "model.safetensors").write_bytes(content)
        with suppress(SutureError):
            read_shard(scratch / "model.safetensors")
        _ = Checkpoint(scratch).headers

    return {"sheet": sheet, "manifest": manifest, "patch": patch,
            "ledger": lambda content: parse(LedgerEntry, content, "s3://here"), "safetensors": header}


def seeds(name: str) -> list[bytes]:
    """What a parser begins with."""
    import torch
    from safetensors.torch import save

    from editors.patch import LowRank, Patch
    from tasks.manifest import Decision, LedgerEntry, Pointer, serialise

    entry = LedgerEntry(kind="promote", channel="demo", move=2, by="ada", reason="r", at="2026-01-01T00:00:00+00:00",
                        from_version="a" * 12, to_version="b" * 12, manifest="c" * 64, verdict=None, decision=None,
                        previous=None)
    patch = Patch((LowRank("w", torch.ones(2, 1), torch.ones(1, 2)),), {"method": "rome"})
    tensors, document = patch.serialise()
    return {
        "sheet": lambda: [path.read_bytes() for path in sorted(EXAMPLES.glob("*.yaml"))],
        "manifest": lambda: [
            serialise(Pointer(model="tiny", channel="demo", version="b" * 12, manifest="c" * 64, entry=entry)),
            serialise(Decision(model="tiny", digest="b" * 64, record="a" * 64, verdict="a" * 64, decision="approve", by="ada",
                               reason="r", at="2026-01-01").sealed())],
        "patch": lambda: [document + b"\0\0" + tensors], "ledger": lambda: [serialise(entry)],
        "safetensors": lambda: [tensors, save({"w": torch.ones(2, 2, dtype=torch.bfloat16)}, {"format": "pt"})],
    }[name]()


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Fuzz one parser; ends this process, with 0 where nothing but typed errors came out."""
    import atheris

    with atheris.instrument_imports(include=MODULES):
        parser = parsers()[name]

    def once(content: bytes) -> None:
        with suppress(SutureError):
            parser(content)

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=10",
                   f"-artifact_prefix={corpus.parent}/crash-{name}-", str(corpus)], once)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz each parser in turn; 1 where one let something else through."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    given.add_argument("--seconds", type=int, default=60, help="for all parsers together")
    given.add_argument("--parser", nargs="+", default=["sheet", "manifest", "patch", "ledger", "safetensors"])
    given.add_argument("--corpus", type=Path, help="keep what was found here")
    given.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = given.parse_args(arguments)
    console = Console()
    try:
        import atheris  # noqa: F401
    except ImportError:
        console.print("not fuzzed: atheris is not installed; pip install atheris (it has wheels for Linux)")
        return 0
    root = chosen.corpus or Path(tempfile.mkdtemp(prefix="suture-fuzz-"))
    if chosen.inside:
        fuzz(chosen.parser[0], root / chosen.parser[0], chosen.seconds)
    failed = []
    for name in chosen.parser:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(seeds(name)):
            (root / name / f"seed-{number}").write_bytes(content)
        share = max(1, chosen.seconds // len(chosen.parser))
        command = [sys.executable, "-m", "benchmarks.fuzz", "--inside", "--parser", name, "--corpus", str(root), "--seconds",
                   str(share)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  this very module
        lines = [line for line in ended.stderr.splitlines() if line.startswith(("Done", "stat::", "#"))]
        outcome = "FAILED" if ended.returncode else "nothing but typed errors"
        console.print(f"{name}: {outcome}; {lines[-1] if lines else ''}")
        if ended.returncode:
            failed.append(name)
            console.print(ended.stderr[-3000:] + ended.stdout[-3000:], markup=False, highlight=False)
    console.print(f"corpus and crashes: {root}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
