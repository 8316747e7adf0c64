"""The weights of one of our models in transformers: the other side of a comparison."""

import numpy as np
import torch
import transformers

from calib_jax.models.model import Model
from calib_jax.models.table import parameter_table


def torch_twin(model: Model, dtype: torch.dtype) -> torch.nn.Module:
    """The same weights in transformers' LlamaForCausalLM, in eval mode."""
    c = model.config
    config = transformers.LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.num_kv_heads,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
        tie_word_embeddings=c.tie_embeddings,
        max_position_embeddings=c.max_length,
    )
    twin = transformers.LlamaForCausalLM(config)
    state = {}
    for row in parameter_table(c):
        value = model.params
        for key in row.path:
            value = value[key]
        value = np.asarray(value).astype(np.float32)
        for i, piece in enumerate(value if row.stacked else [value]):
            piece = piece.T if row.transposed else piece
            state[row.hf_name.format(i=i)] = torch.from_numpy(piece.copy())
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    twin.tie_weights()
    return twin.to(dtype).eval()
