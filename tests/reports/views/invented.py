"""Invented figures and panels for the views' tests, and what a console shows of blocks."""

import io

import numpy as np
import rich.console

from calib_jax import metrics
from calib_jax.reports import console
from calib_jax.reports.figures.bins import Bins
from calib_jax.reports.figures.reliability import Panel


def shown(blocks, width=200):
    """What is printed."""
    out = rich.console.Console(file=io.StringIO(), width=width, highlight=False)
    console.show(blocks, out)
    return out.file.getvalue()


def row(spread=0.1, **figures):
    """Figures, each with an interval around it."""
    return figures | {f"{key}_ci": [v - spread, v + spread] for key, v in figures.items()}


def act_above(scores):
    """What a measurement says of thresholds."""
    found = metrics.act_above(scores.probs, scores.answers, scores.mask)
    return {name: column.tolist() for name, column in found._asdict().items()}


def panel(figures, num_bins=10):
    """A diagram of 50 answers, all in the bin of their mean confidence."""
    m = int(figures["mean_confidence"] * num_bins)
    bins = Bins(
        edges=np.linspace(0, 1, num_bins + 1).astype(np.float32),
        counts=np.bincount([m], minlength=num_bins) * 50,
        accuracy=np.full(num_bins, figures["accuracy"]),
        confidence=np.full(num_bins, figures["mean_confidence"]),
    )
    return Panel(figures, bins, np.full(50, figures["mean_confidence"]))
