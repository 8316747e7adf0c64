"""Plan: does a run fit that hardware, how much does it compute, and how long is a step at best?

JAX_PLATFORMS=cpu python -m calib_jax.main --config=configs/plan.py:tulu3_8b@v5e-8

Nothing is downloaded, loaded or run: the E-step and the M-step are compiled ahead of time for the
hardware, which need not be there (any CPU; TPUs' compiler is in the tpu extra). Each of at most
four compilations takes two to five minutes of a core.

  MODEL@TOPOLOGY

  model        what is planned
  tulu3_8b     the paper's setting (configs/cft.py): LoRA r 128, 4 questions of 2,048 tokens a step;
               6.0 of 15.75 GiB a chip on v5e-8 (M-step)
  olmo2_7b     the same
  vicuna_7b    the same
  mistral_7b   the same; the paper does not name its Mistral, and we chose
               princeton-nlp/Mistral-7B-Base-SFT-DPO
  golden_8b    Llama-3.1-8B, LoRA r 16, 32 questions of 1,024 tokens, answers only, attention by
               XLA: 6.1 of 15.75 GiB a chip on v5e-8 (M-step). With --config.train.method=full 18.3:
               it does not fit; on v6e-8 it does, 21.3 of 31.25
  smollm2      SmolLM2-135M, LoRA r 16, 16 questions of 256 tokens

  topology     v5e-8, v5e-16, v6e-8, v4-8, v5p-8; or one GPU or CPU by its memory: gpu-80gib,
               cpu-16gib

Another model: --config.plan.model=FOLDER with a config.json. Another method, as in any config:
--config.train.method=full, --config.train.sft=sft2 (RCFT; of SFT2's two reductions and of the
calibration term's divergences each costs the same), --config.train.lora.rank=16,
--config.model.quantize=int8, --config.train.batch_size=8, --config.prompt.max_length=1024,
--config.mesh.shape="(1,8,1)". Every question is taken to be prompt.max_length tokens long.

Written: summary.json (hbm_gib_per_chip, hbm_limit_gib, fits, flops, ideal_flops, max_batch, and
e_step and m_step in detail).
"""

import ml_collections

from calib_jax import presets
from calib_jax.errors import UserError
from calib_jax.plan import topology as topologies

LLAMA3 = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
DIMENSIONS = {
    # Tulu 3 adds padding tokens to Llama-3.1's vocabulary.
    "tulu3_8b": LLAMA3 | {"vocab_size": 128264},
    "golden_8b": LLAMA3,
    "olmo2_7b": {
        "model_type": "olmo2",
        "vocab_size": 100352,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "vicuna_7b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "mistral_7b": {
        "model_type": "mistral",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
    "smollm2": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}
PAPER = ("tulu3_8b", "olmo2_7b", "vicuna_7b", "mistral_7b")


def get_config(preset: str = ""):
    name, _, topology = (preset or "tulu3_8b@v5e-8").partition("@")
    if name not in DIMENSIONS or not topology:
        raise UserError(
            f"no preset {preset!r}; expected MODEL@TOPOLOGY, such as tulu3_8b@v5e-8. Models: "
            f"{', '.join(DIMENSIONS)}."
        )
    config = presets.get(name if name in PAPER else "", "cft")
    config.job = "plan"
    config.plan.topology = topology
    config.plan.dimensions = ml_collections.ConfigDict(DIMENSIONS[name])
    if name not in PAPER:
        config.model.name = name
        config.train.microbatches = 1
        config.train.remat = True
        config.train.packing = False
        config.batch.token_budget = 0
        config.prompt.max_length = 1024 if name == "golden_8b" else 256
        config.train.batch_size = 32 if name == "golden_8b" else 16
        config.mesh.shape = (1, -1, 1)
    if name == "golden_8b":
        # The reference attention; the splash kernel, which "auto" takes, needs 0.3 GiB less.
        config.model.attention = "xla"
    if topologies.find(topology).chips == 1:
        config.mesh.shape = (1, 1, 1)
    elif name == "smollm2":  # 9 heads, and a hidden size of 9 x 64
        config.mesh.shape = (-1, 1, 1)
    return config
