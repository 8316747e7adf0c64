"""The decoder: a Flax Linen module for the Llama architecture and its close relatives.

Array names carry their shapes: B rows, L positions, D hidden size, V vocabulary, H heads, G key-
value heads, C head size, P positions that are read.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from calib_jax.models.attention import attend
from calib_jax.models.config import ModelConfig
from calib_jax.models.lora import LoraConfig
from calib_jax.models.rope import rotate, rotations
from calib_jax.models.table import Row, Tree, initialiser, parameter_table


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Lays x out over the mesh in force by its logical axes; without a mesh, returns x."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, nn.logical_to_mesh_axes(axes))


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x / rms(x) · weight over the last axis, the statistics in float32."""
    wide = x.astype(jnp.float32)
    scaled = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)
    return weight.astype(x.dtype) * scaled.astype(x.dtype)


class Block(nn.Module):
    """One layer: attention and a gated MLP, each with a residual connection."""

    config: ModelConfig
    dtype: jnp.dtype
    lora: LoraConfig | None
    train: bool
    attention: str

    def setup(self):
        rows = [row for row in parameter_table(self.config) if row.stacked]
        self.weights = {
            row.path[-1]: self.param(row.path[-1], initialiser(row), row.shape) for row in rows
        }
        self.dropout = nn.Dropout(self.lora.dropout if self.lora else 0.0)

    def project(self, name: str, x_BxLxI: jax.Array) -> jax.Array:
        """x W, plus the adapter's x A B where this projection has one."""
        y_BxLxO = x_BxLxI @ self.weights[name].astype(self.dtype)
        if self.lora is not None and self.lora.adapts(name):
            ab = self.get_variable("lora", name)
            x_BxLxI = self.dropout(x_BxLxI, deterministic=not self.train)
            low = x_BxLxI @ ab["a"].astype(self.dtype)
            y_BxLxO += (self.lora.scale * low) @ ab["b"].astype(self.dtype)
        return y_BxLxO

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.weights[name], self.config.norm_eps)

    def attend(self, x_BxLxD: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
        cfg = self.config
        B, L, _ = x_BxLxD.shape
        q, k = self.project("q_proj", x_BxLxD), self.project("k_proj", x_BxLxD)
        v = self.project("v_proj", x_BxLxD)
        if cfg.qk_norm:
            q, k = self.norm("q_norm", q), self.norm("k_norm", k)
        q_BxLxHxC = rotate(q.reshape(B, L, cfg.num_heads, cfg.head_dim), *rope)
        k_BxLxGxC = rotate(k.reshape(B, L, cfg.num_kv_heads, cfg.head_dim), *rope)
        v_BxLxGxC = v.reshape(B, L, cfg.num_kv_heads, cfg.head_dim)
        q_BxLxHxC = constrain(q_BxLxHxC, "batch", None, "heads", None)
        k_BxLxGxC = constrain(k_BxLxGxC, "batch", None, "kv_heads", None)
        v_BxLxGxC = constrain(v_BxLxGxC, "batch", None, "kv_heads", None)
        out = attend(
            q_BxLxHxC,
            k_BxLxGxC,
            v_BxLxGxC,
            window=cfg.sliding_window if (cfg.sliding_window or L) < L else None,
            implementation=self.attention,
        )
        return self.project("o_proj", out.reshape(B, L, -1))

    def feed_forward(self, x_BxLxD: jax.Array) -> jax.Array:
        gate, up = self.project("gate_proj", x_BxLxD), self.project("up_proj", x_BxLxD)
        inner = constrain(nn.silu(gate) * up, "batch", None, "mlp")
        return self.project("down_proj", inner)

    def residual(self, x_BxLxD: jax.Array, norm: str, branch: Callable) -> jax.Array:
        if self.config.post_norm:
            x_BxLxD = x_BxLxD + self.norm(norm, branch(x_BxLxD))
        else:
            x_BxLxD = x_BxLxD + branch(self.norm(norm, x_BxLxD))
        return constrain(x_BxLxD, "batch", None, None)

    def __call__(self, x_BxLxD: jax.Array, rope: tuple[jax.Array, jax.Array]):
        x_BxLxD = self.residual(x_BxLxD, "attn_norm", lambda h: self.attend(h, rope))
        x_BxLxD = self.residual(x_BxLxD, "mlp_norm", self.feed_forward)
        return x_BxLxD, None


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
        of one layer instead of all and a third more time; nothing to a forward pass.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32
    lora: LoraConfig | None = None
    train: bool = False
    attention: str = "xla"
    remat: bool = True

    def setup(self):
        rows: dict[str, Row] = {
            row.path[0]: row for row in parameter_table(self.config) if not row.stacked
        }
        self.outer = {
            name: self.param(name, initialiser(row), row.shape) for name, row in rows.items()
        }
        self.layers = nn.scan(
            nn.remat(Block, prevent_cse=False) if self.remat else Block,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.config.num_layers,
        )(self.config, self.dtype, self.lora, self.train, self.attention)

    def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
        """Final, normed hidden states [B, L, D] of right-padded tokens [B, L] int32."""
        x_BxLxD = self.outer["embed"].astype(self.dtype)[tokens_BxL]
        x_BxLxD = constrain(x_BxLxD, "batch", None, None)
        x_BxLxD, _ = self.layers(x_BxLxD, rotations(self.config, tokens_BxL.shape[1]))
        return rms_norm(x_BxLxD, self.outer["final_norm"], self.config.norm_eps)


def head_weights(params: Tree) -> jax.Array:
    """The LM head [V, D]: its own matrix, or the embedding where the two are tied."""
    return params["lm_head"] if "lm_head" in params else params["embed"]


def head_logits(params: Tree, hidden_XxD: jax.Array) -> jax.Array:
    """Float32 logits [..., V] of hidden states [..., D]."""
    weights_VxD = head_weights(params).astype(hidden_XxD.dtype)
    return jnp.einsum("...d,vd->...v", hidden_XxD, weights_VxD, preferred_element_type=jnp.float32)
