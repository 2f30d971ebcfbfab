"""One model, alone in memory, at the prompts beside an edit: what it would say next, and what it says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editors.contract import Progress, silent
from editors.loading import LoadedModel
from editors.prompts import encode, render_text
from validations.nearby import ANSWER_TOKENS, LISTED, Nearby, View
from validations.observation import Likeliest, Tokens
from validations.questions import CHAT, PLAIN
from validations.scoring import Ask, answer


def look(model: LoadedModel, prompts: Sequence[Nearby], progress: Progress = silent) -> View:
    """The model's likeliest next tokens at every prompt; the model is unchanged."""
    asks = [Ask(_tokens(model, one), distribution=True) for one in prompts]
    replies = []
    for said in answer(model, asks, progress):
        log_probs = torch.full((1,), torch.nan) if said.log_probs is None else said.log_probs
        top = log_probs.topk(min(LISTED, len(log_probs)))
        rest = torch.log1p(-top.values.double().exp().sum().clamp(max=1.0))
        replies.append(Likeliest(ids=tuple(top.indices.tolist()), log_probs=tuple(top.values.tolist()), rest=float(rest)))
    return View(model_digest=model.digest, replies=tuple(replies))


def speak(model: LoadedModel, prompts: Sequence[Nearby], progress: Progress = silent) -> list[str]:
    """The model's greedy answer to every prompt."""
    asks = [Ask(_tokens(model, one), greedy_tokens=ANSWER_TOKENS) for one in prompts]
    return [str(model.tokenizer.decode(list(said.greedy), skip_special_tokens=True)).strip()
            for said in answer(model, asks, progress)]


def _tokens(model: LoadedModel, one: Nearby) -> Tokens:
    own = CHAT if one.source == "question" and model.tokenizer.chat_template else PLAIN
    return encode(render_text(one.form or own, model.tokenizer, one.text, None), model.tokenizer).ids
