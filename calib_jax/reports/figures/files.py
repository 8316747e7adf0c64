"""Figures as PNG and SVG files in a run's folder."""

import os
import pathlib
from collections.abc import Callable, Mapping

from calib_jax.atomic import atomic_path
from calib_jax.reports.figures.canvas import Figure, png, svg


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
