"""Measuring scored options: every figure of a split, and what has changed between two models."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.metrics.null import low_by_test, null_values, p_value, upper_quantile
from calib_jax.metrics.tails import call
from calib_jax.reports import catalogue, folded, zeros
from calib_jax.reports.classes import by_class
from calib_jax.reports.words import option_name

# Of fewer questions no interval but Wilson's is stated: their resamples hardly differ.
MIN_INTERVAL = 5
# Of fewer right, or wrong, answers resamples tell too little of how calibration errors vary.
MIN_KIND, SCARCE = 5, 10
# The conf-ECE of which it is said how many questions it needs in order to be seen.
SEEN_ECE = 0.05
# How the table by subject calls the questions that state none.
NO_SUBJECT = "(no subject)"


def measure(
    scores: Scores,
    domain: str,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
    ordered: bool = False,
) -> dict[str, Any]:
    """Every figure of one split, as plain Python numbers.

    Args:
      scores: the split's scores, N >= 1 questions.
      domain: "in", "out", or "" where nothing is known of it.
      num_bins: M bins of equal width.
      edges: "right" for bins (a, b], "left" for [a, b).
      seed: of the bootstrap.
      num_resamples: of the bootstrap.
      ordered: whether the options stand in an order, lowest first; rps is a figure then.

    Returns:
      method (how the confidence was read); n; where questions share clusters (``Scores.clusters``),
      n_clusters, and then all intervals, and what chance would show, are over clusters; accuracy,
      conf_ece, cw_ece, sce_ovr, smooth_ece, adaptive_ece, pooled_ece, rmsce, nll, brier, auroc,
      auprc, aurc, mean_confidence, squared_ece (unbiased, so it may be negative; without clusters
      alone with an interval) and, where the scores hold it, candidate_mass (the mean probability of
      all options together), each with a 95 % interval `<metric>_ci` ([None, None] of fewer
      questions or clusters than the catalogue's ``least``); mce, without an interval;
      overconfidence
      (mean confidence - accuracy), zero_probability_answers (rows that make the NLL infinite, null
      in the file); where options have a probability of exactly 0, the figures of
      ``zeros.figures``; brier_calibration, brier_refinement; for
      conf_ece, cw_ece, smooth_ece, adaptive_ece, pooled_ece and rmsce what perfect calibration
      would show by chance, `<metric>_null_q95`, and the test of it, `<metric>_p_value`: the
      interval holds 0 exactly where that is above 0.05; kuiper_p_value and spiegelhalter_p_value,
      two-sided tests of the top label; variational_ece with variational_over and
      variational_under, cross-fitted, see ``metrics.variational_ece``; questions_needed (about so
      many questions like these show a conf-ECE of 0.05, see ``metrics.questions_needed``; absent
      where no model of so low confidences can have it); letter_counts [K] (predicted) with
      letter_entropy (nats), top_letter, top_letter_share and share_above_090, answer_counts [K]
      (gold); where the options are classes, classes [K], their names, which top_letter then holds,
      and by_class, see ``classes.by_class``;
      num_options [fewest, most], which is [1, 1] of free answers (they have no letters and no
      guesser), and what a uniform guesser would get: uniform_accuracy mean(1/K_i),
      uniform_nll mean(ln K_i), uniform_brier mean((K_i - 1)/K_i); act_above, the
      columns of ``metrics.act_above``; and, where there
      are two subjects or more, groups: the rows of ``metrics.group_table`` by subject. NaN where a
      figure is undefined, e.g. AUROC when every answer is right. Of cross-fitted scores auroc,
      auprc and aurc are means over the folds, see ``metrics.within_folds``.

    Raises:
      ValueError: an unknown domain, or no questions.
    """
    if domain not in ("in", "out", ""):
        raise ValueError(f'domain must be "in", "out" or "", got {domain!r}')
    if not len(scores.answers):
        raise ValueError("no questions to measure")
    arrays = scores.probs, scores.answers, scores.mask
    functions = catalogue.functions("", num_bins, edges, interval=True, ordered=ordered)
    row: dict[str, Any] = {"domain": domain, "method": scores.method, "n": len(scores.answers)}
    clusters = scores.units
    if clusters is not None:
        row["n_clusters"] = scores.num_units
    row |= values_of(scores, num_bins, edges, ordered=ordered)
    row["overconfidence"] = row["mean_confidence"] - row["accuracy"]
    tails: dict[str, Any] = {"log_scores": zeros.as_read(scores)}
    row["zero_probability_answers"] = int(np.isinf(metrics.row_nll(*arrays, **tails)).sum())
    row |= zeros.figures(scores)

    gold = np.asarray(metrics.answer_counts(scores.answers, scores.probs.shape[1]))
    row["answer_counts"] = gold.tolist()
    if not scores.is_free:
        chosen = np.asarray(metrics.letter_counts(scores.probs, scores.mask))
        top = int(chosen.argmax())
        row["letter_counts"] = chosen.tolist()
        row["top_letter"] = scores.classes[top] if scores.classes else option_name(top)
        row["top_letter_share"] = float(chosen[top] / row["n"])
    if scores.classes:
        row["classes"] = list(scores.classes)
        row["by_class"] = by_class(scores, num_bins, edges)

    row |= uniform(np.asarray(scores.mask, bool).sum(axis=1))
    row["act_above"] = act_above(scores)
    intervals = metrics.bootstrap_all(
        functions, *arrays, num_resamples=num_resamples, seed=seed, clusters=clusters, **tails
    )
    row |= {f"{name}_ci": list(interval) for name, interval in intervals.items()}
    if scores.folds is not None:
        row |= folded.figures(scores, seed, num_resamples)
    row |= null_figures(scores, num_bins, edges, num_resamples, seed, intervals)
    right = scores.predictions == np.asarray(scores.answers)
    share = metrics.share_interval(right, clusters)
    kind = min(right.sum(), (~right).sum())
    if kind < SCARCE:  # as far off as the accuracy's interval allows
        far = max(abs(row["mean_confidence"] - end) for end in share)
        row["conf_ece_ci"][1] = max(row["conf_ece_ci"][1], far)
    if clusters is not None:
        row["squared_ece"] = math.nan
    else:  # these take rows for independent
        square = metrics.squared_ece_interval(*arrays, num_bins, edges)
        row["squared_ece_ci"] = list(square) if kind >= MIN_KIND else [None, None]
        for test in (metrics.kuiper_test, metrics.spiegelhalter_test):
            row[test.__name__.replace("test", "p_value")] = test(*arrays).p_value
    count = row.get("n_clusters", row["n"])
    few = count < MIN_INTERVAL
    for metric in catalogue.METRICS:
        if count < metric.least and f"{metric.key}_ci" in row:
            row[f"{metric.key}_ci"] = [None, None]
    row["accuracy_ci"] = list(share)
    found = metrics.variational_ece(*arrays, seed=seed, clusters=clusters)
    row["variational_ece"] = found.error
    row |= {"variational_over": found.over, "variational_under": found.under}
    if row["mean_confidence"] > SEEN_ECE:
        row["questions_needed"] = metrics.questions_needed(
            SEEN_ECE, scores.confidences, num_bins, edges
        )
    if scores.mass is not None:
        row["candidate_mass"], row["candidate_mass_ci"] = mean_interval(scores.mass, clusters)
        if few:
            row["candidate_mass_ci"] = [None, None]
    if len(set(scores.subjects) - {None}) >= 2:
        subjects = [NO_SUBJECT if name is None else name for name in scores.subjects]
        row["groups"] = metrics.group_table(
            scores.probs,
            scores.answers,
            np.array(subjects),
            scores.mask,
            num_bins,
            edges,
            seed=seed,
            num_resamples=num_resamples,
            clusters=clusters,
            **tails,
        )
        for group in row["groups"]:
            if group.get("n_clusters", group["n"]) < MIN_INTERVAL:
                group["conf_ece_ci"] = [None, None]
    return row


def act_above(scores: Scores) -> dict[str, list[float]]:
    """The columns of ``metrics.act_above`` as a ROW holds them."""
    arrays = scores.probs, scores.answers, scores.mask
    found = metrics.act_above(*arrays, clusters=scores.units)
    return {name: column.tolist() for name, column in found._asdict().items()}


def change(
    before: Scores,
    after: Scores,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
    ordered: bool = False,
) -> dict[str, Any]:
    """Differences after - before of every metric, with paired bootstrap intervals.

    Resamples draw the clusters that ``before`` names (``Scores.clusters``), else questions.

    Args:
      before, after: scores of the same questions with the same options in the same order.
      num_bins, edges, seed, num_resamples, ordered: as in `measure`.

    Returns:
      accuracy, conf_ece, squared_ece, cw_ece, smooth_ece, nll, brier, auroc, mean_confidence, and
      `<metric>_ci`, 95 % ([None, None] of fewer questions or clusters than the catalogue's
      ``least``, and of calibration errors where fewer than 5 answers of a side are right, or
      wrong). squared_ece_ci is no bootstrap's.
      accuracy_p is two-sided, of no change; it and the accuracy's interval are those of
      ``metrics.accuracy_change``; with clusters the interval is a bootstrap's, and squared_ece is
      NaN, for the pairs of one cluster bias it.

    Raises:
      ValueError: the two are not of the same questions.
    """
    same = (
        before.ids == after.ids
        and np.array_equal(before.answers, after.answers)
        and np.array_equal(before.mask, after.mask)
    )
    if not same:
        raise ValueError("before and after are scores of other questions or orders of options")
    functions = catalogue.functions(
        catalogue.CHANGE, num_bins, edges, interval=True, ordered=ordered
    )
    rest = before.answers, before.mask
    first, last = (
        values_of(scores, num_bins, edges, catalogue.CHANGE, ordered) for scores in (before, after)
    )
    result: dict[str, Any] = {name: last[name] - first[name] for name in first}
    sides = before.probs, after.probs
    intervals = metrics.paired_bootstrap_all(
        functions,
        *sides,
        *rest,
        num_resamples=num_resamples,
        seed=seed,
        clusters=before.units,
        log_scores=(zeros.as_read(before), zeros.as_read(after)),
    )
    result |= {f"{name}_ci": list(interval) for name, interval in intervals.items()}
    right = [s.predictions == np.asarray(s.answers) for s in (before, after)]
    if before.units is not None:
        result["squared_ece"] = math.nan
    else:  # these take rows for independent
        flips = metrics.accuracy_change(*right)
        result |= {"accuracy_ci": [flips.low, flips.high], "accuracy_p": flips.p_value}
        square = metrics.paired_squared_ece_interval(*sides, *rest, num_bins, edges)
        result["squared_ece_ci"] = list(square)
    scarce = min(min(side.sum(), (~side).sum()) for side in right) < MIN_KIND
    count = len(before) if before.units is None else before.num_units
    errors = {metric.key for metric in catalogue.at(catalogue.NULL)} | {"squared_ece"}
    for metric in catalogue.at(catalogue.CHANGE):
        known = count >= metric.least and not (scarce and metric.key in errors)
        exact = metric.key == "accuracy" and before.units is None
        if not known and not exact and f"{metric.key}_ci" in result:
            result[f"{metric.key}_ci"] = [None, None]
    return result


def uniform(options: np.ndarray) -> dict[str, Any]:
    """What a uniform guesser gets, as a ROW holds it; of free answers there is none.

    Args:
      options: [N], the number of options of every question.
    """
    span = {"num_options": [int(options.min()), int(options.max())]}
    if span["num_options"] == [1, 1]:
        return span
    return {
        **span,
        "uniform_accuracy": float(np.mean(1 / options)),
        "uniform_nll": float(np.mean(np.log(options))),
        "uniform_brier": float(np.mean((options - 1) / options)),
    }


@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "place", "ordered"))
def _values(probs, answers, mask, log_scores, num_bins: int, edges: str, place: str, ordered: bool):
    """All figures in one program: compiled once instead of once per metric."""
    functions = catalogue.functions(place, num_bins, edges, ordered=ordered)
    arrays = probs, answers, mask
    return jnp.stack([call(function, *arrays, None, log_scores) for function in functions.values()])


def values_of(
    scores: Scores, num_bins: int, edges: str, place: str = "", ordered: bool = False
) -> dict[str, float]:
    """key -> value of the catalogue's metrics that have a function.

    Args:
      scores: N questions.
      num_bins, edges: of the bins.
      place: only the metrics of this place (``catalogue.LOG``); "" for all.
      ordered: whether the options stand in an order.
    """
    arrays = scores.probs, scores.answers, scores.mask, zeros.as_read(scores)
    values = _values(*arrays, num_bins=num_bins, edges=edges, place=place, ordered=ordered).tolist()
    names = [metric.key for metric in catalogue.computed(place, ordered=ordered)]
    return dict(zip(names, values, strict=True))


def null_figures(
    scores: Scores,
    num_bins: int,
    edges: str,
    num_draws: int,
    seed: int,
    intervals: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What chance alone makes of calibration errors: 95 % quantiles, p-values, and their intervals.

    Answers are drawn from the probabilities themselves, the same for all errors: the figures of
    ``metrics.null_quantile`` and ``metrics.consistency_test`` in one program. Where questions
    share clusters, those of ``metrics.clustered_null``, which does not take them for independent,
    and which knows some of the errors only. The intervals are brought into line with the p-values,
    see ``metrics.low_by_test``.

    Args:
      scores: N questions.
      num_bins, edges: of the bins.
      num_draws, seed: of the drawn answers.
      intervals: of the errors, by the bootstrap; None where they are not asked for.
    """
    functions = catalogue.functions(catalogue.NULL, num_bins, edges)
    arrays, draws_of = (scores.probs, scores.answers), (num_draws, seed)
    if (clusters := scores.units) is None:
        values = null_values(functions, *arrays, scores.mask, *draws_of)
    else:
        values = metrics.clustered_null(*arrays, clusters, scores.mask, num_bins, edges, *draws_of)
    figures: dict[str, Any] = {}
    for name, (*drawn, observed) in values.items():
        draws = np.array(drawn)
        figures[f"{name}_null_q95"] = float(upper_quantile(draws, 0.95))
        figures[f"{name}_p_value"] = float(p_value(draws, observed))
        if intervals is not None:
            low, high = intervals[name]
            figures[f"{name}_ci"] = [float(low_by_test(low, observed, draws)), high]
    return figures


def mean_interval(
    values: np.ndarray, clusters: np.ndarray | None = None
) -> tuple[float, list[float]]:
    """The mean of N values between 0 and 1, and its normal 95 % interval within them."""
    values = np.asarray(values, np.float64)
    mean = values.mean()
    sums = values - mean if clusters is None else np.bincount(clusters, values - mean)
    half = 1.96 * np.sqrt(np.sum(sums**2)) / len(values)
    return float(mean), [float(max(mean - half, 0)), float(min(mean + half, 1))]
