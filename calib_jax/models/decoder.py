"""The decoder: one Flax Linen module for Llama and its relatives, GPT-NeoX to Gemma-3.

What sets the families apart are the values of ``ModelConfig`` and the rows of ``table``.

Array names carry their shapes: B rows, L positions, D hidden size, V vocabulary, H heads, G key-
value heads, C head size, P positions that are read.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from calib_jax.models.attention import Cache, Forest, Prefix, Sight, attend, forest_sight
from calib_jax.models.config import ModelConfig
from calib_jax.models.lora import LoraConfig
from calib_jax.models.quantize import is_quantized, matmul
from calib_jax.models.rope import rotate, rotations
from calib_jax.models.table import Row, Tree, initialiser, parameter_table


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Lays x out over the mesh in force by its logical axes; without a mesh, returns x."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, nn.logical_to_mesh_axes(axes))


def normalise(x: jax.Array, kind: str, weight: Any, bias: Any, eps: float) -> jax.Array:
    """A norm over the last axis, in float32 up to the result, which has x's dtype.

    Args:
      x: [..., D].
      kind: see ``ModelConfig.norm``.
      weight: [D]; None for "layer_plain".
      bias: [D]; None for all kinds but "layer".
      eps: added to the mean square or the variance.
    """
    wide = x.astype(jnp.float32)
    if kind in ("layer", "layer_plain"):
        wide -= jnp.mean(wide, axis=-1, keepdims=True)
    wide *= jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)
    if weight is not None:
        wide *= weight.astype(jnp.float32) + (kind == "rms_unit_offset")
    if bias is not None:
        wide += bias.astype(jnp.float32)
    return wide.astype(x.dtype)


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": nn.silu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}

# What a layer needs to know of positions: cosines and sines, and the local ones where they differ.
Ropes = tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array] | None]


class Block(nn.Module):
    """One layer: attention and an MLP, each with a residual connection."""

    config: ModelConfig
    dtype: jnp.dtype
    lora: LoraConfig | None
    train: bool
    attention: str
    keep_kv: bool

    def setup(self):
        self.weights = {
            row.path[-1]: self.weight(row) for row in parameter_table(self.config) if row.stacked
        }
        self.dropout = nn.Dropout(self.lora.dropout if self.lora else 0.0)

    def weight(self, row: Row) -> Any:
        name = row.path[-1]
        held: Any = self.get_variable("params", name)
        if is_quantized(held):  # its arrays have shapes of their own, which Flax would refuse
            return held
        return self.param(name, initialiser(self.config, row), row.shape)

    def project(self, name: str, x_BxLxI: jax.Array) -> jax.Array:
        """x W + b, plus the adapter's x A B where this projection has one."""
        y_BxLxO = matmul(x_BxLxI, self.weights[name], self.dtype)
        if self.lora is not None and self.lora.adapts(name):
            ab: Any = self.get_variable("lora", name)
            x_BxLxI = self.dropout(x_BxLxI, deterministic=not self.train)
            # Rows of one axis: a gradient that contracts two makes XLA transpose what it contracts.
            low = x_BxLxI.reshape(-1, x_BxLxI.shape[-1]) @ ab["a"].astype(self.dtype)
            low = (self.lora.scale * low) @ ab["b"].astype(self.dtype)
            y_BxLxO += low.reshape(y_BxLxO.shape)
        if name in self.config.biases:
            y_BxLxO += self.weights[f"{name}_bias"].astype(self.dtype)
        return y_BxLxO

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        weight, bias = self.weights.get(name), self.weights.get(f"{name}_bias")
        return normalise(x, self.config.norm, weight, bias, self.config.norm_eps)

    def queries_keys_values(self, x_BxLxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B, L, H, C], [B, L, G, C], [B, L, G, C], not yet rotated."""
        cfg = self.config
        B, L, _ = x_BxLxD.shape
        if cfg.fused_qkv:
            qkv = self.project("qkv_proj", x_BxLxD).reshape(B, L, cfg.num_heads, 3 * cfg.head_dim)
            q, k, v = jnp.split(qkv, 3, axis=-1)
            return q, k, v
        q, k, v = (self.project(name, x_BxLxD) for name in ("q_proj", "k_proj", "v_proj"))
        if cfg.clip_qkv is not None:
            q, k, v = (jnp.clip(x, -cfg.clip_qkv, cfg.clip_qkv) for x in (q, k, v))
        if cfg.qk_norm == "projection":
            q, k = self.norm("q_norm", q), self.norm("k_norm", k)
        q = q.reshape(B, L, cfg.num_heads, cfg.head_dim)
        k, v = (x.reshape(B, L, cfg.num_kv_heads, cfg.head_dim) for x in (k, v))
        if cfg.qk_norm == "head":
            q, k = self.norm("q_norm", q), self.norm("k_norm", k)
        return q, k, v

    def attend(
        self,
        x_BxLxD: jax.Array,
        ropes: Ropes,
        sight: Sight | None,
        slides: jax.Array,
        prefix: Prefix | Cache | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The layer's attention, and the keys and values that it used, as they can be kept."""
        cfg = self.config
        B, L, _ = x_BxLxD.shape
        rope, local = ropes
        if local is not None:
            cos, sin = (jnp.where(slides, mine, all) for mine, all in zip(local, rope, strict=True))
            rope = cos, sin
        window: Any = cfg.sliding_window if any(cfg.sliding_layers) else None
        longest = L if prefix is None else L + prefix.keys.shape[-3]
        if window is not None and window >= longest:
            window = None
        elif window is not None and cfg.layers_differ:
            window = jnp.where(slides, window, longest)
        q_BxLxHxC, k_BxLxGxC, v_BxLxGxC = self.queries_keys_values(x_BxLxD)
        kv_heads = "kv_heads" if cfg.num_kv_heads > 1 else None
        k_BxLxGxC = constrain(rotate(k_BxLxGxC, *rope), "batch", None, kv_heads, None)
        v_BxLxGxC = constrain(v_BxLxGxC, "batch", None, kv_heads, None)
        out = attend(
            constrain(rotate(q_BxLxHxC, *rope), "batch", None, "heads", None),
            k_BxLxGxC,
            v_BxLxGxC,
            sight=sight,
            prefix=prefix,
            window=window,
            scale=cfg.attention_scale,
            softcap=cfg.attention_softcap,
            implementation=self.attention,
        )
        return self.project("o_proj", out.reshape(B, L, -1)), (k_BxLxGxC, v_BxLxGxC)

    def feed_forward(self, x_BxLxD: jax.Array) -> jax.Array:
        activation = _ACTIVATIONS[self.config.activation]
        if self.config.gated:
            gate, up = self.project("gate_proj", x_BxLxD), self.project("up_proj", x_BxLxD)
            inner = activation(gate) * up
        else:
            inner = activation(self.project("up_proj", x_BxLxD))
        return self.project("down_proj", constrain(inner, "batch", None, "mlp"))

    def __call__(
        self,
        x_BxLxD: jax.Array,
        ropes: Ropes,
        sight: Sight | None,
        slides: jax.Array,
        prefix: Prefix | Cache | None,
    ):
        kept = None
        before = self.config.block in ("pre", "parallel", "sandwich")
        after = self.config.block in ("post", "sandwich")

        def branch(name: str, function: Callable, x_BxLxD: jax.Array) -> jax.Array:
            if before:
                x_BxLxD = self.norm(f"{name}_norm", x_BxLxD)
            y_BxLxD = function(x_BxLxD)
            return self.norm(f"{name}_post_norm", y_BxLxD) if after else y_BxLxD

        def attention(h_BxLxD: jax.Array) -> jax.Array:
            nonlocal kept
            out, kv = self.attend(h_BxLxD, ropes, sight, slides, prefix)
            kept = kv if self.keep_kv else None
            return out

        if self.config.block == "parallel":
            branches = branch("attn", attention, x_BxLxD) + branch(
                "mlp", self.feed_forward, x_BxLxD
            )
            return constrain(x_BxLxD + branches, "batch", None, None), kept
        x_BxLxD = x_BxLxD + branch("attn", attention, x_BxLxD)
        x_BxLxD = constrain(x_BxLxD, "batch", None, None)
        x_BxLxD = x_BxLxD + branch("mlp", self.feed_forward, x_BxLxD)
        return constrain(x_BxLxD, "batch", None, None), kept


