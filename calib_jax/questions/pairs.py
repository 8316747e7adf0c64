"""Context and continuation as tokens, by lm-evaluation-harness's rules."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pair:
    """A context with the continuation whose tokens are scored after it.

    Attributes:
      tokens: [L] int32, the context, then the continuation. What is fed is all but the last.
      num_targets: T, how many tokens at the end are the continuation; 0 where nothing is left of
        it.
      num_cut: context tokens that were cut at the left to fit the model.
    """

    tokens: np.ndarray
    num_targets: int
    num_cut: int = 0
