"""Log-probabilities of preferred and rejected answers, each prompt computed once.

    log pi(y | x) = sum_t log pi(y_t | x, y_<t)

over the answer's tokens, its end of turn included. Source: Rafailov et al. 2023 (DPO).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.questions.pairs import Pair


@dataclasses.dataclass(frozen=True)
class PreferenceScores:
    """What a model says of N preference pairs.

    Attributes:
      chosen, rejected: [N] float64, natural log, log pi(y_w | x) and log pi(y_l | x), summed over
        the answer's tokens.
      chosen_tokens, rejected_tokens: [N] int32, how many these are.
      rates: [N] float64, P(chosen is preferred); NaN where it is not known.
      ids: N names.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    rates: np.ndarray
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def margins(self) -> np.ndarray:
        """[N] float64, log pi(y_w | x) - log pi(y_l | x)."""
        return self.chosen - self.rejected

    @property
    def normalised_margins(self) -> np.ndarray:
        """[N] float64, the same with each sum divided by its number of tokens."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


def score_preferences(
    engine: Engine,
    pairs: Sequence[tuple[Pair, Pair]],
    ids: Sequence[str],
    rates: Sequence[float | None] | None = None,
    on_group: Callable[[int, list[TokenScores]], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> PreferenceScores:
    """Scores N pairs of answers.

    Args:
      engine: of the model; planned for these pairs, or it plans itself.
      pairs: (chosen, rejected) of each prompt, as ``questions.preferences.encode_preference`` makes
        them.
      ids: N names, for messages.
      rates: N, P(chosen is preferred), None where it is not known; None for not at all.
      on_group: called as (pair's number, its scores) when they are there, in any order.
      check: called between batches; may raise to stop.

    Raises:
      UserError: see ``Engine.score``.
      ValueError: an answer without tokens, or names or rates of another number.
    """
    found = engine.score(pairs, on_group, check, lambda i: f"pair {ids[i]}")
    return collect(found, ids, rates)


def collect(
    found: Sequence[Sequence[TokenScores]],
    ids: Sequence[str],
    rates: Sequence[float | None] | None = None,
) -> PreferenceScores:
    """What the engine returns for N groups of (chosen, rejected), summed."""
    rates = [None] * len(ids) if rates is None else rates
    if not len(found) == len(ids) == len(rates):
        raise ValueError(f"{len(found)} pairs, {len(ids)} ids, {len(rates)} rates: not the same")
    counts = np.array([[len(side.log_probs) for side in pair] for pair in found], np.int32)
    counts = counts.reshape(len(found), 2)
    if (counts == 0).any():
        raise ValueError(f"pair {ids[int(np.argmin(counts.min(axis=1)))]}: an empty answer")
    # float32 terms, summed in float64: answers have hundreds of tokens.
    sums = np.array([[s.log_probs.sum(dtype=np.float64) for s in pair] for pair in found])
    sums = sums.reshape(len(found), 2)
    return PreferenceScores(
        chosen=sums[:, 0],
        rejected=sums[:, 1],
        chosen_tokens=counts[:, 0],
        rejected_tokens=counts[:, 1],
        rates=np.array([np.nan if rate is None else rate for rate in rates], np.float64),
        ids=tuple(ids),
    )
