"""summary.json: a run's result in one place, as plain numbers with intervals beside them."""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import resource
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.reports import measures
from calib_jax.reports.atomic import write_text
from calib_jax.reports.classes import by_class
from calib_jax.reports.content import option_name
from calib_jax.reports.writers import plain

_PACKAGES = ("calib_jax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


# Of fewer questions no bootstrap interval is stated: their resamples hardly differ.
MIN_INTERVAL = 5
# How the table by subject calls the questions that state none.
NO_SUBJECT = "(no subject)"

# The metrics that a training run logs.
metric_functions = measures.logged


def measure(
    scores: Scores,
    domain: str,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Every figure of one split, as plain Python numbers.

    Args:
      scores: the split's scores, N >= 1 questions.
      domain: "in", "out", or "" where nothing is known of it.
      num_bins: M bins of equal width.
      edges: "right" for bins (a, b], "left" for [a, b).
      seed: of the bootstrap.
      num_resamples: of the bootstrap.

    Returns:
      method (how the confidence was read); n; accuracy, conf_ece, cw_ece, sce_ovr, smooth_ece,
      adaptive_ece, pooled_ece, mce, rmsce, nll, brier, auroc, auprc, aurc, mean_confidence and,
      where the scores hold it, candidate_mass (the mean probability of all options together), each
      with a 95 % interval `<metric>_ci` (of fewer than 5 questions [None, None]); overconfidence
      (mean confidence - accuracy), zero_probability_answers (rows that make the NLL infinite, null
      in the file); where options have a probability of exactly 0, zero_probability_rows and, if
      the probabilities are rounded, rounding_unit; conf_ece_debiased, brier_calibration,
      brier_refinement; what perfect calibration would show by chance: conf_ece_null_q95,
      cw_ece_null_q95,
      smooth_ece_null_q95, conf_ece_p_value; letter_counts [K] (predicted) with letter_entropy
      (nats), top_letter, top_letter_share and share_above_090, answer_counts [K] (gold);
      where the options are classes, classes [K], their names, which top_letter then holds, and
      by_class, see ``classes.by_class``;
      num_options [fewest, most] and what a uniform guesser would get: uniform_accuracy
      mean(1/K_i), uniform_nll mean(ln K_i), uniform_brier mean((K_i - 1)/K_i); and, where there
      are two subjects or more, groups: the rows of ``metrics.group_table`` by subject. NaN where a
      figure is undefined, e.g. AUROC when every answer is right.

    Raises:
      ValueError: an unknown domain, or no questions.
    """
    if domain not in ("in", "out", ""):
        raise ValueError(f'domain must be "in", "out" or "", got {domain!r}')
    if not len(scores.answers):
        raise ValueError("no questions to measure")
    arrays = scores.probs, scores.answers, scores.mask
    functions = measures.measured(num_bins, edges)
    row: dict[str, Any] = {"domain": domain, "method": scores.method, "n": len(scores.answers)}
    values = measures.values_of(scores, num_bins, edges)
    row |= {name: values[name] for name in (*functions, *measures.STATED)}
    row["overconfidence"] = row["mean_confidence"] - row["accuracy"]
    tails = {"log_scores": scores.log_scores}
    row["zero_probability_answers"] = int(np.isinf(metrics.row_nll(*arrays, **tails)).sum())
    row |= measures.zeros(scores)

    chosen = np.asarray(metrics.letter_counts(scores.probs, scores.mask))
    gold = np.asarray(metrics.answer_counts(scores.answers, scores.probs.shape[1]))
    top = int(chosen.argmax())
    row["letter_counts"] = chosen.tolist()
    row["top_letter"] = scores.classes[top] if scores.classes else option_name(top)
    row["top_letter_share"] = float(chosen[top] / row["n"])
    row["answer_counts"] = gold.tolist()
    if scores.classes:
        row["classes"] = list(scores.classes)
        row["by_class"] = by_class(scores, num_bins, edges)

    row |= measures.uniform(np.asarray(scores.mask, bool).sum(axis=1))
    intervals = metrics.bootstrap_all(
        functions, *arrays, num_resamples=num_resamples, seed=seed, **tails
    )
    row |= {f"{name}_ci": list(interval) for name, interval in intervals.items()}
    few = row["n"] < MIN_INTERVAL
    if few:
        row |= {f"{name}_ci": [None, None] for name in intervals}
    row |= measures.null_figures(scores, num_bins, edges, num_resamples, seed)
    for name in measures.NULL:
        # What perfect calibration shows by chance is no sign of an error.
        if not few and row[name] <= row[f"{name}_null_q95"]:
            row[f"{name}_ci"][0] = 0.0
    correct = row["accuracy"] * row["n"]
    row["accuracy_ci"] = [float(end) for end in metrics.wilson_interval(correct, row["n"])]
    if scores.mass is not None:
        row["candidate_mass"], row["candidate_mass_ci"] = measures.mean_interval(scores.mass)
        if few:
            row["candidate_mass_ci"] = [None, None]
    if len(set(scores.subjects) - {None}) >= 2:
        subjects = [NO_SUBJECT if name is None else name for name in scores.subjects]
        row["groups"] = metrics.group_table(
            scores.probs, scores.answers, subjects, scores.mask, num_bins, edges,
            seed=seed, num_resamples=num_resamples, **tails,
        )  # fmt: skip
        for group in row["groups"]:
            if group["n"] < MIN_INTERVAL:
                group["conf_ece_ci"] = [None, None]
    return row


def change(
    before: Scores,
    after: Scores,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Differences after - before of every metric, with paired bootstrap intervals.

    Args:
      before, after: scores of the same questions with the same options in the same order.
      num_bins, edges, seed, num_resamples: as in `measure`.

    Returns:
      accuracy, conf_ece, cw_ece, smooth_ece, nll, brier, auroc, mean_confidence, and
      `<metric>_ci`, 95 %.

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
    functions = measures.compared(num_bins, edges)
    rest = before.answers, before.mask
    first, last = (
        measures.values_of(scores, num_bins, edges, all_of_them=False) for scores in (before, after)
    )
    result: dict[str, Any] = {name: last[name] - first[name] for name in functions}
    intervals = metrics.paired_bootstrap_all(
        functions, before.probs, after.probs, *rest, num_resamples=num_resamples, seed=seed,
        log_scores=(before.log_scores, after.log_scores),
    )  # fmt: skip
    return result | {f"{name}_ci": list(interval) for name, interval in intervals.items()}


def write(path: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes a summary as JSON, atomically; NaN and infinities become null.

    Raises:
      TypeError: a value that JSON cannot hold; nothing is written.
    """
    text = json.dumps(plain(summary), indent=2, allow_nan=False)
    # Lists of numbers on one line. A line break inside brackets is never part of a JSON string.
    text = re.sub(
        r"\[\n\s*((?:(?:null|[-+.\deE]+),?\s*)+)\]",
        lambda match: f"[{' '.join(match[1].split())}]",
        text,
    )
    write_text(path, text + "\n")


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a summary.json.

    Raises:
      UserError: no such file, or not a JSON object.
    """
    path = pathlib.Path(path)
    reads(path)
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; has the run finished?") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(summary, dict):
        raise UserError(f"{path}: not a JSON object but a {type(summary).__name__}")
    return summary


def versions() -> dict[str, Any]:
    """What the run ran on: Python, packages, platform and kind and number of devices."""
    result: dict[str, Any] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = None  # calib_jax itself, run from its source folder
    device = jax.devices()[0]
    result["platform"] = device.platform
    result["device_kind"] = device.device_kind
    result["device_count"] = jax.device_count()
    result["process_count"] = jax.process_count()
    result["system"] = f"{platform.system()} {platform.machine()}"
    return result


def peak_memory_gib() -> float:
    """The most main memory that this process has held so far, in GiB (2^30 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def peak_device_memory_gib() -> float | None:
    """The most memory that any local device has held so far, in GiB; None where unknown (CPU)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(peaks) / 2**30 if peaks else None
