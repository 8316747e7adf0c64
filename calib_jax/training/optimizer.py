"""AdamW with warm-up, cosine decay and gradient clipping."""

import dataclasses
import functools
import math

import jax
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW's settings; hashable, so that equal runs share one compiled step.

    Attributes:
      learning_rate: the peak.
      num_steps: of the whole run.
      warmup_ratio: share of the steps over which the rate rises linearly from 0; after it a cosine
        falls to 0.
      weight_decay: on projections, adapters and embeddings, not on norms and biases.
      clip_norm: the largest global gradient norm; 0 for no clipping.
    """

    learning_rate: float
    num_steps: int
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def schedule(self) -> optax.Schedule:
        """Learning rate by step."""
        warmup = math.ceil(self.num_steps * self.warmup_ratio)
        if warmup >= self.num_steps:
            return optax.linear_schedule(0.0, self.learning_rate, max(self.num_steps, 1))
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup else self.learning_rate,
            peak_value=self.learning_rate,
            warmup_steps=warmup,
            decay_steps=self.num_steps,
        )

    @functools.cache  # noqa: B019  (a handful of settings a process)
    def transformation(self) -> optax.GradientTransformation:
        """Clipping, then AdamW with b1 0.9, b2 0.999, eps 1e-8."""
        chain = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        decay = {"weight_decay": self.weight_decay, "mask": _decayed}
        return optax.chain(*chain, optax.adamw(self.schedule(), **decay))


def _decayed(params: dict) -> dict:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not str(path[-1].key).endswith(("norm", "bias")), params
    )
