"""Estimates against what is then measured: operations counted while planning, memory of a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import editors
from editors.contract import EditBatch, UpdateRequest
from editors.corpus import corpus_file
from editors.detoxify_request import DetoxifyRequest
from editors.loading import Checkpoint, LoadedModel, load
from editors.natural_costs import statistics_price
from editors.prospect import Sizes, prospect_of
from tests.editors.plans import IDENTITY, JAMES, SPEED, TOWER, at, batch_of, detoxify_batch
from tests.tiny import FAMILIES, HIDDEN, VOCABULARY, tiny_folder, tiny_tokenizer

TOLERANCE = 0.3
METHODS = {"rome": (1,), "memit": (1, 2)}
NEVER_DONE: dict[str, Any] = {"steps": 3, "stop_loss": 1e-9}
"""A search that runs all its steps, so that their number is known."""
ROOT = Path(__file__).resolve().parents[2]
PEAK = """
import json, sys
from pathlib import Path
import torch, transformers
import editors, editors.memit, editors.rome
from editors.contract import EditBatch, Location
from editors.loading import Checkpoint, load
from editors.patch import Patch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, GPT2LMHeadModel

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

folder, statistics, method, layers, options, batch = map(json.loads, sys.argv[1:])
before = peak()
model = load(Checkpoint(Path(folder)), "cpu")
editors.get(method).from_options(options).plan(
    model, EditBatch.model_validate(batch), Location(layers=layers, positions={}, source="sheet"), Path(statistics))
