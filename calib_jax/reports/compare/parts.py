"""The parts that a comparison measures: domains, whose splits are pooled question by question."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import measure
from calib_jax.reports.compare.comparison import DOMAINS, Part


def pooled(splits: Mapping[str, Scores]) -> Scores:
    """The questions of several splits as one, padded to the most options; ids "split/id".

    Cross-fitted splits keep the numbers of their folds: the first of every split become one.
    """
    folds = [scores.folds for scores in splits.values() if scores.folds is not None]
    width = max(scores.mask.shape[1] for scores in splits.values())

    def joined(name: str, fill: Any) -> np.ndarray:
        arrays = [np.asarray(getattr(scores, name)) for scores in splits.values()]
        pads = [((0, 0), (0, width - x.shape[1])) for x in arrays]
        padded = [np.pad(x, p, constant_values=fill) for x, p in zip(arrays, pads, strict=True)]
        return np.concatenate(padded)

    return Scores(
        log_scores=joined("log_scores", -np.inf),
        probs=joined("probs", 0),
        mask=joined("mask", False),
        answers=np.concatenate([np.asarray(s.answers) for s in splits.values()]),
        ids=tuple(f"{name}/{i}" for name, s in splits.items() for i in s.ids),
        tasks=tuple(task for s in splits.values() for task in s.tasks),
        subjects=tuple(subject for s in splits.values() for subject in s.subjects),
        clusters=tuple(
            None if cluster is None else f"{name}/{cluster}"
            for name, s in splits.items()
            for cluster in s.clusters or [None] * len(s)
        ),
        folds=np.concatenate(folds) if len(folds) == len(splits) else None,
    )


def act_above(
    scores: Mapping[str, Mapping[str, Scores]],
    domains: Mapping[str, str],
    labels: Mapping[str, str],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Method's label -> "in-domain" -> n and act_above of its in-domain splits, pooled.

    Args:
      scores: method -> split -> scores, of one seed.
      domains: split -> "in" or "out"; where none is "in", all are taken.
      labels: method -> what it is called.
    """
    inside = [split for split, of in domains.items() if of == "in"] or list(domains)
    found = {}
    for method, by_split in scores.items():
        one = pooled({split: by_split[split] for split in inside})
        found[labels[method]] = {"in-domain": {"n": len(one), "act_above": measure.act_above(one)}}
    return found


def parts_of(domains: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, Part]:
    """The parts that a comparison measures; see ``Comparison``.

    >>> parts = parts_of({"a": "in", "b": "out", "c": "in"}, {"a": 2, "b": 3, "c": 5})
    >>> {name: part.questions for name, part in parts.items()}
    {'in': 7, 'out': 3, 'a': 2, 'c': 5}
    """
    parts: dict[str, Part] = {}
    singles: dict[str, Part] = {}
    for domain in DOMAINS:
        splits = tuple(split for split, of in domains.items() if of == domain)
        if splits:
            parts[domain] = Part(domain, splits, sum(sizes[split] for split in splits))
        if len(splits) > 1:
            # A split called "in" or "out" must not take a domain's place.
            singles |= {
                s if s not in DOMAINS else f"{s} (split)": Part(domain, (s,), sizes[s])
                for s in splits
            }
    return {**parts, **singles}
