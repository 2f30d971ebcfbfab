"""Every entry of `architectures.json` against the library's own model of that type, built small."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from editors.anatomy import anatomy_of, known_model_types
from editors.linear_maps import maps_of

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
         "head_dim": 8}
OWN_SIZES = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64},
             "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32}}
TOKENS = {"vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.mark.parametrize("model_type", sorted(known_model_types()))
def test_the_named_modules_are_there_with_the_named_shapes(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, **OWN_SIZES.get(model_type, SIZES), **TOKENS)
    model, anatomy = AutoModelForCausalLM.from_config(config), anatomy_of(config.to_dict())
    anatomy.check(model)
    found = {one.path: tuple(model.get_parameter(one.parameter).shape) for one in maps_of(anatomy, (0, 1))}
    assert len(found) == 2 * (2 + len(anatomy.mlp_inputs))
    inputs = {shape if anatomy.layout == "out_in" else shape[::-1] for path, shape in found.items()
              if path in anatomy.mlp_input_paths(0)}
    assert inputs == {(128 if model_type == "phi3" else 64, 32)}
    assert found[anatomy.attention_output_path(1)] == (32, 32)
