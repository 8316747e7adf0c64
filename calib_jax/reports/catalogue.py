"""Every metric once: what computes it, what it is called, which way is better, where it is shown.

Summaries, tables, logs, figures and pages take their metrics from here, by the names of the places
where a metric appears. A further metric is one more entry of ``METRICS``; with ``EVERYWHERE`` as
its places it is measured wherever options are scored, and shown in logs and in the tables of
results, tasks, methods, comparisons and stages.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax

from calib_jax import metrics

# Logged by training runs, and estimated for every method by the jobs compare and sweep.
LOG = "log"
# Compared from before to after with a paired interval.
CHANGE = "change"
# A calibration error, tested against what a perfectly calibrated model of the same confidences
# shows by chance; its interval holds 0 exactly where p > 0.05. No place for any other metric.
NULL = "null"
# The tables: of one run's results, of tasks and readings, of methods (Table 2 of Xiao et al. 2025),
# of methods with their scores, of methods against the reference, of a series of models, of stages,
# of quantised weights, of pairs of base and aligned models.
RESULTS, OVERVIEW, METHODS, SCORES, VERSUS, SERIES, STAGES, QUANTIZED, STUDY = (
    "results", "overview", "methods", "scores", "versus", "series", "stages", "quantized", "study",
)  # fmt: skip  # one line: names and values side by side
EVERYWHERE = frozenset({LOG, CHANGE, RESULTS, OVERVIEW, METHODS, SCORES, VERSUS, STAGES})


@dataclasses.dataclass(frozen=True)
class Metric:
    """A figure of a measurement.

    Attributes:
      key: its name in summaries.
      label: what tables call it.
      direction: which way is better: -1 lower, +1 higher, 0 neither.
      function: (probs, answers, mask, weights=[, log_scores=], **bins) -> scalar, pure and
        jittable; None for a figure that is derived from others, or measured elsewhere.
      bins: which of ``num_bins`` and ``edges`` the function takes.
      interval: whether a bootstrap interval stands beside it.
      least: the fewest questions for which its interval is given; of fewer it covers
        the truth less often than it says (docs/coverage.md).
      places: where it is shown.
      short: its label in tables with many columns; "" for ``label``.
      signed: whether it is shown with its sign.
      inset: whether it belongs to the figure above it.
      factor: whether its change is a factor, which changes hold as ``<key>_ratio``.
      ranked: whether it holds rows against one another, so that it is taken within the folds of
        cross-fitted scores (``metrics.within_folds``).
      digits: after the point.
      ordered: whether it is only of options that stand in an order.
    """

    key: str
    label: str
    direction: int = 0
    function: Callable[..., jax.Array] | None = None
    bins: tuple[str, ...] = ()
    interval: bool = True
    least: int = 5
    places: frozenset[str] = frozenset()
    short: str = ""
    signed: bool = False
    inset: bool = False
    factor: bool = False
    ranked: bool = False
    digits: int = 3
    ordered: bool = False

    @property
    def change_key(self) -> str:
        """Its name in changes."""
        return f"{self.key}_ratio" if self.factor else self.key

    @property
    def is_p(self) -> bool:
        """Whether it is a p-value."""
        return self.key.endswith(("_p_value", "_p_adjusted"))

    @property
    def brief(self) -> str:
        """The label in tables with many columns."""
        return self.short or self.label


def _brier_part(name: str) -> Callable[..., jax.Array]:
    return lambda *arrays, **options: getattr(metrics.brier_decomposition(*arrays, **options), name)


def _at(*places: str) -> frozenset[str]:
    return frozenset(places)


_M_EDGES = ("num_bins", "edges")

# In the order of every table. The proper scores stand beside conf-ECE, which a trivial
# recalibration wins alone.
METRICS: tuple[Metric, ...] = (
    Metric("conf_ece", "conf-ECE", -1, metrics.conf_ece, _M_EDGES,
           places=EVERYWHERE | {NULL, SERIES, QUANTIZED, STUDY}),
    # Its interval is no bootstrap's: see metrics.squared_ece_interval.
    Metric("squared_ece", "unbiased square", -1, metrics.squared_ece, _M_EDGES,
           interval=False, places=_at(CHANGE, RESULTS), inset=True, digits=4),
    Metric("conf_ece_null_q95", "by chance (95%)", short="by chance", interval=False,
           places=_at(RESULTS, SCORES, SERIES, STAGES), inset=True),
    Metric("conf_ece_p_value", "p, conf-ECE", interval=False, places=_at(RESULTS), inset=True),
    Metric("conf_ece_p_adjusted", "p, adjusted", interval=False, inset=True),
    Metric("kuiper_p_value", "p, Kuiper", interval=False, places=_at(RESULTS), inset=True),
    Metric("spiegelhalter_p_value", "p, Spiegelhalter", interval=False,
           places=_at(RESULTS), inset=True),
    Metric("variational_ece", "variational", -1, interval=False, places=_at(RESULTS), inset=True),
    Metric("variational_over", "over-confident", -1, interval=False, places=_at(RESULTS),
           inset=True),
    Metric("variational_under", "under-confident", -1, interval=False, places=_at(RESULTS),
           inset=True),
    Metric("nll", "NLL", -1, metrics.nll,
           places=_at(LOG, CHANGE, RESULTS, SCORES, VERSUS, SERIES, STAGES, QUANTIZED)),
    Metric("brier", "Brier", -1, metrics.brier,
           places=_at(LOG, CHANGE, RESULTS, SCORES, VERSUS, STAGES)),
    Metric("brier_calibration", "calibration part", -1, _brier_part("calibration"), _M_EDGES,
           interval=False, inset=True),
    Metric("brier_refinement", "refinement part", -1, _brier_part("refinement"), _M_EDGES,
           interval=False, inset=True),
    Metric("rps", "ranked prob. score", -1, metrics.rps, places=_at(CHANGE, RESULTS), ordered=True),
    Metric("cw_ece", "cw-ECE", -1, metrics.cw_ece, _M_EDGES,
           places=_at(LOG, CHANGE, NULL, RESULTS, OVERVIEW, METHODS, VERSUS, STAGES, STUDY)),
    Metric("cw_ece_p_value", "p, class-wise", interval=False, places=_at(RESULTS), inset=True),
    Metric("smooth_ece", "smooth ECE", -1, metrics.smooth_ece, places=_at(CHANGE, NULL, RESULTS)),
    # No direction: sharpness alone raises it.
    Metric("sce_ovr", "SCE ovr", 0, metrics.sce_ovr, _M_EDGES, least=100,
           places=_at(OVERVIEW, STUDY)),
    Metric("adaptive_ece", "adaptive ECE", -1, metrics.adaptive_ece, _M_EDGES, places=_at(NULL)),
    Metric("pooled_ece", "pooled ECE", -1, metrics.pooled_ece, _M_EDGES, places=_at(NULL)),
    # The largest of ten gaps is often that of three questions.
    Metric("mce", "MCE", -1, metrics.mce, _M_EDGES, interval=False),
    Metric("rmsce", "RMSCE", -1, metrics.rmsce, _M_EDGES, places=_at(NULL)),
    Metric("accuracy", "accuracy", +1, metrics.accuracy, short="acc.",
           places=EVERYWHERE | {SERIES, QUANTIZED, STUDY}),
    Metric("mean_confidence", "mean confidence", 0, metrics.mean_confidence, short="mean conf.",
           places=_at(LOG, CHANGE, RESULTS, OVERVIEW, SCORES, SERIES, STAGES)),
    Metric("overconfidence", "less accuracy", short="over-conf.", interval=False, signed=True,
           places=_at(SERIES, STAGES), inset=True),
    Metric("share_above_090", "share of c > 0.9", 0,
           functools.partial(metrics.share_above, threshold=0.9), interval=False,
           places=_at(STAGES)),
    Metric("candidate_mass", "mass", places=_at(OVERVIEW)),
    Metric("auroc", "AUROC", +1, metrics.auroc, places=_at(LOG, CHANGE, RESULTS, SCORES),
           ranked=True),
    Metric("auprc", "AUPRC", +1, metrics.auprc, ranked=True, least=100),
    Metric("aurc", "AURC", -1, metrics.aurc, ranked=True),
    Metric("letter_entropy", "entropy of the letters", 0, metrics.letter_entropy, interval=False),
    Metric("top_letter_share", "share of the top letter", interval=False, places=_at(STAGES)),
)  # fmt: skip  # a metric's name and label on its first line, so that the list can be scanned

# Of preference pairs (reports/pairs.py).
PAIRS: tuple[Metric, ...] = (
    Metric("accuracy", "preference accuracy", +1, places=_at(STAGES)),
    Metric("accuracy_normalised", "per token", +1, inset=True),
    Metric("mean_margin", "mean margin, nats", places=_at(STAGES)),
    Metric("mean_margin_normalised", "per token", inset=True),
    Metric("mean_reward_margin", "mean reward margin"),
    Metric("reward_accuracy", "share above 0", inset=True),
    Metric("mean_confidence", "mean confidence"),
    Metric("mean_ratio", "policy ratio", places=_at(STAGES)),
    Metric("mean_ratio_normalised", "per token", places=_at(STAGES), inset=True),
    Metric("preference_rate", "preference rate", places=_at(STAGES)),
    Metric("mean_excess", "ratio less rate", places=_at(STAGES), inset=True),
    Metric("mean_excess_normalised", "per token", places=_at(STAGES), inset=True),
    Metric("share_above_rate", "ratio above rate", places=_at(STAGES), inset=True),
    Metric("chosen_log_prob", "log-prob. of the chosen"),
    Metric("rejected_log_prob", "log-prob. of the rejected"),
)
# Of running text.
TEXT: tuple[Metric, ...] = (
    Metric("perplexity", "perplexity per token", -1, factor=True),
    Metric("nll", "NLL per token", -1),
    Metric("nll_per_word", "NLL per word", -1),
    Metric("nll_per_byte", "NLL per byte", -1),
)


def at(place: str, of: tuple[Metric, ...] | None = None) -> tuple[Metric, ...]:
    """The metrics that are shown at a place, in the order of the catalogue."""
    return tuple(metric for metric in (METRICS if of is None else of) if place in metric.places)


def get(key: str) -> Metric:
    """The entry of a metric of scored options; raises KeyError where there is none."""
    return next(metric for metric in METRICS if metric.key == key)


def computed(
    place: str = "", *, interval: bool | None = None, ordered: bool = False
) -> tuple[Metric, ...]:
    """The metrics that have a function of scored options.

    Args:
      place: only those of this place; "" for all.
      interval: only those with, or without, an interval; None for both.
      ordered: also those that need options in an order.
    """
    return tuple(
        metric
        for metric in METRICS
        if metric.function is not None
        and (not place or place in metric.places)
        and interval in (None, metric.interval)
        and (ordered or not metric.ordered)
    )


def ranked() -> tuple[Metric, ...]:
    """The metrics of scored options that hold rows against one another."""
    return tuple(metric for metric in METRICS if metric.ranked)


@functools.cache
def _functions(chosen: tuple[Metric, ...], num_bins: int, edges: str) -> Mapping[str, Callable]:
    options: dict[str, Any] = {"num_bins": num_bins, "edges": edges}
    return MappingProxyType(
        {
            metric.key: functools.partial(metric.function, **{k: options[k] for k in metric.bins})
            if metric.bins
            else metric.function
            for metric in chosen
            if metric.function is not None
        }
    )


def functions(
    place: str, num_bins: int, edges: str, *, interval: bool | None = None, ordered: bool = False
) -> Mapping[str, Callable[..., jax.Array]]:
    """key -> function with its bins set, of the metrics of ``computed``.

    The same objects for the same arguments: programs are compiled once per function object.
    """
    return _functions(computed(place, interval=interval, ordered=ordered), num_bins, edges)
