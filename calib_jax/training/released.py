"""The objective of the authors' released trainer: (1 − α) · SFT + α · 10⁻³ · CAL.

    CAL = Σ_m (1 / N_m) Σ_{i in the batch, in bin m} Σ_k (π_k(x_i) − p_k(x_i))²

It is not Algorithm 1 of the paper, and here to be compared with it:

  * N_m and q_m are the counts and accuracies of the bins as the model begins, and stay
    (``em.refresh`` "once"); bins weigh alike, not by their questions.
  * A question's bin is that of its confidence in the training step, in dropout's presence.
  * The last bin, the most confident, is left out: the loop over M edges ends one early.
  * The targets p of Eq. 6 are made of the step's own probabilities, and the gradient flows through
    them.

Not reproduced, since they are accidents of the program and no objective: an empty bin's division by
0 (it has no weight here), epochs squared, confidences read at another token than the answer's.
Source: the code that Xiao et al. 2025 released with their paper.
"""

import dataclasses

import jax
import jax.numpy as jnp

from calib_jax import metrics
from calib_jax.training.targets import target_distribution

# Of CAL beside α.
SCALE = 1e-3


@dataclasses.dataclass(frozen=True)
class ReleasedTerm:
    """CAL of the module's docstring.

    Attributes:
      num_bins, edges: as in ``targets.e_step``; the authors' are [a, b), "left".
    """

    num_bins: int
    edges: str

    def per_question(
        self,
        probs_NxK: jax.Array,
        mask_NxK: jax.Array,
        accuracy_M: jax.Array,
        counts_M: jax.Array,
    ) -> jax.Array:
        """Every question's share of CAL; over a batch they are summed, not averaged.

        Args:
          probs_NxK: [N, K] float32, the model's option probabilities; 0 where masked.
          mask_NxK: [N, K] bool.
          accuracy_M, counts_M: [M], q and N of the E-step; q is NaN where a bin is empty.

        Returns:
          [N] float32, 0 in the last bin and in bins that were empty.
        """
        bins_N = metrics.bin_index(
            metrics.confidences(jax.lax.stop_gradient(probs_NxK), mask_NxK),
            num_bins=self.num_bins,
            edges=self.edges,
        )
        held_M = (counts_M > 0) & (jnp.arange(self.num_bins) < self.num_bins - 1)
        weight_M = jnp.where(held_M, 1.0 / jnp.maximum(counts_M, 1), 0.0)
        accuracy_M = jnp.where(counts_M > 0, accuracy_M, 0.0)
        targets_NxK = target_distribution(probs_NxK, accuracy_M[bins_N], mask_NxK)
        return weight_M[bins_N] * jnp.sum((targets_NxK - probs_NxK) ** 2, axis=-1)