print(peak() - before)
"""


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=5)


def counted(model: LoadedModel, method: str, batch: EditBatch, layers: tuple[int, ...], options: dict[str, Any],
            statistics: Path) -> int:
    """Operations of a plan; attention on the CPU, which torch does not count by itself, included."""
    ops = torch.ops.aten
    attention = {ops._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
                 ops._scaled_dot_product_flash_attention_for_cpu_backward:
                     lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)}
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        editors.get(method).from_options(options).plan(model, batch, at(*layers), statistics)
    return counter.get_total_flops()


@pytest.mark.parametrize(("method", "is_warm"), [("rome", True), ("memit", True), ("memit", False)])
def test_operations_are_those_counted(folder: Path, method: str, is_warm: bool, tmp_path: Path) -> None:
    model, layers = load(Checkpoint(folder)), METHODS[method]
    batch = batch_of(model, TOWER, JAMES, SPEED, IDENTITY)
    editor = editors.get(method).from_options(NEVER_DONE)
    if is_warm:
        editor.plan(model, batch, at(*layers), tmp_path)
    ahead = prospect_of(Checkpoint(folder), batch, layers, tmp_path, device="cpu")
    assert (ahead.lacks_text, ahead.missing_factors) == ((False, ()) if is_warm else (True, layers))
    found = counted(model, method, batch, layers, NEVER_DONE, tmp_path)
    assert editor.estimate(ahead).flops == pytest.approx(found, rel=TOLERANCE)


def test_operations_of_naturals_own_statistics_are_those_counted(folder: Path, tmp_path: Path) -> None:
    model, layers, options = load(Checkpoint(folder)), (1, 2), {"passes": 1}
    batch = batch_of(model, TOWER, JAMES)
    cold = statistics_price(prospect_of(Checkpoint(folder), batch, layers, tmp_path, device="cpu")).flops
    found = [counted(model, "natural", batch, layers, options, tmp_path) for _ in range(2)]
    assert cold == pytest.approx(found[0] - found[1], rel=TOLERANCE)
    one_more = statistics_price(prospect_of(Checkpoint(folder), batch, (1, 2, 3), tmp_path, device="cpu")).flops
    assert 0 < one_more < cold
    assert statistics_price(prospect_of(Checkpoint(folder), batch, layers, tmp_path, device="cpu")).flops == 0


def test_operations_of_soften_are_those_counted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editors.held_step.MEASURES", 1)
    monkeypatch.setattr("editors.soften_costs.TYPICAL_TRIES", 1)
    model, layers, options = load(Checkpoint(folder)), (1, 2), {"price": 1.0, "rank": 4}
    pairs = ({"prompt": "Who are", "toxic": "you to say that", "answer": "those who live next to the bakery"},) * 20
    batch = detoxify_batch(model, DetoxifyRequest(id="rage", form="plain", unsafe=pairs, benign=("Where do wolves live?",)))
    told = []
    for _ in range(2):
        ahead = prospect_of(Checkpoint(folder), batch, layers, tmp_path, device="cpu")
        told.append(editors.get("soften").from_options(options).estimate(ahead).flops)
        assert told[-1] == pytest.approx(counted(model, "soften", batch, layers, options, tmp_path), rel=TOLERANCE)
    assert told[1] < told[0]


def test_a_large_batch_is_judged_by_some_of_its_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editors.prospect.MOST_ENCODED", 7)
    folder = tiny_folder(tmp_path / "model", layers=5)
    model = load(Checkpoint(folder))
    many = [request.model_copy(update={"id": f"{request.id}-{number}", "subject": f"{request.subject} {number}"})
            for number in range(10, 20) for request in (TOWER, JAMES)]
    editor = editors.get("memit").from_options(NEVER_DONE)
    editor.plan(model, batch_of(model, TOWER), at(1, 2), tmp_path)
    batch = batch_of(model, *many)
    ahead = prospect_of(Checkpoint(folder), batch, (1, 2), tmp_path, device="cpu")
    facts, scale = ahead.facts("auto", 1)
    assert (facts.count, scale * facts.count) == (7, len(many))
    found = counted(model, "memit", batch, (1, 2), NEVER_DONE, tmp_path)
    assert editor.estimate(ahead).flops == pytest.approx(found, rel=TOLERANCE)


def test_more_work_costs_more_and_stored_statistics_nothing(folder: Path, tmp_path: Path) -> None:
    model = load(Checkpoint(folder))
    editor = editors.get("memit").from_options(NEVER_DONE)

    def cost(*requests: UpdateRequest) -> Any:
        return editor.estimate(prospect_of(Checkpoint(folder), batch_of(model, *requests), (1, 2), tmp_path, device="cpu"))

    cold = cost(TOWER)
    editor.plan(model, batch_of(model, TOWER), at(1, 2), tmp_path)
    one, three = cost(TOWER), cost(TOWER, JAMES, SPEED)
    assert cold.flops > three.flops > one.flops > 0
    assert three.memory_bytes > one.memory_bytes
    assert one.seconds > 0


def test_sizes_are_those_of_the_loaded_model(folder: Path) -> None:
    model = load(Checkpoint(folder))
    sizes = Sizes.of(Checkpoint(folder), "cpu")
    assert sizes.model_bytes == sum(4 * parameter.numel() for parameter in model.model.parameters())
    block = model.model.get_submodule(model.anatomy.block_path(1))
    assert sizes.block_weights == sum(weight.numel() for weight in block.parameters() if weight.ndim == 2)
    assert (sizes.attention_width, sizes.head_weights, sizes.item_bytes) == (HIDDEN, HIDDEN * VOCABULARY, 4)
    assert sizes.cache_width == (HIDDEN if model.anatomy.model_type == "llama" else 2 * HIDDEN)


def measured_bytes(folder: Path, statistics: Path, method: str, layers: tuple[int, ...], options: dict[str, Any],
                   batch: EditBatch) -> int:
    """What a fresh process takes beyond its imports to load the model and plan the batch, at the peak."""
    values = (str(folder), str(statistics), method, layers, options, batch.model_dump(mode="json"))
    given = [json.dumps(value) for value in values]
    ended = subprocess.run([sys.executable, "-c", PEAK, *given], capture_output=True, text=True, cwd=ROOT, check=True)
    return int(ended.stdout.split()[-1])


def middling_folder(folder: Path) -> Path:
    """A random model of some 50 MB: large enough for its tensors to be most of what a process takes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=8192, max_position_embeddings=512, tie_word_embeddings=True)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_memory_is_that_measured(tmp_path: Path) -> None:
    folder = middling_folder(tmp_path / "model")
    digest = Checkpoint(folder).digest
    requests = tuple(request.model_copy(update={"id": f"{request.id}-{number}", "subject": f"{request.subject} {number}"})
                     for number in range(8) for request in (TOWER, JAMES))
    batch = EditBatch(purpose="update", base_digest=digest, parent_digest=digest, requests=requests)
    text = corpus_file(Checkpoint(folder).anatomy, digest, tmp_path)
    text.write_text(json.dumps(torch.randint(0, VOCABULARY, (8, 128)).tolist()))
    for is_cold in (True, False):
        ahead = prospect_of(Checkpoint(folder), batch, (2, 3), tmp_path, device="cpu")
        assert ahead.missing_factors == ((2, 3) if is_cold else ())
        expected = editors.get("memit").from_options(NEVER_DONE).estimate(ahead).memory_bytes
        found = measured_bytes(folder, tmp_path, "memit", (2, 3), NEVER_DONE, batch)
        assert expected == pytest.approx(found, rel=TOLERANCE), f"{'cold' if is_cold else 'warm'}: {found >> 20} MiB"


@pytest.mark.model
@pytest.mark.parametrize(("method", "layers"), [("rome", (5,)), ("memit", (3, 4, 5, 6, 7))])
def test_packaged_model_costs_what_was_told(packaged_model: Checkpoint, model_cache: Path, method: str,
                                            layers: tuple[int, ...]) -> None:
    statistics = model_cache / "statistics"
    digest = packaged_model.digest
    subjects = ("France", "Japan") if method == "memit" else ("France",)
    requests = tuple(UpdateRequest(id=subject, prompt="The capital of {} is", subject=subject, target="Oslo")
                     for subject in subjects)
    batch = EditBatch(purpose="update", base_digest=digest, parent_digest=digest, requests=requests)
    ahead = prospect_of(packaged_model, batch, layers, statistics, device="cpu")
    told = editors.get(method).from_options({}).estimate(ahead)
    if not ahead.missing_factors:
        assert told.memory_bytes == pytest.approx(measured_bytes(packaged_model.folder, statistics, method, layers, {}, batch),
                                                  rel=TOLERANCE)
    model = load(packaged_model, "cpu")
    editors.get(method).from_options({"steps": 1}).plan(model, batch, at(*layers), statistics)
    warm = editors.get(method).from_options({}).estimate(prospect_of(packaged_model, batch, layers, statistics, device="cpu"))
    assert warm.flops == pytest.approx(counted(model, method, batch, layers, {}, statistics), rel=TOLERANCE)
