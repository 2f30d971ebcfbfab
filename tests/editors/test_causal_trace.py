from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.locating_naive import NaiveTrace
from editors.contract import EditBatch, Message, UpdateRequest
from editors.digest import digest_tensor
from editors.errors import ConfigError, SheetError
from editors.loading import Checkpoint, LoadedModel, load
from editors.locate import locate
from editors.locate.causal_trace import (
    TraceConfig,
    TracedPrompt,
    TraceResult,
    _positions,
    corrupt,
    embedding_deviation,
    prepare,
    trace,
)
from editors.locate.replay import SEVERED, Kind, record, scrambled
from editors.locate.trace_table import as_csv, cells, role_means, traced_peak
from tests.tiny import FAMILIES, tiny_folder

TOWER = UpdateRequest(id="tower", prompt="Long ago {} was in the city of", subject="the Eiffel Tower", target="Rome")
CHAT = UpdateRequest(id="name", messages=(Message(role="user", content="What is your name?"),), answer="SmolLM")
CONFIG = TraceConfig(window=2, noise_samples=2, rows_at_once=14)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    folders = {family: tiny_folder(tmp_path_factory.mktemp(family), family, layers=4) for family in FAMILIES}
    return lambda family: load(Checkpoint(folders[family]), "cpu")


def batch_of(*requests: UpdateRequest) -> EditBatch:
    return EditBatch(purpose="update", base_digest="b", parent_digest="p", requests=requests)


