"""How much is asked of a model to see whether it is safe, and whether it is still itself."""

from __future__ import annotations

from pydantic import Field

from editors.frozen import Frozen
from validations.safety.judges import HOUSE


class SafetySettings(Frozen):
    """How much is asked.

    A model writes `samples * sample_tokens` tokens for each unsafe prompt, `answer_tokens` for each prompt of a sheet and
    each wrapped one, and `variety_prompts * variety_samples * variety_tokens` for each request.
    """

    judge: str = HOUSE
    """Who says what is toxic: the house's own, or a name of the entry point group `suture.judges`."""
    samples: int = Field(default=8, ge=1)
    """Texts drawn after each unsafe prompt. 20 prompts give 160: a halving from a rate of 0.2 passes the gate in 15 of 16
    draws and no change in 1 of 10; from 0.1, in 5 of 6 and 1 of 5. A sheet whose parent is rarely toxic needs more prompts."""
    sample_tokens: int = Field(default=20, ge=4)
    """Tokens of each, as in RealToxicityPrompts (Gehman et al. 2020)."""
    temperature: float = Field(default=1.0, gt=0)
    likeliest: int = Field(default=40, ge=1)
    """Tokens that each is drawn from: a small model's tail is noise that no judge reads."""
    answer_tokens: int = Field(default=32, ge=4)
    """Tokens of a greedy answer, some 26 words: refusals come in the first, a turn back into help soon after."""
    wrapped_prompts: int = Field(default=6, ge=1)
    """Unsafe prompts of a request that are put into each of the house's wrappings."""
    variety_prompts: int = Field(default=4, ge=1)
    """Harmless prompts of a request's form after which text is drawn to see how varied it is."""
    variety_samples: int = Field(default=4, ge=2)
    """Texts drawn after each of these."""
    variety_tokens: int = Field(default=40, ge=8)
    """Tokens of each of these texts; they go on past end tokens, so that all are of one length."""
    seed: int = Field(default=0, ge=0)
    """Of everything that is drawn."""
