"""Every figure of the report as PNG and SVG files in a run's folder."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.atomic import atomic_path
from calib_jax.reports.figures import (
    boxplots,
    classwise,
    curves,
    grid,
    histograms,
    reliability,
    training_log,
)
from calib_jax.reports.figures.canvas import Figure, png, svg
from calib_jax.reports.page import layout


def write(
    folder: str | os.PathLike, figures: Mapping[str, Figure | Callable[[], Figure]]
) -> list[pathlib.Path]:
    """Writes every figure as <name>.png and <name>.svg, each file atomically.

    Args:
      folder: the run's folder.
      figures: path in the folder without its ending -> the figure, or what draws it: then only one
        of them is held at a time.
    """
    written = []
    for name, figure in figures.items():
        drawn = figure() if callable(figure) else figure
        for kind, image in (("png", png(drawn, dpi=150)), ("svg", svg(drawn))):
            written.append(pathlib.Path(folder) / f"{name}.{kind}")
            with atomic_path(written[-1]) as temporary:
                temporary.write_bytes(image)
    return written


def draw_all(
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    log: Sequence[Mapping[str, Any]] = (),
    num_bins: int = 10,
    edges: str = "right",
    title: str | None = None,
) -> Iterator[tuple[str, Figure]]:
    """Yields (name, figure) of all figures; as many splits and states as the page shows.

    Arguments as in `write_figures`.
    """
    states, _ = layout.for_figures(states)
    for split in content.ordered_splits(states):
        safe = reliability.file_name(split)
        rows = {state: {split: by[split]} for state, by in states.items() if split in by}
        here = {state: scores[state][split] for state in rows}
        yield f"reliability_{safe}", reliability.draw(rows, scores, num_bins, edges, title=title)
        yield f"smooth_{safe}", curves.draw_smooth_figure(here, f"{split}: smooth reliability")
        for state, one in here.items():
            value = content.number(rows[state][split].get("cw_ece"))
            heading = f"{split}, {state}: cw-ECE {value}"
            name = f"classwise_{safe}_{reliability.file_name(state)}"
            yield name, classwise.draw(one, heading, num_bins, edges)
        yield f"histogram_{safe}", histograms.draw(here, f"{split}: confidences")
        yield f"risk_coverage_{safe}", curves.draw_risk_figure(here, f"{split}: risk and coverage")
        boxes = {state: boxplots.quantiles_of(one) for state, one in here.items()}
        yield f"boxes_{safe}", boxplots.draw(boxes, f"{split}: sorted probabilities")
    if epochs := boxplots.of_log(log):
        yield "boxes_training", boxplots.draw(epochs, "training set: sorted probabilities")
    if (course := training_log.draw(log)) is not None:
        yield "training", course


def write_figures(
    folder: str | os.PathLike,
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    log: Sequence[Mapping[str, Any]] = (),
    num_bins: int = 10,
    edges: str = "right",
    title: str | None = None,
) -> dict[str, pathlib.Path]:
    """Writes reliability*.png into `folder` and every figure to figures/<name>.png and .svg.

    Each file is written atomically. Of many splits and states figures/ holds those that the page
    shows (`page.MAX_FIGURE_SPLITS`, `page.MAX_FIGURE_STATES`). reliability*.png are of all, and
    reliability.png of many splits is a grid of small diagrams.

    Args:
      folder: the run's folder.
      states: state ("before", "after") -> split -> ROW of summary.json.
      scores: state -> split -> scores.
      log: the lines of metrics.jsonl.
      num_bins: M bins of equal width.
      edges: "right" for (a, b], "left" for [a, b).
      title: above the reliability diagrams.

    Returns:
      File name relative to `folder` -> path.
    """
    folder = pathlib.Path(folder)
    many = len(content.ordered_splits(states)) > layout.MAX_FIGURE_SPLITS
    whole = grid.draw if many else reliability.draw
    written = reliability.write(folder, states, scores, num_bins, edges, title, whole)
    paths = list(written.values())
    for name, figure in draw_all(states, scores, log, num_bins, edges, title):
        for kind, image in (("png", png(figure, dpi=150)), ("svg", svg(figure))):
            paths.append(folder / "figures" / f"{name}.{kind}")
            with atomic_path(paths[-1]) as temporary:
                temporary.write_bytes(image)
    return {path.relative_to(folder).as_posix(): path for path in paths}
