"""What is drawn when rows depend on each other: clusters within strata, and how few there are."""

import math
import statistics
import warnings
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.draws import Strata, group_codes, strata
from calib_jax.metrics.settings import checked_settings

# So many strata are named in a warning.
_NAMED = 5


class SmallStratum(UserWarning):
    """Strata of a single row or cluster: redrawn with replacement, they never change."""


class Units(NamedTuple):
    """What a bootstrap draws; made by ``units_of``.

    Attributes:
        plan: for ``row_counts``.
        cluster: [N] int, each row's cluster 0..G-1; None where rows are drawn.
        num_units: G clusters, or N rows.
        num_strata: how many strata they lie in.
    """

    plan: Strata
    cluster: np.ndarray | None
    num_units: int
    num_strata: int

    def level(self, level: float) -> float:
        """``expanded_level`` where clusters are drawn, else the level as it is."""
        if self.cluster is None:
            return level
        return expanded_level(level, self.num_units, self.num_strata)


def units_of(
    num_rows: int, strata_of: ArrayLike | None = None, clusters: ArrayLike | None = None
) -> Units:
    """The plan of a bootstrap over rows or clusters, within strata.

    Args:
        num_rows: N.
        strata_of: [N] int or str, or None.
        clusters: [N] int or str, or None. Where every row is a cluster of its own, rows are drawn.

    Raises:
        ValueError: another length or type, or a cluster in two strata.

    Warns:
        SmallStratum: strata of one row or one cluster.

    Example:
        >>> units = units_of(4, None, ["a", "a", "b", "b"])
        >>> units.cluster.tolist(), units.num_units
        ([0, 0, 1, 1], 2)
        >>> units_of(2, ["x", "y"], ["a", "a"])
        Traceback (most recent call last):
        ValueError: the cluster 'a' lies in the strata 'x' and 'y'; a cluster must lie in one
    """
    stratum = cluster = None
    names = np.zeros(1)
    if strata_of is not None:
        names, stratum = group_codes(strata_of, num_rows, "strata")
    count = num_rows
    if clusters is not None:
        labels, cluster = group_codes(clusters, num_rows, "clusters")
        count = len(labels)
        if stratum is not None:
            least, most = np.full(count, len(names)), np.full(count, -1)
            np.minimum.at(least, cluster, stratum)
            np.maximum.at(most, cluster, stratum)
            if (least != most).any():
                c = int(np.argmax(least != most))
                one, other, label = (x.item() for x in (names[least[c]], names[most[c]], labels[c]))
                raise ValueError(
                    f"the cluster {label!r} lies in the strata {one!r} and {other!r}; a cluster "
                    "must lie in one"
                )
        if count == num_rows:
            cluster = None
    if stratum is not None:
        in_stratum = stratum
        if cluster is not None:
            in_stratum = stratum[np.unique(cluster, return_index=True)[1]]
        _warn_of_small(names, np.bincount(in_stratum), "row" if cluster is None else "cluster")
    return Units(strata(num_rows, stratum, cluster), cluster, count, max(len(names), 1))


def _warn_of_small(names: np.ndarray, sizes: np.ndarray, what: str) -> None:
    small = [repr(name) for name in names[sizes == 1].tolist()]
    if not small:
        return
    shown = ", ".join(small[:_NAMED]) + (", ..." if len(small) > _NAMED else "")
    warnings.warn(
        f"{len(small)} of {len(sizes)} strata hold one {what} ({shown}), which every resample "
        "repeats as it is: the interval leaves out their variation and is too narrow. Merge them, "
        "or, if rows of one stratum depend on each other, give them as clusters=",
        SmallStratum,
        stacklevel=4,
    )


@checked_settings
def expanded_level(level: float, count: int, strata: int = 1) -> float:
    """The level at which quantiles over resampled clusters cover ``level``.

    Percentiles of a bootstrap over G units are those of a normal interval whose variance lacks the
    factor G/(G - 1), and whose quantile is z where Student's t is due:

        1 - 2 Phi(-sqrt(G / (G - S)) t),   t the (1 + level)/2 quantile of t(G - S)

    with S strata. A few clusters make it matter: 95 % becomes 96.8 % at G = 20 and 98.9 % at 8.
    Taking further quantiles, in place of scaling the draws, keeps what bounds a metric has.

    Source: Hesterberg 2015, What teachers should know about the bootstrap ("expanded percentile").

    Args:
        level: wanted coverage, strictly between 0 and 1.
        count: G, how many clusters are drawn.
        strata: S. With G <= S nothing is known of the variation, and the result is 1.

    Example:
        >>> round(expanded_level(0.95, 20), 4), round(expanded_level(0.95, 10_000), 4)
        (0.9682, 0.95)
    """
    # Loaded here: without clusters, scipy need not be imported.
    from scipy.special import stdtrit

    freedom = count - strata
    if freedom < 1:
        return 1.0
    t = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(count / freedom)
    return 1 - 2 * statistics.NormalDist().cdf(-t)
