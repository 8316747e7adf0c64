"""How the next token is chosen: the most probable one, or a draw from what is left of them."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from calib_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The rule for the next token; hashable, so that it can key a compilation.

    Attributes:
      temperature: logits are divided by it; 0 for greedy.
      top_k: only the k most probable tokens; 0 for all.
      top_p: of those, the fewest most probable ones that hold this much probability (Holtzman et
        al. 2020, arXiv 1904.09751); 1 for all.

    Raises:
      UserError: a value that means nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise UserError(
                f"config.generate.temperature is {self.temperature}; expected 0 or more."
            )
        if self.top_k < 0:
            raise UserError(f"config.generate.top_k is {self.top_k}; expected 0 (all) or more.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"config.generate.top_p is {self.top_p}; expected 0 < p <= 1.")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise UserError(
                "config.generate.top_k and .top_p cut a distribution that is drawn from, and "
                "config.generate.temperature is 0 (greedy). Set a temperature, or leave them out."
            )


def next_tokens(sampling: Sampling, logits_BxV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """The next token of every row, [B] int32.

    Args:
      sampling: the rule.
      logits_BxV: float32.
      keys_B: a random key for each row; its draw depends on nothing else but its logits.
    """
    if sampling.temperature == 0:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    logits_BxV = candidates(logits_BxV / sampling.temperature, sampling.top_k, sampling.top_p)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BxV).astype(jnp.int32)


def candidates(logits_BxV: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """The logits with -inf for tokens that ``Sampling`` leaves out; ties with the last one stay."""
    V = logits_BxV.shape[-1]
    k = min(top_k, V) or V
    if k == V and top_p == 1:
        return logits_BxV
    falling_Bxk = jax.lax.top_k(logits_BxV, k)[0]
    lowest_Bx1 = falling_Bxk[:, -1:]
    if top_p < 1:
        probs_Bxk = jax.nn.softmax(falling_Bxk, axis=-1)
        before_Bxk = jnp.cumsum(probs_Bxk, axis=-1) - probs_Bxk
        # The first one stays, whatever p is: 0 lies before it.
        stays_Bxk = (before_Bxk < top_p).at[:, 0].set(True)
        lowest_Bx1 = jnp.where(stays_Bxk, falling_Bxk, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.where(logits_BxV >= lowest_Bx1, logits_BxV, -jnp.inf)