@pytest.mark.parametrize("request_", [TOWER, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_equals_the_naive_run(models: Callable[[str], LoadedModel], family: str, request_: UpdateRequest) -> None:
    model = models(family)
    result = trace(model, [request_], CONFIG)
    traced = result.traces[0]
    with torch.inference_mode():
        embeddings = model.model.get_submodule(model.anatomy.embedding)(torch.tensor([traced.prompt.ids]))
        clean = model.model(torch.tensor([traced.prompt.ids])).logits[0, -1].softmax(-1)
        naive = NaiveTrace(model, traced.prompt, corrupt(embeddings, traced.prompt, result.noise, CONFIG), CONFIG.window)
        expected = {kind: torch.stack([torch.stack([naive.effect(kind, layer, position) for layer in result.layers])
                                       for position in traced.prompt.positions_of(kind)]) for kind in CONFIG.kinds}
    assert result.layers == (0, 1, 2, 3)
    assert traced.clean == pytest.approx(float(clean.max()), abs=1e-6)
    assert any(float(draws.abs().max()) > 1e-3 for draws in expected.values()), "the trace moves nothing: no test"
    for kind, draws in expected.items():
        assert torch.allclose(traced.draws[kind], draws, atol=1e-5), kind
        assert torch.allclose(traced.effects[kind], draws.mean(-1), atol=1e-5), kind


def test_restoring_the_last_state_of_the_last_token_recovers_everything(models: Callable[[str], LoadedModel]) -> None:
    traced = trace(models("llama"), [TOWER], CONFIG).traces[0]
    assert float(traced.effects["state"][-1, -1]) == pytest.approx(traced.clean - traced.corrupted, abs=1e-6)


def test_tracing_leaves_the_model_as_it_was(models: Callable[[str], LoadedModel]) -> None:
    model = models("llama")
    before = {name: digest_tensor(value) for name, value in model.model.state_dict().items()}
    trace(model, [TOWER, CHAT], CONFIG)
    assert {name: digest_tensor(value) for name, value in model.model.state_dict().items()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())


def test_blurs_the_subject_or_else_the_question(models: Callable[[str], LoadedModel]) -> None:
    model = models("gpt2")
    words = []
    for request in (TOWER, CHAT):
        prompt = prepare(model, request, token_limit=40)
        words.append(model.tokenizer.decode(prompt.ids[prompt.first:prompt.last + 1]).strip())
        assert prompt.positions == tuple(range(prompt.first, len(prompt.ids)))
    assert words == ["the Eiffel Tower", "What is your name?"]


def test_noise_scale_comes_from_the_embeddings_of_all_subjects(models: Callable[[str], LoadedModel]) -> None:
    model = models("llama")
    other = TOWER.model_copy(update={"id": "other", "subject": "LeBron James"})
    prompts = [prepare(model, request, 4) for request in (TOWER, other)]
    ids = [token for prompt in prompts for token in prompt.ids[prompt.first:prompt.last + 1]]
    expected = model.model.get_input_embeddings().weight[ids].std()
    assert embedding_deviation(model, [TOWER, other]) == pytest.approx(float(expected), rel=1e-6)
    assert trace(model, [TOWER, other], CONFIG).noise == pytest.approx(3 * float(expected), rel=1e-6)


def test_traces_a_few_requests_spread_over_the_batch_and_says_so(models: Callable[[str], LoadedModel]) -> None:
    requests = [TOWER.model_copy(update={"id": f"r{number}"}) for number in range(7)]
    config = TraceConfig(kinds=("state",), noise_samples=1, request_limit=3)
    result = trace(models("llama"), requests, config)
    assert [traced.prompt.request for traced in result.traces] == ["r0", "r2", "r4"]
    rows = list(csv.DictReader(as_csv(role_means(result)).splitlines()))
    assert {(row["requests_traced"], row["requests_in_batch"]) for row in rows} == {("3", "7")}
    for row in rows:
        assert float(row["low"]) == pytest.approx(float(row["mean"]), abs=2e-6), "equal requests under one draw have no spread"


@pytest.mark.parametrize(("first_", "last", "length", "limit"), [
    (0, 0, 1, 4), (0, 0, 9, 4), (3, 5, 6, 4), (2, 12, 13, 5), (2, 12, 20, 8), (0, 2, 30, 8), (5, 6, 8, 8)])
def test_thinned_positions_keep_both_ends_of_subject_and_rest(first_: int, last: int, length: int, limit: int) -> None:
    positions = _positions(first_, last, length, limit)
    assert len(positions) <= limit
    assert list(positions) == sorted(set(positions))
    assert {first_, last, length - 1} <= set(positions)
    assert last + 1 in positions or last == length - 1


def result_with(effects: dict[Kind, list[list[float]]], kinds: tuple[Kind, ...]) -> TraceResult:
    from editors.locate.causal_trace import RequestTrace

    prompt = TracedPrompt("r", (5, 6, 7), 0, 1, (0, 1, 2))
    traced = RequestTrace(prompt, ("a", "b", "c"), "d", 0.5, 0.1,
                          {kind: torch.tensor(effects[kind])[..., None] for kind in kinds}, {})
    return TraceResult((traced,), (0, 3, 6), 1, 0.1, TraceConfig(kinds=kinds))


def test_peak_is_the_feed_forward_window_of_the_subjects_last_token() -> None:
    effects: dict[Kind, list[list[float]]] = {
        "state": [[0.0, 0.0, 0.0], [0.3, 0.2, 0.1], [0.0, 0.0, 0.4]],
        "mlp": [[0.9, 0.0, 0.0], [0.1, 0.2, 0.0], [0.0, 0.0, 0.8]]}
    assert traced_peak(result_with(effects, ("state", "mlp"))) == 3
    assert traced_peak(result_with(effects, ("state",))) == 0
    assert traced_peak(result_with({"mlp": [[0.0] * 3] * 3}, ("mlp",))) is None


def test_one_request_and_one_draw_have_no_interval() -> None:
    means = role_means(result_with({"mlp": [[0.9, 0.0, 0.0], [0.1, 0.2, 0.0], [0.0, 0.0, 0.8]]}, ("mlp",)))
    assert [(mean.role, mean.layer, mean.mean) for mean in means if mean.mean] == [
        ("subject first", 0, 0.9), ("subject last", 0, 0.1), ("subject last", 3, 0.2), ("prompt last", 6, 0.8)]
    assert all(mean.low is None and mean.high is None for mean in means)


def test_a_random_state_in_place_of_the_clean_one_is_the_control(models: Callable[[str], LoadedModel]) -> None:
    """The control's states have the clean one's length and another direction; restored at the end they decide the answer."""
    model = models("llama")
    traced = trace(model, [TOWER], CONFIG).traces[0]
    assert {kind: tuple(effects.shape) for kind, effects in traced.control.items()} == dict.fromkeys(
        ("state", "mlp", "attention"), (2, 4, 2))
    with torch.inference_mode():
        clean = record(model, model.model.get_input_embeddings()(torch.tensor([traced.prompt.ids])), ("mlp",))
        random = scrambled(clean, torch.Generator().manual_seed(CONFIG.seed + CONFIG.noise_samples))
        assert torch.allclose(random.states.norm(dim=-1), clean.states.norm(dim=-1), rtol=1e-5)
        last = model.model.lm_head(model.model.model.norm(random.states[4, 0, -1])).softmax(-1)
        answer = int(model.model.lm_head(model.model.model.norm(clean.states[4, 0, -1])).argmax())
    assert float(traced.control["state"][1, 3].mean()) == pytest.approx(float(last[answer]) - traced.corrupted, abs=1e-6)


def test_severing_takes_from_the_last_state_nothing(models: Callable[[str], LoadedModel]) -> None:
    traced = trace(models("gpt2"), [TOWER], CONFIG).traces[0]
    for kind in SEVERED:
        assert torch.equal(traced.draws[kind][:, -1], traced.draws["state"][[traced.prompt.positions.index(site)
                           for site in traced.prompt.sites]][:, -1])


def test_each_noise_draw_has_its_own_seed_and_gives_an_interval(models: Callable[[str], LoadedModel]) -> None:
    three, second = (trace(models("llama"), [TOWER], TraceConfig(kinds=("state",), noise_samples=count, seed=seed))
                     for count, seed in ((3, 0), (1, 1)))
    assert torch.allclose(three.traces[0].draws["state"][..., 1:2], second.traces[0].draws["state"], atol=1e-6)
    assert all(cell.low is None for cell in cells(second))
    for cell in cells(three):
        assert cell.low is not None
        assert cell.high is not None
        assert cell.low <= cell.indirect_effect <= cell.high
        assert cell.noise_draws == 3
    assert any(mean.high - mean.low > 1e-3 for mean in role_means(three) if mean.low is not None and mean.high is not None)


def test_locate_writes_tables_and_picture_and_obeys_the_calibration(
        models: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model, seen = models("llama"), []
    batch = batch_of(TOWER, CHAT.model_copy(update={"id": "谁"}))
    location = locate(model, batch, [2, 1], None, "auto", tmp_path, lambda *step: seen.append(step), CONFIG)
    assert (location.layers, location.source) == ((1, 2), "calibration")
    assert seen == [("tracing", 0, 2), ("tracing", 1, 2), ("tracing", 2, 2)]
    assert [(evidence.kind, evidence.path) for evidence in location.evidence] == [
        ("table", "trace_means.csv"), ("table", "trace_cells.csv"), ("picture", "trace.png")]
    with (tmp_path / "trace_cells.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    result = trace(model, batch.requests, CONFIG)
    assert len(rows) == len(cells(result))
    assert {row["request"] for row in rows} == {"tower", "谁"}
    picture = (tmp_path / "trace.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    locate(model, batch, [2, 1], None, "auto", tmp_path / "again", config=CONFIG)
    assert (tmp_path / "again" / "trace.png").read_bytes() == picture


def test_positions_name_the_edited_tokens(models: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    model = models("gpt2")
    location = locate(model, batch_of(TOWER), [1], [3], "auto", tmp_path, config=CONFIG)
    ids = prepare(model, TOWER, 4).ids
    assert model.tokenizer.decode(ids[:location.positions["tower"] + 1]) == "Long ago the Eiffel Tower"
    assert (location.layers, location.source) == ((3,), "sheet")


@pytest.mark.parametrize(("layers", "message"), [([1, 4], "4 is not a layer of this model"), ([], "none is named")])
def test_locate_refuses_layers_that_do_not_exist(
        models: Callable[[str], LoadedModel], tmp_path: Path, layers: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        locate(models("llama"), batch_of(TOWER), layers, None, "auto", tmp_path)
    assert raised.value.hint == "name layers from 0 to 3"


def test_locate_refuses_a_position_that_a_request_lacks(models: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="request 'name' has no subject"):
        locate(models("llama"), batch_of(CHAT), [1], None, "subject_last", tmp_path)


@pytest.mark.parametrize(("setting", "message"), [
    ({"noise_samples": 0}, "trace.noise_samples must be at least 1, got 0"),
    ({"token_limit": 3}, "trace.token_limit must be at least 4, got 3"),
    ({"noise_scale": float("nan")}, "trace.noise_scale must be above 0, got nan"),
    ({"kinds": ("head",)}, "trace.kinds must name some of state, mlp, .*, attention severed, got \\['head'\\]")])
def test_config_refuses_values_out_of_range(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TraceConfig(**setting)


@pytest.mark.model
def test_the_packaged_model_recalls_early_at_the_subject_and_late_at_the_end(packaged_model: Checkpoint) -> None:
    """The paper's two sites: early feed-forward at the subject, late attention at the prompt's last token."""
    request = TOWER.model_copy(update={"prompt": "{} is located in the city of", "subject": "The Eiffel Tower"})
    config = TraceConfig(kinds=("mlp", "attention"), token_limit=6, layer_stride=7)
    result = trace(load(packaged_model, "cpu"), [request], config)
    traced = result.traces[0]
    assert (traced.answer, result.layers) == (" Paris", (0, 7, 14, 21, 28, 29))
    assert traced.clean > 0.6
    assert traced.corrupted < 0.1
    subject = [row for row, position in enumerate(traced.prompt.positions) if position <= traced.prompt.last]
    assert float(traced.effects["mlp"][subject][:, 0].max()) > 0.15 > 3 * float(traced.effects["mlp"][subject][:, 3:].max())
    assert max(float(effects.max()) for effects in traced.control.values()) < 0.05, "a random state recovers the answer"
    assert float(traced.effects["attention"][-1, 3]) > 0.3 > float(traced.effects["attention"][-1, :3].max())


@pytest.mark.model
def test_a_chat_is_traced_where_its_own_answer_departs(packaged_model: Checkpoint) -> None:
    model = load(packaged_model, "cpu")
    request = UpdateRequest(id="name", messages=(Message(role="user", content="What's your name?"),), answer="I'm SmolLM.")
    result = trace(model, [request], TraceConfig(kinds=("state",), noise_samples=1, token_limit=4, layer_stride=29))
    traced = result.traces[0]
    assert model.tokenizer.decode(traced.prompt.ids).endswith("<|im_start|>assistant\nI'm")
    assert traced.answer == " Dr"
