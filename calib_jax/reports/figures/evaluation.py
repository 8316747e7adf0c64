"""The reliability diagrams of an evaluation or a run: a row per split, a column per state."""

from collections.abc import Mapping
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures import panels
from calib_jax.reports.figures.canvas import Figure, drawn
from calib_jax.reports.figures.letters import draw_letters
from calib_jax.reports.figures.reliability import panels_of
from calib_jax.reports.remarks import has_letters
from calib_jax.reports.states import ordered_splits
from calib_jax.reports.words import DOMAINS, plural

# Of more splits the diagrams are small, without histograms and letters.
MAX_LARGE = 6


@drawn
def draw(
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
    title: str | None = None,
) -> Figure:
    """Draws the diagrams, in-domain splits first.

    Up to `MAX_LARGE` splits end in the letters chosen, unless their options are classes. The small
    diagrams of more splits stand four in a row where there is one state only.

    Args:
      states: state ("before", "after") -> split -> ROW of summary.json.
      scores: state -> split -> scores, for the bins and the histogram.
      num_bins: M bins of equal width.
      edges: "right" for (a, b], "left" for [a, b).
      title: a line above everything.
    """
    splits = ordered_splits(states)
    shown = panels_of(states, scores, num_bins, edges)
    small = len(splits) > MAX_LARGE
    if small and len(states) == 1:
        rows = panels.wrapped({split: panel for (_, split), panel in shown.items()})
        return panels.draw(rows, panels.SMALL, title or "Reliability")
    rows = []
    for split in splits:
        here = {state: shown.get((state, split)) for state in states}
        measured = {state: panel.row for state, panel in here.items() if panel is not None}
        first = next(iter(measured.values()))
        beside = None
        if not small and has_letters(measured.values()):
            beside = "letters chosen", lambda ax, by_state=measured: draw_letters(ax, by_state)
        notes = DOMAINS.get(first.get("domain", ""), ""), plural(first["n"], "question")
        rows.append(panels.Row(here, split, " · ".join(filter(None, notes)), beside))
    size = panels.SMALL if small else panels.LARGE
    return panels.draw(rows, size, title or ("Reliability" if small else ""))
