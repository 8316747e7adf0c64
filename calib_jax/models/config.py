"""A decoder's dimensions and variants: what sets one family apart from another, as values."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Frequency scaling of Llama 3.1 and later (``rope_type: "llama3"``)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_length: int


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embeddings.

    Attributes:
      theta: base of the frequencies.
      fraction: share of a head's channels that turn, the first ones (GPT-NeoX).
      linear_factor: every frequency is divided by it (``rope_type: "linear"``).
      llama3: Llama 3.1's scaling, or None.
      factors: a divisor for each frequency (GGUF's ``rope_freqs``), or None.
    """

    theta: float
    fraction: float = 1.0
    linear_factor: float = 1.0
    llama3: Llama3Rope | None = None
    factors: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The dimensions and the variants of one decoder; hashable, so that it can key a compilation.

    Attributes:
      family: ``model_type`` of ``config.json``.
      vocab_size, hidden_size, intermediate_size: V, D, F.
      num_layers, num_heads, num_kv_heads, head_dim: layers, H, G, C.
      max_length: positions that the model was made for, in tokens.
      norm_eps: epsilon of every norm.
      rope: rotary embeddings.
      tie_embeddings: whether the LM head is the embedding.
      local_rope: those of the sliding layers, where they differ (Gemma-3).
      sliding_window: keys that a query of a sliding layer sees, itself included.
      sliding_layers: which layers slide, one entry a layer; empty where none does.
      norm: "rms", "rms_unit_offset" (x̂ · (1 + w), Gemma), "layer" (LayerNorm, GPT-NeoX) or
        "layer_plain" (without weight and bias, OLMo).
      block: where the norms stand: "pre" (before attention and MLP), "post" (after them, OLMo-2),
        "sandwich" (both, Gemma-2 and 3), "parallel" (before, both branches reading the layer's
        input, GPT-NeoX).
      qk_norm: None, "projection" (over all channels of queries and keys, OLMo-2) or "head" (over
        each head's, Qwen3 and Gemma-3).
      biases: the projections that have one.
      activation: "silu", "gelu_tanh" or "gelu".
      gated: whether the MLP is down(act(gate x) · up x), or down(act(up x)).
      fused_qkv: queries, keys and values from one projection, head by head (GPT-NeoX).
      clip_qkv: queries, keys and values are clipped to ± this (OLMo).
      scale_embeddings: embeddings are multiplied by √D (Gemma).
      attention_scale: of the scores; None for 1/√C.
      attention_softcap, logit_softcap: c in c · tanh(x / c), or None (Gemma-2).
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_length: int
    norm_eps: float
    rope: Rope
    tie_embeddings: bool
    local_rope: Rope | None = None
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] = ()
    norm: str = "rms"
    block: str = "pre"
    qk_norm: str | None = None
    biases: tuple[str, ...] = ()
    activation: str = "silu"
    gated: bool = True
    fused_qkv: bool = False
    clip_qkv: float | None = None
    scale_embeddings: bool = False
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    @property
    def layers_differ(self) -> bool:
        """Whether some layers slide and others do not."""
        return any(self.sliding_layers) and not all(self.sliding_layers)
