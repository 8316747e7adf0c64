"""The scoring engine: token log-probabilities of continuations, shared prefixes computed once."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenScores:
    """What the model says at every target of one pair.

    Attributes:
      log_probs: [T] float32, natural log, of the targets among the whole vocabulary.
      top_log_probs: [T] float32, of the most probable token at each target's place.
      top_tokens: [T] int32, that token; the first of equals.
    """

    log_probs: np.ndarray
    top_log_probs: np.ndarray
    top_tokens: np.ndarray
