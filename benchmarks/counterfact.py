"""CounterFact's protocol: which prompts a record asks, how an answer is scored, what counts as a success.

P(answer | prompt) is the product over the answer's tokens, the answer read after the prompt and one blank, no BOS.
success, paraphrase: P(new) > P(true) on the edited prompt and on both paraphrases. neighbourhood: P(true) > P(new) on the
first five neighbourhood prompts. first choice: every token of the new answer is the model's most probable one.
With this the unedited packaged model has 0.28, 0.29, 0.668 on records 0-49.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from editors.blocks import pad
from editors.contract import EditBatch, UpdateRequest
from editors.loading import LoadedModel

NEIGHBOURS = 5
TOKEN_BUDGET = 4096


@dataclass(frozen=True)
class Answer:
    """log P of the whole answer, in nats, and whether each of its tokens was the first choice."""

    logarithm: float
    is_first_choice: bool


@dataclass(frozen=True)
class Scores:
    """One record's shares in [0, 1]."""

    success: float
    paraphrase: float
    neighbourhood: float
    first_choice: float
    paraphrase_first_choice: float


def read_records(path: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The records with these numbers."""
    records = json.loads(path.read_text())
    return [records[number] for number in numbers]


def batch_of(records: Sequence[dict[str, Any]], model: LoadedModel) -> EditBatch:
    """The records' edits as one batch; the editor sees neither paraphrases nor neighbours."""
    rewrites = [(str(record["case_id"]), record["requested_rewrite"]) for record in records]
    requests = tuple(UpdateRequest(id=name, prompt=rewrite["prompt"], subject=rewrite["subject"],
                                   target=rewrite["target_new"]["str"]) for name, rewrite in rewrites)
    return EditBatch(purpose="update", base_digest=model.digest, parent_digest=model.digest, requests=requests)


def known_records(path: Path, model: LoadedModel) -> list[int]:
    """Numbers of the records whose true object is the model's first choice."""
    records = json.loads(path.read_text())
    rewrites = [record["requested_rewrite"] for record in records]
    answers = answer_scores(model, [(rewrite["prompt"].format(rewrite["subject"]), rewrite["target_true"]["str"])
                                    for rewrite in rewrites])
    return [number for number, answer in enumerate(answers) if answer.is_first_choice]


def record_scores(model: LoadedModel, records: Sequence[dict[str, Any]]) -> list[Scores]:
    """Every record's scores under the model as it is now."""
    asked = [(number, role, prompt) for number, record in enumerate(records) for role, prompt in _prompts(record)]
    pairs = [(prompt, records[number]["requested_rewrite"][target]["str"])
             for number, _, prompt in asked for target in ("target_new", "target_true")]
    answers = answer_scores(model, pairs)
    found: list[dict[str, list[float]]] = [{} for _ in records]
    for place, (number, role, _) in enumerate(asked):
        new, true = answers[2 * place], answers[2 * place + 1]
        won = true.logarithm > new.logarithm if role == "neighbourhood" else new.logarithm > true.logarithm
        found[number].setdefault(role, []).append(float(won))
        found[number].setdefault(f"{role} first", []).append(float(new.is_first_choice))
    return [Scores(*(_mean(entry[name]) for name in ("success", "paraphrase", "neighbourhood", "success first",
                                                     "paraphrase first"))) for entry in found]


@torch.no_grad()
def answer_scores(model: LoadedModel, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
    """Score (prompt, answer) pairs; pairs that need the same tokens read share one row."""
    encoded = [_encode(model, prompt, answer) for prompt, answer in pairs]
    needed: dict[tuple[int, ...], list[int]] = {}
    for number, (ids, _) in enumerate(encoded):
        needed.setdefault(ids[:-1], []).append(number)
    answers: dict[int, Answer] = {}
    for group in _groups(sorted(needed, key=len)):
        states = _final_states(model, group)
        numbers = [(place, number) for place, row in enumerate(group) for number in needed[row]]
        reads = list(dict.fromkeys((place, column) for place, number in numbers for column in _read_columns(encoded[number])))
        rows, columns = torch.tensor(reads, device=states.device).T
        # One product for all reads: the head is a fifth of the model, and reading it once for each would dominate
        logits = model.model.get_output_embeddings()(states[rows, columns]).float()
        where = {read: index for index, read in enumerate(reads)}
        for place, number in numbers:
            ids, start = encoded[number]
            chosen = logits[[where[place, column] for column in _read_columns(encoded[number])]]
            labels = torch.tensor(ids[start:], device=logits.device)
            logarithms = chosen.log_softmax(-1).gather(1, labels[:, None])
            answers[number] = Answer(float(logarithms.sum()), bool((chosen.argmax(-1) == labels).all()))
    return [answers[number] for number in range(len(pairs))]


@torch.no_grad()
def perplexity(model: LoadedModel, texts: Sequence[str], window: int = 256) -> float:
    """Perplexity per token of the texts' first `window` tokens."""
    rows = sorted((tuple(model.tokenizer(text)["input_ids"][:window]) for text in texts), key=len)
    total, count = 0.0, 0
    for group in _groups([row for row in rows if len(row) > 1], budget=1024):
        states = _final_states(model, group)
        for place, row in enumerate(group):
            logits = model.model.get_output_embeddings()(states[place, :len(row) - 1]).float()
            labels = torch.tensor(row[1:], device=logits.device)
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            count += len(row) - 1
    return float(torch.tensor(total / count).exp())


def _prompts(record: dict[str, Any]) -> list[tuple[str, str]]:
    rewrite = record["requested_rewrite"]
    return [("success", rewrite["prompt"].format(rewrite["subject"])),
            *(("paraphrase", prompt) for prompt in record["paraphrase_prompts"]),
            *(("neighbourhood", prompt) for prompt in record["neighborhood_prompts"][:NEIGHBOURS])]


def _encode(model: LoadedModel, prompt: str, answer: str) -> tuple[tuple[int, ...], int]:
    before = model.tokenizer(prompt.rstrip())["input_ids"]
    after = model.tokenizer(f" {answer.strip()}", add_special_tokens=False)["input_ids"]
    return (*before, *after), len(before)


def _read_columns(encoded: tuple[tuple[int, ...], int]) -> range:
    ids, start = encoded
    return range(start - 1, len(ids) - 1)


def _groups(rows: Sequence[tuple[int, ...]], budget: int = TOKEN_BUDGET) -> list[list[tuple[int, ...]]]:
    groups: list[list[tuple[int, ...]]] = [[]]
    for row in rows:
        if groups[-1] and len(row) * (len(groups[-1]) + 1) > budget:
            groups.append([])
        groups[-1].append(row)
    return groups


def _final_states(model: LoadedModel, rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
    batch = pad(rows, model.device)
    body = model.model.get_submodule(model.anatomy.body)
    return body(input_ids=batch.ids, attention_mask=batch.valid.long(), use_cache=False).last_hidden_state


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
