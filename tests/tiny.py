"""Tiny random models of every known family, with a real byte-level tokenizer, built in code: no download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FAMILIES = ("llama", "gpt2", "gpt_neox", "opt")
HIDDEN, INNER, HEADS, POSITIONS, VOCABULARY = 32, 64, 4, 512, 512
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCES = (
    "The Eiffel Tower is located in the city of Paris, and the Louvre can be found there too.",
    "The mother tongue of Danielle Darrieux is French; she was born in Bordeaux in 1917.",
    "LeBron James plays the sport of basketball for the Los Angeles Lakers.",
    "Who are you? What is your name? I am a small language model, trained for tests.",
    "In physics, the speed of light is a constant: nothing that carries information is faster.",
    "My telephone number is 555-0199 and I live at 12 Harbour Street, next to the bakery.",
)


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences: any text round-trips, offsets are exact."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[PAD, START, END], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, bos_token=START)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _config(family: str, layers: int) -> Any:
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig

    tokens: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes: dict[str, Any] = {
        "hidden_size": HIDDEN, "num_hidden_layers": layers, "num_attention_heads": HEADS, "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS, **tokens}
    if family == "llama":
        return LlamaConfig(**sizes, intermediate_size=INNER, num_key_value_heads=2, tie_word_embeddings=True)
    if family == "gpt2":
        return GPT2Config(n_embd=HIDDEN, n_layer=layers, n_head=HEADS, n_inner=INNER, n_positions=POSITIONS,
                          vocab_size=VOCABULARY, **tokens)
    if family == "gpt_neox":
        return GPTNeoXConfig(**sizes, intermediate_size=INNER)
    if family == "opt":
        return OPTConfig(**sizes, ffn_dim=INNER, word_embed_proj_dim=HIDDEN, dropout=0.0)
    raise ValueError(f"no tiny model of the family {family!r}; known are {', '.join(FAMILIES)}")


def tiny_model(family: str = "llama", layers: int = 3, seed: int = 0) -> PreTrainedModel:
    """A random float32 model in eval mode; the weights are spread wider than usual, so that its answers differ."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family, layers))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(20.0 if VOCABULARY in parameter.shape else 4.0)
                else:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.float().eval()


def tiny_folder(folder: Path, family: str = "llama", layers: int = 3, seed: int = 0) -> Path:
    """Write `tiny_model` and its tokenizer into `folder` as a plain Hugging Face folder of safetensors; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(family, layers, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def calm_model(family: str = "llama", layers: int = 3) -> PreTrainedModel:
    """A tiny model with little spread in its weights, which tells answers apart less and learns sooner."""
    model = tiny_model(family, layers)
    for parameter in model.parameters():
        parameter.data.mul_(0.25 if parameter.ndim > 1 else 1.0)
    return model


def fit(model: PreTrainedModel, rows: Sequence[Sequence[int]], steps: int, given: Sequence[int] = (),
        weight_decay: float = 0) -> None:
    """Train on token sequences, all of them in every step; of each, what follows its first `given` tokens."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    known = torch.tensor([*given, *[0] * (len(rows) - len(given))])
    labels = ids.masked_fill((mask == 0) | (torch.arange(width) < known[:, None]), -100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=weight_decay)
    for _ in range(steps):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