class Decoder(nn.Module):
    """Tokens in, final hidden states out; ``head`` turns hidden states into logits.

    The two are apart so that hidden states are gathered at the positions that are read before
    the LM head: logits over the vocabulary at every position are never materialised.

    Attributes:
      config: the dimensions.
      dtype: of the computation between the float32 islands (norms, softmax, logits).
      lora: the adapters' settings, when there is a "lora" collection: {"layers": ``init_lora``}.
      train: whether the adapters' dropout is on (needs a "dropout" rng).
      attention: implementation of ``attend``.
      remat: whether the backward pass recomputes each layer from its input, which takes the memory
        of one layer instead of all and a third more time. Without it the results of the weights'
        products are kept, and what is cheap (norms, activations, attention) is recomputed: faster
        on a CPU than to write it and read it back. Nothing to a forward pass.
      keep_kv: whether to return every layer's keys and values too, [layers, B, L, G, C] each.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32
    lora: LoraConfig | None = None
    train: bool = False
    attention: str = "xla"
    remat: bool = True
    keep_kv: bool = False

    def setup(self):
        rows: dict[str, Row] = {
            row.path[0]: row for row in parameter_table(self.config) if not row.stacked
        }
        self.outer = {
            name: self.param(name, initialiser(self.config, row), row.shape)
            for name, row in rows.items()
        }
        kept = None if self.remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        self.layers = nn.scan(
            nn.remat(Block, prevent_cse=False, policy=kept),
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast, 0, 0),
            length=self.config.num_layers,
        )(self.config, self.dtype, self.lora, self.train, self.attention, self.keep_kv)

    def __call__(
        self,
        tokens_BxL: jax.Array,
        forest: Forest | None = None,
        prefix: Prefix | Cache | None = None,
    ):
        """Final, normed hidden states [B, L, D] of right-padded tokens [B, L] int32.

        Args:
          tokens_BxL: rows of one sequence each, or of prefix trees.
          forest: the trees' layout; None for one sequence a row.
          prefix: what comes before all of them, keys and values [layers, P, G, C], or before each
            of them, [layers, B, P, G, C]; only with ``forest``.

        Returns:
          The hidden states; with ``keep_kv`` (hidden states, (keys, values)).
        """
        cfg = self.config
        x_BxLxD = self.outer["embed"].astype(self.dtype)[tokens_BxL]
        if cfg.scale_embeddings:  # by the root in the computation's dtype, as it was trained
            x_BxLxD *= jnp.asarray(cfg.hidden_size**0.5, self.dtype)
        x_BxLxD = constrain(x_BxLxD, "batch", None, None)
        positions = jnp.arange(tokens_BxL.shape[1]) if forest is None else forest.positions
        ropes = [
            None if rope is None else rotations(rope, cfg.head_dim, positions)
            for rope in (cfg.rope, cfg.local_rope)
        ]
        slides = jnp.asarray(cfg.sliding_layers or (False,) * cfg.num_layers)
        sight = None if forest is None else forest_sight(forest, prefix)
        if isinstance(prefix, Cache):
            prefix = prefix._replace(positions=None)
        elif prefix is not None:  # every layer its own keys and values, all of them one length
            lengths = jnp.broadcast_to(prefix.length, (cfg.num_layers,))
            prefix = Prefix(prefix.keys, prefix.values, lengths)
        x_BxLxD, kept = self.layers(x_BxLxD, tuple(ropes), sight, slides, prefix)
        weight, bias = self.outer.get("final_norm"), self.outer.get("final_norm_bias")
        hidden_BxLxD = normalise(x_BxLxD, cfg.norm, weight, bias, cfg.norm_eps)
        return (hidden_BxLxD, kept) if self.keep_kv else hidden_BxLxD


def head_weights(params: Tree) -> jax.Array:
    """The LM head [V, D]: its own matrix, or the embedding where the two are tied."""
    return params["lm_head"] if "lm_head" in params else params["embed"]


def of_products(config: ModelConfig, products: jax.Array) -> jax.Array:
    """Logits from products of hidden states and the LM head, the same for every token.

    Whoever computes such products takes the logits from here: ``head_logits``, and the loss that is
    chunked over the vocabulary.
    """
    softcap = config.logit_softcap
    return products if softcap is None else softcap * jnp.tanh(products / softcap)


def head_logits(config: ModelConfig, params: Tree, hidden_XxD: jax.Array) -> jax.Array:
    """Float32 logits [..., V] of hidden states [..., D]."""
    weights_VxD = head_weights(params).astype(hidden_XxD.dtype)
    products = jnp.einsum(
        "...d,vd->...v", hidden_XxD, weights_VxD, preferred_element_type=jnp.float32
    )
    return of_products(config, products)
