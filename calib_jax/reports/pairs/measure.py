"""Figures of preference pairs and of text, of one model or of one against another."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax import metrics
from calib_jax.confidence.preference import PreferenceScores
from calib_jax.confidence.running_text import TextLosses
from calib_jax.errors import UserError

# Of fewer rows no interval is stated: their resamples hardly differ.
MIN_INTERVAL = 5
_SHARES = ("accuracy", "accuracy_normalised", "reward_accuracy", "share_above_rate")
_CHANGED = (
    "accuracy",
    "accuracy_normalised",
    "mean_margin",
    "mean_margin_normalised",
    "mean_confidence",
    "mean_ratio",
    "mean_ratio_normalised",
    "mean_excess",
    "mean_excess_normalised",
    "share_above_rate",
    "chosen_log_prob",
    "rejected_log_prob",
)

Row = dict[str, Any]


def measure_pairs(
    scores: PreferenceScores,
    reference: PreferenceScores | None = None,
    beta: float = 0.1,
    seed: int = 0,
    num_resamples: int = 1000,
) -> Row:
    """Every figure of N >= 1 preference pairs, as plain Python numbers.

    Args:
      scores: of the model.
      reference: of the same pairs by the model that rewards are counted from; None for none.
      beta: of DPO's rewards.
      seed, num_resamples: of the bootstrap over pairs.

    Returns:
      n; accuracy and accuracy_normalised (share of pairs whose chosen answer is the more probable
      one, by the sum and by the mean over its tokens); mean_margin, mean_margin_normalised (nats);
      chosen_log_prob, rejected_log_prob (means of the sums); mean_confidence (mean probability of
      the more probable of the two, what accuracy should be); mean_ratio, and where the rate is
      known preference_rate, mean_excess, share_above_rate (``metrics.preference_collapse``); where
      answers have several tokens mean_ratio_normalised and mean_excess_normalised, per token; with
      a reference mean_reward_margin and reward_accuracy (its share above 0). Each but n and
      preference_rate has a 95 % interval ``<name>_ci`` ([None, None] of fewer than 5 pairs;
      shares: Wilson's). num_rated where the rate is known of some pairs only: figures of the rate
      are of these.

    Raises:
      ValueError: no pairs, or a reference of other pairs.
    """
    if not len(scores):
        raise ValueError("no pairs to measure")
    columns = _columns(scores)
    if reference is not None:
        _check_same(reference, scores)
        rewards = metrics.reward_margins(
            scores.chosen, scores.rejected, reference.chosen, reference.rejected, beta
        )
        columns["mean_reward_margin"] = np.asarray(rewards)
        columns["reward_accuracy"] = np.asarray(rewards) > 0
    row: Row = {"n": len(scores)}
    rated = ~np.isnan(scores.rates)
    if rated.any():
        row["preference_rate"] = float(scores.rates[rated].mean())
        if not rated.all():
            row["num_rated"] = int(rated.sum())
    for names in _with_as_many_rows(columns):
        found = metrics.bootstrap_ratios(
            {name: [_mean(columns[name])] for name in names}, num_resamples, seed
        )
        for name, (value, *ends) in found.items():
            row[name] = value
            count = len(columns[name])
            if name in _SHARES:
                ends = [*map(float, metrics.wilson_interval(np.sum(columns[name]), count))]
            row[f"{name}_ci"] = _stated(ends, count)
    return row


def change_pairs(
    before: PreferenceScores, after: PreferenceScores, seed: int = 0, num_resamples: int = 1000
) -> Row:
    """after - before of the figures of the same pairs, with paired 95 % intervals.

    Those of shares are ``metrics.accuracy_change``'s, with their p-values as ``<name>_p``.

    Raises:
      ValueError: they are of different pairs.
    """
    _check_same(before, after)
    first, last = _columns(before), _columns(after)
    row: Row = {}
    for names in _with_as_many_rows(first):
        names = [name for name in names if name in _CHANGED]
        found = metrics.bootstrap_ratios(
            {name: [_mean(first[name]), _mean(last[name])] for name in names}, num_resamples, seed
        )
        for name, (value, *ends) in found.items():
            if name in _SHARES:
                flips = metrics.accuracy_change(first[name], last[name])
                ends, row[f"{name}_p"] = [flips.low, flips.high], flips.p_value
            row[name], row[f"{name}_ci"] = value, _stated(ends, len(first[name]))
    return row


def measure_text(losses: TextLosses, seed: int = 0, num_resamples: int = 1000) -> Row:
    """The loss of N >= 1 documents, as plain Python numbers.

    Returns:
      n (documents), tokens, words, bytes; nll (nats per token), nll_per_word, nll_per_byte and
      perplexity (e^nll), each with a 95 % interval ``<name>_ci`` over documents, each of which is
      drawn with all of its tokens; counts.
    """
    found = metrics.bootstrap_ratios(
        {name: [(losses.nll, size)] for name, size in _sizes(losses).items()}, num_resamples, seed
    )
    row: Row = {"n": len(losses)}
    row |= {name: int(getattr(losses, name).sum()) for name in ("tokens", "words", "bytes")}
    for name, (value, *ends) in found.items():
        row[name], row[f"{name}_ci"] = value, _stated(ends, len(losses))
    # Monotone, so the ends of the interval are the loss's.
    row["perplexity"] = float(np.exp(row["nll"]))
    ends = row["nll_ci"]
    row["perplexity_ci"] = [None if end is None else float(np.exp(end)) for end in ends]
    return row | {"counts": losses.counts}


def change_text(
    before: TextLosses, after: TextLosses, seed: int = 0, num_resamples: int = 1000
) -> Row:
    """after - before of the losses of the same documents, with paired 95 % intervals.

    Returns:
      nll, nll_per_word, nll_per_byte, and perplexity_ratio (perplexity after / before).

    Raises:
      ValueError: they are of different documents.
    """
    same = before.ids == after.ids and np.array_equal(before.bytes, after.bytes)
    if not same:
        raise ValueError("before and after are losses of other documents")
    first, last = _sizes(before), _sizes(after)
    found = metrics.bootstrap_ratios(
        {name: [(before.nll, first[name]), (after.nll, last[name])] for name in first},
        num_resamples,
        seed,
    )
    row: Row = {}
    for name, (value, *ends) in found.items():
        row[name], row[f"{name}_ci"] = value, _stated(ends, len(before))
    row["perplexity_ratio"] = float(np.exp(row["nll"]))
    row["perplexity_ratio_ci"] = [
        None if end is None else float(np.exp(end)) for end in row["nll_ci"]
    ]
    return row


def same_pairs(one: PreferenceScores, other: PreferenceScores) -> bool:
    """Whether two models were given the same pairs in the same order."""
    return one.ids == other.ids and np.array_equal(one.rates, other.rates, equal_nan=True)


def check_same_pairs(by_model: Mapping[str, PreferenceScores]) -> None:
    """Raises UserError where a model was not asked the same pairs as the first one.

    Tokenizers that differ find other pairs too long.
    """
    (before, first), *others = by_model.items()
    for model, scores in others:
        if not same_pairs(first, scores):
            raise UserError(
                f"{before} and {model} were not asked the same preference pairs: {len(first)} and "
                f"{len(scores)} of them fit config.align.max_length in their tokens. Raise it, so "
                "that none is left out."
            )


def _check_same(one: PreferenceScores, other: PreferenceScores) -> None:
    if not same_pairs(one, other):
        raise ValueError("the scores are of other pairs")


def _columns(scores: PreferenceScores) -> dict[str, np.ndarray]:
    """Figure -> what it is the mean of; those of the rate hold the pairs that have one."""
    sides = scores.chosen, scores.rejected
    lengths = scores.chosen_tokens, scores.rejected_tokens
    plain = np.asarray(metrics.preference_margins(*sides))
    normalised = np.asarray(metrics.preference_margins(*sides, *lengths))
    rated = ~np.isnan(scores.rates)
    ratio, excess, above = map(np.asarray, metrics.row_preference_collapse(*sides, scores.rates))
    columns = {
        "accuracy": plain > 0,
        "accuracy_normalised": normalised > 0,
        "mean_margin": plain,
        "mean_margin_normalised": normalised,
        "chosen_log_prob": scores.chosen,
        "rejected_log_prob": scores.rejected,
        "mean_confidence": np.maximum(ratio, 1 - ratio),
        "mean_ratio": ratio,
    }
    if rated.any():
        columns |= {"mean_excess": excess[rated], "share_above_rate": above[rated]}
    if max(lengths[0].max(), lengths[1].max()) > 1:  # of letters both are one
        ratio, excess, _ = map(
            np.asarray, metrics.row_preference_collapse(*sides, scores.rates, *lengths)
        )
        columns["mean_ratio_normalised"] = ratio
        if rated.any():
            columns["mean_excess_normalised"] = excess[rated]
    return columns


def _with_as_many_rows(columns: dict[str, np.ndarray]) -> list[list[str]]:
    """Names in sets of one length, of which the bootstrap draws the same rows."""
    by_length: dict[int, list[str]] = {}
    for name, column in columns.items():
        by_length.setdefault(len(column), []).append(name)
    return list(by_length.values())


def _sizes(losses: TextLosses) -> dict[str, np.ndarray]:
    return {"nll": losses.tokens, "nll_per_word": losses.words, "nll_per_byte": losses.bytes}


def _mean(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return column, np.ones(len(column))


def _stated(ends: Any, count: int) -> list[float | None]:
    return [None, None] if count < MIN_INTERVAL else [float(end) for end in ends]
