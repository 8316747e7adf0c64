"""Several judges' scores of two answers: the rate at which the one is preferred to the other.

Judges are people, models, or the aspects that one judge has rated one by one (UltraFeedback's
instruction following, honesty, truthfulness and helpfulness). Of a single score no rate is known.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.errors import UserError

Scores = Mapping[str, float]


def scores_of(value: Any, field: str) -> dict[str, float]:
    """Judge -> score of one answer, from a number, a list or a mapping; without those not given.

    Raises:
      UserError: something else; it names the field.

    >>> scores_of({"honesty": "4", "truth": "N/A"}, "x"), scores_of([1, 2.5], "x")
    ({'honesty': 4.0}, {'0': 1.0, '1': 2.5})
    """
    if isinstance(value, Mapping):
        named = dict(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        named = {str(i): score for i, score in enumerate(value)}
    else:
        named = {"": value}
    found = {name: _number(score, field) for name, score in named.items()}
    return {name: score for name, score in found.items() if score is not None}


def _number(value: Any, field: str) -> float | None:
    if value is None or value == "N/A" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"field {field!r} holds {value!r}; expected numbers, the judges' scores")
    return number


def rate(chosen: Scores, rejected: Scores) -> float | None:
    """The share of judges who score the first higher; who scores both alike counts half for each.

    Returns:
      0 to 1, over the judges of both; None for fewer than two.

    >>> rate({"a": 5, "b": 3, "c": 2}, {"a": 4, "b": 3, "c": 4}), rate({"a": 5}, {"a": 4})
    (0.5, None)
    """
    both = [name for name in chosen if name in rejected]
    if len(both) < 2:
        return None
    wins = [
        (chosen[name] > rejected[name]) + 0.5 * (chosen[name] == rejected[name]) for name in both
    ]
    return sum(wins) / len(both)


def mean(scores: Scores) -> float:
    """Of one answer, over its judges; NaN without any."""
    return sum(scores.values()) / len(scores) if scores else math.nan


def two_of(completions: Any, asked: str) -> tuple[str, str, float | None] | None:
    """(chosen, rejected, rate) of UltraFeedback's answers to one prompt; None where none is best.

    Chosen is the answer with the highest mean rating, rejected one of those below it, drawn by a
    hash of the prompt; as in the binarised sets, but by the mean of the aspects, and not by the
    overall score, some of which are known to be wrong.

    Raises:
      UserError: a field is missing or ill-typed; it names the field.
    """
    if not isinstance(completions, Sequence) or isinstance(completions, str):
        raise UserError(f"field 'completions' must be a list, not {completions!r}")
    answers: list[tuple[str, dict[str, float]]] = []
    for number, one in enumerate(completions, 1):
        where = f"completions {number}"
        if not isinstance(one, Mapping) or not isinstance(one.get("response"), str):
            raise UserError(f"{where}: field 'response' must be text")
        aspects = one.get("annotations")
        if not isinstance(aspects, Mapping):
            raise UserError(f"{where}: field 'annotations' must hold the ratings of every aspect")
        ratings = {
            name: aspect.get("Rating")
            for name, aspect in aspects.items()
            if isinstance(aspect, Mapping)
        }
        answers.append((one["response"], scores_of(ratings, f"{where}, annotations")))
    rated = [answer for answer in answers if answer[1] and answer[0].strip()]
    if not rated:
        return None
    best = max(rated, key=lambda answer: mean(answer[1]))
    below = [answer for answer in rated if mean(answer[1]) < mean(best[1])]
    if not below:
        return None
    digest = hashlib.sha256(asked.encode()).digest()
    other = below[int.from_bytes(digest[:8], "big") % len(below)]
    return best[0], other[0], rate(best[1], other[1])


def votes(value: Any) -> tuple[float, int]:
    """HelpSteer3's people: the share who prefer the second answer, NaN of none; and their number.

    Each has a "score" from -3 (the first is much better) to 3 (the second is); 0 counts half.

    Raises:
      UserError: the field is not of this form.

    >>> votes([{"score": 2}, {"score": -1}, {"score": 0}, {"score": 3}])
    (0.625, 4)
    """
    if not isinstance(value, Sequence) or not all(isinstance(one, Mapping) for one in value):
        raise UserError("field 'individual_preference' must be a list of objects with a 'score'")
    given = scores_of([one.get("score") for one in value], "individual_preference").values()
    wins = sum((score > 0) + 0.5 * (score == 0) for score in given)
    return (wins / len(given) if given else math.nan), len(given)
