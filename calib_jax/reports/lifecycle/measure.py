"""The figures of next-token predictions: a ROW like ``reports.measure``'s, without options."""

from typing import Any

import numpy as np

from calib_jax import metrics
from calib_jax.confidence.next_token import NextTokens

# What the rows are -> how intervals are made where some are of one document, and where none are.
INTERVALS = {
    "positions": (
        "bootstrap over documents, each with all of its positions",
        "bootstrap over positions, one of each document (accuracy: Wilson's)",
    ),
    "facts": (
        "bootstrap over sources (documents, or facts with all their templates), each with all of "
        "its rows",
        "bootstrap over facts (accuracy: Wilson's)",
    ),
    # A question is a document of its own.
    "questions": ("", "bootstrap over questions (accuracy: Wilson's)"),
}


def measure(
    tokens: NextTokens,
    unit: str = "positions",
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Every figure of a set of next-token predictions, as plain Python numbers.

    Args:
      tokens: N >= 1 predictions.
      unit: what they are, "positions", "facts" or "questions".
      num_bins, edges: of conf-ECE.
      seed, num_resamples: of the bootstrap and the draws under exact calibration.

    Returns:
      n; documents; accuracy, mean_confidence, conf_ece and nll (of the token that follows, natural
      log), each with a 95 % interval ``<metric>_ci`` (see ``metrics.cluster_bootstrap``);
      overconfidence (mean confidence - accuracy); conf_ece_null_q95; intervals, how these were
      made; counts; and where there are two relations or more, groups, the rows of
      ``metrics.binary_group_table`` by relation.
    """
    confidence, correct = tokens.confidences, tokens.correct
    bins: dict[str, Any] = {"num_bins": num_bins, "edges": edges}
    nll = -tokens.log_probs.astype(np.float64)
    clusters = np.unique(np.array(tokens.documents), return_inverse=True)[1]
    row: dict[str, Any] = {
        "n": len(tokens),
        "documents": int(clusters.max()) + 1,
        "accuracy": float(correct.mean()),
        "mean_confidence": float(confidence.astype(np.float64).mean()),
        "conf_ece": metrics.binary_ece(confidence, correct, **bins),
        "nll": float(nll.mean()),
    }
    row["overconfidence"] = row["mean_confidence"] - row["accuracy"]
    ends = metrics.cluster_bootstrap(
        confidence,
        correct,
        {"nll": nll},
        clusters,
        **bins,
        num_resamples=num_resamples,
        seed=seed,
    )
    row |= {f"{name}_ci": list(ends[name]) for name in ends}
    row["conf_ece_null_q95"] = metrics.binary_null_quantile(
        confidence, **bins, num_draws=num_resamples, seed=seed
    )
    # As metrics.low_by_test: from 0 exactly where chance would explain the error.
    surplus, low = row["conf_ece"] - row["conf_ece_null_q95"], row["conf_ece_ci"][0]
    row["conf_ece_ci"][0] = 0.0 if surplus <= 0 else low if low > 0 else surplus
    clustered, independent = INTERVALS[unit]
    row["intervals"] = clustered
    if row["documents"] == row["n"]:
        row["intervals"] = independent
        wilson = metrics.wilson_interval(correct.sum(), len(tokens))
        row["accuracy_ci"] = [float(end) for end in wilson]
    row["counts"] = dict(tokens.counts)
    if len(set(tokens.relations)) > 1:
        row["groups"] = metrics.binary_group_table(
            confidence,
            correct,
            np.array(tokens.relations),
            **bins,
            num_draws=num_resamples,
            seed=seed,
            clusters=clusters,
        )
    return row
