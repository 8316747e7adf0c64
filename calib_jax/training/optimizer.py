"""AdamW with warm-up, cosine decay and gradient clipping."""

import math

import jax
import optax

from calib_jax.errors import UserError


def learning_rate(peak: float, num_steps: int, warmup_ratio: float) -> optax.Schedule:
    """Linear from 0 to ``peak`` over the first share of the steps, then a cosine to 0."""
    if not 0 <= warmup_ratio <= 1:
        raise UserError(f"config.train.warmup_ratio is {warmup_ratio}; expected 0 to 1.")
    warmup = math.ceil(num_steps * warmup_ratio)
    if warmup >= num_steps:
        return optax.linear_schedule(0.0, peak, max(num_steps, 1))
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else peak,
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=num_steps,
    )


def adamw(
    schedule: optax.Schedule, *, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    """AdamW (b1 0.9, b2 0.999, eps 1e-8) after clipping by the global norm.

    Args:
      schedule: learning rate by step.
      weight_decay: on projections, adapters and embeddings, not on norms.
      clip_norm: the largest global gradient norm; 0 for no clipping.
    """
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    chain.append(optax.adamw(schedule, weight_decay=weight_decay, mask=_decayed))
    return optax.chain(*chain)


def _decayed(params: dict) -> dict:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not str(path[-1].key).endswith("norm"), params
    )
