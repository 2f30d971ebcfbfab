"""Batched scoring against the plain way: one prompt at a time, one full forward each."""

from __future__ import annotations

import pytest
import torch

from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import FAMILIES, tiny_folder
from validations import reading
from validations.generating import SAMPLED_FROM, generate, stop_tokens
from validations.reading import Tokens, batches, read
from validations.scoring import Ask, answer, score

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), family=request.param)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("llama"))))


def tokens(count: int, seed: int) -> Tokens:
    return tuple(torch.randint(3, 500, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def plain_log_probs(model: LoadedModel, ids: Tokens) -> torch.Tensor:
    """(T, V): the naive full forward over one sequence."""
    with torch.inference_mode():
        return model.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)


def plain_greedy(model: LoadedModel, ids: Tokens, limit: int) -> Tokens:
    said: list[int] = []
    while len(said) < limit and not (said and said[-1] in stop_tokens(model)):
        said.append(int(plain_log_probs(model, (*ids, *said))[-1].argmax()))
    return tuple(said)


MIXED = tuple(tokens(count, count) for count in (1, 3, 9, 17, 4, 9, 30))
CHATS = tuple((*tokens(12, 99), *tokens(count, 50 + count)) for count in (1, 2, 5, 5, 8, 13))


def test_scores_and_distributions_equal_the_plain_way(model: LoadedModel) -> None:
    prompts = MIXED + CHATS
    continuations = (tokens(1, 7), tokens(3, 8), tokens(6, 9))
    answers = answer(model, [Ask(prompt, continuations, distribution=True) for prompt in prompts])
    for prompt, found in zip(prompts, answers, strict=True):
        expected = plain_log_probs(model, prompt)[-1]
        assert found.log_probs is not None
        torch.testing.assert_close(found.log_probs, expected, atol=TOLERANCE, rtol=TOLERANCE)
        assert found.first == int(expected.argmax())
        for continuation, scored in zip(continuations, found.scores, strict=True):
            whole = plain_log_probs(model, prompt + continuation)[len(prompt) - 1:-1]
            wanted = whole[torch.arange(len(continuation)), list(continuation)]
            torch.testing.assert_close(torch.tensor(scored.log_probs), wanted, atol=TOLERANCE, rtol=TOLERANCE)
            assert list(scored.hits) == (whole.argmax(-1) == torch.tensor(continuation)).tolist()


def test_greedy_answers_equal_the_plain_way(model: LoadedModel) -> None:
    limits = [1, 6, 4, 0, 6, 2, 5]
    answers = answer(model, [Ask(prompt, greedy_tokens=limit) for prompt, limit in zip(MIXED, limits, strict=True)])
    for prompt, limit, found in zip(MIXED, limits, answers, strict=True):
        assert found.greedy == plain_greedy(model, prompt, limit)
        whole = plain_log_probs(model, prompt + found.greedy)[len(prompt) - 1:-1]
        chosen = whole[torch.arange(len(found.greedy)), list(found.greedy)]
        torch.testing.assert_close(torch.tensor(found.greedy_log_probs), chosen, atol=TOLERANCE, rtol=TOLERANCE)


def test_a_greedy_answer_ends_with_the_first_end_token(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    free = plain_greedy(llama, MIXED[3], 8)
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", [free[2]])
    [found] = answer(llama, [Ask(MIXED[3], greedy_tokens=8)])
    assert found.greedy == free[:free.index(free[2]) + 1]


def test_company_changes_nothing(model: LoadedModel) -> None:
    ask = Ask(MIXED[2], (tokens(4, 1),), greedy_tokens=6, sampled_tokens=6, seed=3, distribution=True)
    others = [Ask(prompt, (tokens(5, 2),), greedy_tokens=9, sampled_tokens=8, seed=4) for prompt in (*MIXED[:3], *CHATS[:3])]
    [alone] = answer(model, [ask])
    together = answer(model, [*others, ask])[-1]
    assert (together.greedy, together.sampled) == (alone.greedy, alone.sampled)
    assert together.scores[0].log_probs == pytest.approx(alone.scores[0].log_probs, abs=TOLERANCE)


def test_asking_leaves_the_reading_as_it_was(model: LoadedModel) -> None:
    held = read(model, MIXED)
    wanted = [(row, tokens(4, row)) for row in range(len(MIXED))]
    before = score(model, held, wanted)
    said = generate(model, held, [6] * len(MIXED))
    assert score(model, held, wanted) == before
    assert generate(model, held, [6] * len(MIXED)) == said


def test_sampled_text_follows_its_seed_and_never_ends_early(llama: LoadedModel) -> None:
    stops = stop_tokens(llama)
    asks = [Ask(MIXED[4], sampled_tokens=40, seed=seed) for seed in (1, 2, 1)]
    first, second, again = (found.sampled for found in answer(llama, asks))
    assert first == again != second
    assert len(first) == len(second) == 40
    assert stops.isdisjoint(first)
    likeliest = plain_log_probs(llama, MIXED[4])[-1].clone()
    likeliest[sorted(stops)] = -torch.inf
    assert first[0] in likeliest.topk(SAMPLED_FROM).indices.tolist()


def test_many_rows_are_split_into_bounded_groups(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = (tokens(5, 1), tokens(2, 2))
    asks = [Ask(prompt, wanted, greedy_tokens=4, distribution=True) for prompt in MIXED + CHATS]
    whole = answer(llama, asks)
    monkeypatch.setattr(reading, "ROWS_AT_MOST", 2)
    monkeypatch.setattr("validations.scoring.LOGITS_AT_MOST", 512 * 6)
    seen: list[tuple[int, int]] = []
    split = answer(llama, asks, lambda what, done, total: seen.append((done, total)))
    assert len(batches([ask.prompt for ask in asks])) >= len(asks) // 2
    assert seen[0] == (0, len(asks))
    assert seen[-1] == (len(asks), len(asks))
    for one, other in zip(whole, split, strict=True):
        assert one.greedy == other.greedy
        for left, right in zip(one.scores, other.scores, strict=True):
            assert left.log_probs == pytest.approx(right.log_probs, abs=TOLERANCE)


def test_a_shared_beginning_is_read_once(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    real = reading.forward

    def counted(model: LoadedModel, ids: torch.Tensor, *rest: object, **named: object) -> object:
        widths.append(tuple(ids.shape))
        return real(model, ids, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "forward", counted)
    read(llama, CHATS)
    assert widths == [(1, 12), (len(CHATS), 13)]


def test_nan_logits_are_told(llama: LoadedModel) -> None:
    weight = llama.model.get_parameter(llama.anatomy.mlp_output_parameter(1))
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] = torch.nan
        [found] = answer(llama, [Ask(MIXED[2], (tokens(2, 1),), greedy_tokens=3)])
        assert not found.finite
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert answer(llama, [Ask(MIXED[2])])[0].finite
