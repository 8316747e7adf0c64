"""The course of a training run, from metrics.jsonl: curves and one table row per measurement."""

from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports import catalogue
from calib_jax.reports.figures.canvas import Axes, Figure, MaxNLocator, drawn, new_figure
from calib_jax.reports.figures.style import COLOURS, CONFIDENCE, INK, MARKERS, plain_axes
from calib_jax.reports.words import number
from calib_jax.training.terms import titles

_COLOURS = (COLOURS[4], *COLOURS[:4], COLOURS[5])
_TERM_COLOURS = (INK, CONFIDENCE, COLOURS[3], COLOURS[1])
# Lines of the table on the page; a long run has thousands.
MAX_ROWS = 200
TRAINING_SET = "training set (E-step)"
COLUMNS = tuple((metric.key, metric.label) for metric in catalogue.at(catalogue.LOG))


def _measurements(log: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """(what was measured, line) of every E-step and evaluation, in the order of the file."""
    return [
        (TRAINING_SET if line["kind"] == "estep" else str(line.get("split", "held-out")), line)
        for line in log
        if line.get("kind") in ("estep", "eval")
    ]


def table(log: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: step, epoch, what was measured, and the metrics that any line holds."""
    lines = _measurements(log)
    found = [(key, label) for key, label in COLUMNS if any(key in line for _, line in lines)]
    header = ["step", "epoch", "questions of", *(label for _, label in found)]
    rows = [
        [str(line["step"]), str(line["epoch"]), name] + [number(line.get(key)) for key, _ in found]
        for name, line in lines
    ]
    return header, rows


def _style(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=11.5, color=INK, loc="left")
    ax.set_xlabel("optimiser step", fontsize=10, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    plain_axes(ax)


def _legend(ax: Axes) -> None:
    # Of lines found by themselves it would leave out a split whose name begins with "_".
    ax.legend(
        ax.lines,
        [str(line.get_label()) for line in ax.lines],
        fontsize=8.8,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(0, -0.2),
        ncols=4,
        handlelength=1.8,
        columnspacing=1.2,
        borderaxespad=0,
        labelcolor=INK,
    )


def has_curves(log: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ``draw`` has anything to draw."""
    measured = any(
        key in line for _, line in _measurements(log) for key in ("conf_ece", "accuracy")
    )
    train = [line for line in log if line.get("kind") == "train"]
    return measured or any(t.get(key) is not None for t in train for key in titles())


@drawn
def draw(log: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Curves over the optimiser's steps: conf-ECE, accuracy, and the loss terms.

    Args:
      log: the lines of metrics.jsonl. "estep" and "eval" lines give conf_ece and accuracy, "train"
        lines the loss and its terms; keys that no line holds leave their curve out.

    Returns:
      The figure, or None when there is nothing to draw.
    """
    lines = _measurements(log)
    train = [line for line in log if line.get("kind") == "train"]
    names = list(dict.fromkeys(name for name, _ in lines))
    wanted = [("conf_ece", "conf-ECE"), ("accuracy", "accuracy")]
    wanted = [(key, label) for key, label in wanted if any(key in line for _, line in lines)]
    logged = {key for line in train for key, value in line.items() if value is not None}
    terms = [(key, label) for key, label in titles().items() if key in logged]
    count = len(wanted) + bool(terms)
    if not count:
        return None

    figure = new_figure(4.0 * count, 3.7)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax, (key, label) in zip(axes, wanted, strict=False):
        for i, name in enumerate(names):
            points = [(line["step"], line[key]) for n, line in lines if n == name and key in line]
            if not points:
                continue
            # A metric that could not be computed is null in the file: a gap in the curve.
            xs, ys = zip(*((x, float("nan") if y is None else y) for x, y in points), strict=True)
            ax.plot(
                xs,
                ys,
                color=_COLOURS[i % 6],
                marker=MARKERS[i % 6],
                markersize=5,
                linestyle="--" if name == TRAINING_SET else "-",
                linewidth=1.6,
                label=name,
            )
        _style(ax, label)
        top = max((y for line in ax.lines for y in line.get_ydata() if y == y), default=1.0)
        ax.set_ylim(0, 1.08 * top or 1.0)
    if wanted:
        _legend(axes[0])  # one for all of these: it runs on beneath the next
    if terms:
        ax = axes[-1]
        for i, (key, label) in enumerate(terms):
            points = [(t["step"], t[key]) for t in train if t.get(key) is not None]
            colour = _TERM_COLOURS[i % len(_TERM_COLOURS)]
            ax.plot(*zip(*points, strict=True), color=colour, linewidth=1.3, label=label)
        _style(ax, "training loss")
        ax.set_ylim(bottom=0)
        _legend(ax)
    figure.subplots_adjust(
        left=0.5 / (4 * count), right=1 - 0.1 / (4 * count), bottom=0.27, top=0.91, wspace=0.2
    )
    return figure
