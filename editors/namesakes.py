"""What the model says of people who are not meant: the contexts of a request under invented names.

A forgotten secret shares its neurons with every other value that is said in such contexts. So the editor asks the model
there about names that nobody bears, and holds what it answers. The names are drawn from syllables, never from a list of
people; they and the answers stay in memory.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from editors.forget_request import ForgetRequest
from editors.inner_scale import Weighed
from editors.loading import LoadedModel
from editors.secret_rows import secret_rows
from editors.token_tree import Path, TokenTree

ONSETS = ("b", "br", "c", "d", "f", "g", "h", "j", "k", "kl", "l", "m", "n", "p", "r", "s", "sh", "st", "t", "th", "tr",
          "v", "w", "z")
VOWELS = ("a", "ai", "e", "ea", "i", "ie", "o", "oa", "u")
CODAS = ("", "ck", "l", "n", "nd", "r", "rt", "s", "th", "x")


def namesakes(model: LoadedModel, requests: Sequence[ForgetRequest], count: int, seed: int) -> list[Weighed]:
    """For every context that holds its subject, `count` invented people with the model's own sampled answer.

    An answer is as long as the secret in tokens. Nothing where no context holds its subject.
    """
    draw, asked = random.Random(seed), dict[int, list[tuple[int, ...]]]()  # noqa: S311  names are no keys
    for request in requests:
        subject = request.subject.get_secret_value().strip() if request.subject else ""
        for row, text in zip(secret_rows(request, model.tokenizer), request.context, strict=True):
            if subject and subject in text.get_secret_value():
                for _ in range(count):
                    prompt = text.get_secret_value().rstrip().replace(subject, invented_name(draw, len(subject.split())))
                    asked.setdefault(len(row.secret), []).append(tuple(model.tokenizer(prompt)["input_ids"]))
    return [Weighed(TokenTree.of([Path((*prompt, *answer), len(prompt))]), (1.0,))
            for length, prompts in sorted(asked.items())
            for prompt, answer in zip(prompts, _answers(model, prompts, length, seed), strict=True)]


def invented_name(draw: random.Random, words: int) -> str:
    """A name of so many words."""
    return " ".join("".join(draw.choice(ONSETS) + draw.choice(VOWELS) for _ in range(draw.choice((1, 2)))).capitalize()
                    + draw.choice(CODAS) for _ in range(max(words, 1)))


@torch.no_grad()
def _answers(model: LoadedModel, prompts: Sequence[tuple[int, ...]], length: int, seed: int) -> list[tuple[int, ...]]:
    """One sampled continuation of each prompt; prompts are padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[*[0] * (width - len(prompt)), *prompt] for prompt in prompts], device=model.device)
    seen = torch.tensor([[*[0] * (width - len(prompt)), *[1] * len(prompt)] for prompt in prompts], device=model.device)
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        generate: Any = model.model.generate
        said = generate(ids, attention_mask=seen, max_new_tokens=length, min_new_tokens=length, do_sample=True,
                        temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0)
    return [tuple(row) for row in said[:, width:].tolist()]
