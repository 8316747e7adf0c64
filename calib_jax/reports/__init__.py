"""What a person sees of a run: progress, tables, reliability diagrams, report.html, its files.

The modules that draw and lay out are imported by name, so that a progress bar needs no matplotlib:
`from calib_jax.reports import html, predictions, reliability, summary, table`.
"""

from calib_jax.reports.progress import Progress
from calib_jax.reports.writers import MetricsWriter, read_metrics

__all__ = ["MetricsWriter", "Progress", "read_metrics"]
