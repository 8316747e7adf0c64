"""The confidence in one generated answer, read in several ways. Pure functions on the host."""

from collections.abc import Sequence

import numpy as np

from calib_jax.questions.free import normalised_answer

METHODS = ("length_normalised", "sequence", "p_true", "verbalised", "self_consistency")
# What stands after "Confidence:", in percent.
PERCENT = range(101)


def sequence_probability(log_probs_T: np.ndarray) -> float:
    """exp(sum_t ln p_t), the probability of an answer's own tokens; its end is not counted.

    Args:
      log_probs_T: [T] float32, T >= 1, natural log, of the answer's tokens after the prompt.
    """
    return float(np.exp(np.sum(log_probs_T, dtype=np.float64)))


def length_normalised(log_probs_T: np.ndarray) -> float:
    """exp(mean_t ln p_t), the geometric mean of the tokens' probabilities (Malinin and Gales 2021,
    arXiv 2002.07650, section 4). Arguments as in ``sequence_probability``.

    >>> round(length_normalised(np.log([0.9, 0.4])), 6)  # the root of 0.36
    0.6
    """
    return float(np.exp(np.mean(log_probs_T, dtype=np.float64)))


def self_consistency(answer: str, samples: Sequence[str]) -> float:
    """The share of n >= 1 samples that are the answer, after ``normalised_answer``.

    Wang et al. 2023 (arXiv 2203.11171), with the greedy answer in place of the majority's, so that
    all confidences are of one answer.

    >>> self_consistency("Paris", ["paris.", "The Paris", "Lyon", ""])
    0.5
    """
    found = normalised_answer(answer)
    return sum(normalised_answer(sample) == found for sample in samples) / len(samples)


def number_probabilities(
    tokens: Sequence[Sequence[int]], log_probs: Sequence[np.ndarray]
) -> np.ndarray:
    """The probability that a model writes each of K numbers and goes on with none of the others.

    Numbers are sequences of tokens, and one may begin another ("1", "10", "100", where each digit
    is a token). With T the tree of all beginnings of the numbers' sequences, and s_k number k's,

        P_k = P(s_k) (1 - sum over the children s_k v in T of P(v | s_k)).

    Where every number is one token this is that token's probability. A number that is written with
    other tokens than the tokenizer's own counts as none.

    Args:
      tokens: K sequences, all different, of one token or more.
      log_probs: K arrays [T_k] float32, natural log, of those tokens each after the ones before.

    Returns:
      [K] float64; they add up to at most 1, and the rest is what is no number.

    Raises:
      ValueError: two numbers have the same tokens.
    """
    paths = [tuple(map(int, sequence)) for sequence in tokens]
    if len(set(paths)) < len(paths):
        raise ValueError("two numbers have the same tokens")
    after: dict[tuple[int, ...], dict[int, float]] = {}  # path -> next token -> its probability
    for path, logs in zip(paths, log_probs, strict=True):
        for t, token in enumerate(path):
            after.setdefault(path[:t], {})[token] = float(np.exp(np.float64(logs[t])))
    found = []
    for path, logs in zip(paths, log_probs, strict=True):
        further = min(sum(after.get(path, {}).values()), 1.0)
        found.append(np.exp(np.sum(logs, dtype=np.float64)) * (1 - further))
    return np.array(found)


def verbalised(probs_K: np.ndarray, values_K: Sequence[float]) -> tuple[float, float]:
    """The expectation of a stated confidence over the numbers that could be stated.

    c = sum_k v_k P_k / sum_k P_k: the mean of what the model would say, without sampling.

    Args:
      probs_K: [K] of ``number_probabilities``.
      values_K: [K] what each number means, in [0, 1].

    Returns:
      c, and sum_k P_k: the probability that a number follows at all. c is NaN where that is 0.

    >>> c, mass = verbalised(np.array([0.125, 0.375]), [0.5, 0.9])
    >>> round(c, 6), mass
    (0.8, 0.5)
    """
    mass = float(np.sum(probs_K))
    c = float(np.dot(probs_K, values_K)) / mass if mass > 0 else float("nan")
    return c, mass
