"""What a person sees of a run: progress, tables, figures, report.html, its files.

The modules that draw and lay out are imported by name, so that a progress bar needs no matplotlib.
"""

from calib_jax.reports.progress import Progress
from calib_jax.reports.writers import MetricsWriter, open_metrics, read_metrics

__all__ = ["MetricsWriter", "Progress", "open_metrics", "read_metrics"]
