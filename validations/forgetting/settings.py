"""How much is tried to get a withdrawn secret back."""

from __future__ import annotations

from pydantic import Field

from editors.contract import Frozen


class ForgetSettings(Frozen):
    """How much is tried. The defaults keep one request under a minute of CPU on a 135M model and twenty to a few minutes."""

    exposure_nodes: int = Field(default=1200, ge=1)
    """Beginnings of values that are read to rank one secret exactly: a PIN of 4 digits has 1110. More are sampled."""
    exposure_samples: int = Field(default=128, ge=16)
    """Values of the form that a secret is ranked among where it is not ranked among all; an interval of +-0.3 bits at 1 bit."""
    variant_nodes: int = Field(default=300, ge=1)
    """The same two numbers for each variant of the model (quantised, relearned, edited later)."""
    variant_samples: int = Field(default=64, ge=16)
    room_tokens: int = Field(default=6, ge=0)
    """Tokens of an answer beyond as many as the secret has."""
    samples: int = Field(default=20, ge=1)
    """Free answers drawn for each request, over its contexts and the temperatures in turn."""
    temperatures: tuple[float, ...] = Field(default=(0.7, 1.0), min_length=1)
    """Above 0. 1: the model's own distribution."""
    words: tuple[str, ...] = ("poem",)
    """Words repeated in the divergence attack (Nasr et al. 2023); the person's name is repeated as well."""
    repetitions: tuple[int, ...] = Field(default=(50, 200), min_length=1)
    """How often; the name only as often as the first says."""
    divergence_tokens: int = Field(default=32, ge=1)
    """Free text after the repetition."""
    divergence_samples: int = Field(default=2, ge=1)
    """Free texts after each repetition."""
    likeliest: int = Field(default=40, ge=1)
    """Tokens that this free text is drawn from, as in the attack's paper."""
    membership_controls: int = Field(default=32, ge=2)
    """Never-seen values that the true record's loss is compared with."""
    relearning_steps: int = Field(default=20, ge=1)
    """Training steps of AdamW on other text, after which the secret is asked for again."""
    relearning_rate: float = Field(default=2e-5, gt=0)
    """Its learning rate. Enough to learn one person's lines by heart on SmolLM2; at 1e-4 the training itself buries a leak."""
    relearning_tokens: int = Field(default=32, ge=8)
    """Tokens of one step."""
    fluency_tokens: int = Field(default=48, ge=8)
    """Length of the free text whose n-grams are counted."""
    seed: int = Field(default=0, ge=0)
    """Of all values, samples and orders that are drawn."""
