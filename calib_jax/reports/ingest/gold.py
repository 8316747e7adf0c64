"""Which options a logged sample of lm-evaluation-harness calls right, checked by its own verdict.

The harness writes its target as text: an index, an option's text, a letter, a list of these, or,
where the options are contexts that share one continuation (WinoGrande), that continuation, which
names none. What it made of the row, `acc`, tells the readings apart.
"""

import ast
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.reports.ingest.places import Place
from calib_jax.reports.words import LETTERS

Right = frozenset[int]
# Metrics that the harness logs as (gold, prediction), and fields of data sets with the answer.
_PAIRED = ("f1", "mcc", "brier_score", "likelihood")
_FIELDS = ("label", "answer", "gold", "answerKey", "correct", "correct_answer", "target")
_LABEL = re.compile(r"\(?([A-Za-z]|\d{1,2})(?:[).:]|\)?$)")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One row.

    Attributes:
      row: as the file holds it.
      doc: of it, the question of the data set; empty where it is none.
      pairs: K of (context, continuation).
      shown: K, the options' texts.
      values: K log-likelihoods.
    """

    row: Mapping
    doc: Mapping
    pairs: Sequence[tuple[str, str]]
    shown: Sequence[str]
    values: Sequence[float]

    @property
    def chosen(self) -> int:
        """The likeliest option; the first of equals, as the harness has it."""
        return int(np.argmax(self.values))

    @functools.cached_property
    def verdict(self) -> float | None:
        """The harness's `acc` (`em` of tasks without it): 1 right, 0 wrong, or a share."""
        value = self.row.get("acc", self.row.get("em"))
        known = isinstance(value, (int, float)) and value == value
        return float(value) if known else None

    @property
    def is_judged(self) -> bool:
        return self.verdict in (0, 1)

    @property
    def continuations(self) -> list[str]:
        return [continuation.strip() for _, continuation in self.pairs]

    @property
    def is_shared(self) -> bool:
        """Whether the options are contexts of one continuation."""
        return len(set(self.continuations)) == 1 and len(self.pairs) > 1


def right_options(place: Place, samples: Sequence[Sample]) -> tuple[list[Right], str]:
    """The right options of every row, by the one reading of the targets that the file bears out.

    Returns:
      The right options of each of N rows, and how they were read.

    Raises:
      UserError: a target names no option, may mean two, or contradicts the harness's verdict.
    """
    if any(sample.verdict is not None and not sample.is_judged for sample in samples):
        return _by_labels(place, samples), "zeros and ones in 'doc', whose probability is 'acc'"
    readings = [[_first(order, sample) for sample in samples] for order in _orders()]
    known = [[right for right in found if right is not None] for found in readings]
    complete = [found for found in known if len(found) == len(samples)]
    if not complete:
        _unnamed(place, samples, [i for i, right in enumerate(readings[0]) if right is None])
    agreeing = [found for found in complete if all(map(_agrees, samples, found))]
    if not agreeing:
        _contradiction(place, samples, complete[0])
    best, judged = agreeing[0], all(sample.is_judged for sample in samples)
    for other in [] if judged else agreeing[1:]:
        place.refuse(
            [i for i, right in enumerate(best) if right != other[i]],
            lambda i, other=other: (  # type: ignore[misc]  # mypy infers no type of a default
                f"has the target {samples[i].row.get('target')!r}, which may mean option "
                f"{min(best[i])} or {min(other[i])} (0-based), and no 'acc' tells"
            ),
            "log the samples with the metric acc",
        )
    how = "field 'target'"
    if any(sample.is_shared for sample in samples):
        how = "'acc' or 'doc', for the target is the continuation of every option"
    return best, how + (", agreeing with 'acc' in every row" if judged else "")


def _unnamed(place: Place, samples: Sequence[Sample], bad: Sequence[int]) -> None:
    """Refuses rows whose target names no option."""
    target = {i: str(samples[i].row.get("target"))[:60] for i in bad}
    place.refuse(
        [i for i in bad if samples[i].is_shared],
        lambda i: (
            f"has the target {target[i]!r}, the continuation of all {len(samples[i].pairs)} "
            "contexts, and neither 'acc' nor a field of its 'doc' tells which of them is right"
        ),
        "log the samples with a metric that writes the answer, such as f1 or brier_score",
    )
    place.refuse(
        bad,
        lambda i: (
            f"names no option: the field 'target' is {target[i]!r}, neither the index nor the text "
            f"nor the letter of one; the options are {[text[:30] for text in samples[i].shown]}"
        ),
        "only tasks whose target is one of the options, or a list of them, have a right answer",
    )


def _agrees(sample: Sample, right: Right) -> bool:
    return not sample.is_judged or (sample.chosen in right) == bool(sample.verdict)


def _contradiction(place: Place, samples: Sequence[Sample], found: Sequence[Right]) -> None:
    place.refuse(
        [i for i, right in enumerate(found) if not _agrees(samples[i], right)],
        lambda i: (
            f"has acc {samples[i].verdict}, but option {samples[i].chosen} is the likeliest and "
            f"{', '.join(map(str, sorted(found[i])))} the target"
        ),
        "responses and target do not belong together, or the task accepts more answers than its "
        "target names (as bbq and record do): such samples do not tell which options are right",
    )


# --- Readings of one target ---------------------------------------------------------------------


def _orders() -> Iterator[tuple[Callable, ...]]:
    """Every reading first in turn, with the others where it does not apply."""
    for first in _READINGS:
        yield (first, *(reading for reading in _READINGS if reading is not first))


def _first(order: Sequence[Callable], sample: Sample) -> Right | None:
    """By the first reading that applies to each item of the target."""
    if sample.is_shared:
        return _of_shared(sample)
    found: list[int] = []
    for item in _items(sample.row.get("target")):
        named = next((k for read in order if (k := read(item, sample)) is not None), None)
        if named is None:
            return None
        found.append(named)
    if not found:
        return None
    # Of several right answers the harness leaves out those beyond the options.
    inside = [k for k in found if 0 <= k < len(sample.pairs)]
    return frozenset(inside or found)


def _items(target: Any) -> list:
    """The right answers that a target lists; a list may be written as text."""
    if isinstance(target, str) and target.strip().startswith("["):
        try:
            target = ast.literal_eval(target.strip())
        except (ValueError, SyntaxError):
            return [target]
    return list(target) if isinstance(target, (list, tuple)) else [target]


def _index(item: Any, sample: Sample) -> int | None:
    if isinstance(item, str):
        text = item.strip()
        if text in ("False", "True"):
            return int(text == "True")
        item = float(text) if re.fullmatch(r"-?\d+(\.0+)?", text) else None
    if isinstance(item, (bool, int)):
        return int(item)
    return int(item) if isinstance(item, float) and item.is_integer() else None


def _text(item: Any, sample: Sample) -> int | None:
    texts = sample.continuations
    return texts.index(str(item).strip()) if str(item).strip() in texts else None


def _shown_text(item: Any, sample: Sample) -> int | None:
    """What a letter stands for."""
    places = [k for k, text in enumerate(sample.shown) if text.strip() == str(item).strip()]
    return places[0] if len(places) == 1 else None


def _label(item: Any, sample: Sample) -> int | None:
    """ "B" or "(B)" of options that begin so, "B. Paris", or else the second option."""
    named = _LABEL.fullmatch(str(item).strip())
    if not named:
        return None
    begins = [_LABEL.match(text) for text in sample.continuations]
    labels = [found[1] if found else None for found in begins]
    if None not in labels and labels.count(named[1]) == 1:
        return labels.index(named[1])
    letter = named[1].upper()
    return LETTERS.index(letter) if letter in LETTERS[: len(sample.pairs)] else None


_READINGS = (_index, _text, _label, _shown_text)


def _of_shared(sample: Sample) -> Right | None:
    """The right context of a shared continuation, which the target does not tell.

    It is logged with a paired metric; with two options the verdict tells; else it is looked for in
    the data set's own fields.
    """
    K = len(sample.pairs)
    for name in _PAIRED:
        value = sample.row.get(name)
        if isinstance(value, list) and value and type(value[0]) is int and 0 <= value[0] < K:
            return frozenset([value[0]])
    if K == 2 and sample.is_judged:
        return frozenset([sample.chosen if sample.verdict else 1 - sample.chosen])
    for name in _FIELDS:
        value = sample.doc.get(name)
        # Numbers are indices; as text ("1", "2" of WinoGrande) they count from 1.
        if type(value) is int and 0 <= value < K:
            return frozenset([value])
        if isinstance(value, str) and value.isdecimal() and 1 <= int(value) <= K:
            return frozenset([int(value) - 1])
        if isinstance(value, str) and len(value) == 1 and value in LETTERS[:K]:
            return frozenset([LETTERS.index(value)])
        ends = [k for k, (context, _) in enumerate(sample.pairs) if context.endswith(str(value))]
        if isinstance(value, str) and value and len(ends) == 1:
            return frozenset(ends)
    return None


# --- Several right answers that no target names -------------------------------------------------


def _by_labels(place: Place, samples: Sequence[Sample]) -> list[Right]:
    """Of tasks whose `acc` is the probability of all right answers (truthfulqa_mc2).

    Their target names one at most; a list of zeros and ones in the row's `doc` marks them all, and
    is believed where it gives back `acc`.
    """
    found: list[Right | None] = []
    for sample in samples:
        shifted = np.exp(np.asarray(sample.values) - max(sample.values))
        probs = shifted / shifted.sum()
        fits = [
            right
            for right in _marked(sample.doc, len(sample.pairs))
            if sample.verdict is None or abs(probs[list(right)].sum() - sample.verdict) < 1e-4
        ]
        found.append(fits[0] if len(set(fits)) == 1 else None)
    place.refuse(
        [i for i, right in enumerate(found) if right is None],
        lambda i: (
            f"has acc {samples[i].verdict}, which is neither right nor wrong: it is the "
            "probability of several right answers together, and no list of zeros and ones in "
            "'doc' tells which they are"
        ),
        "measure the task's form with one right answer, such as truthfulqa_mc1",
    )
    return [right for right in found if right is not None]


def _marked(doc: Any, K: int) -> Iterator[Right]:
    """Every list of K zeros and ones in a document, as the places of its ones."""
    if isinstance(doc, Mapping):
        for value in doc.values():
            yield from _marked(value, K)
    elif isinstance(doc, list) and len(doc) == K and 1 in doc:
        if all(isinstance(value, (int, float)) and value in (0, 1) for value in doc):
            yield frozenset(k for k, value in enumerate(doc) if value)


def merged(place: Place, samples: Sequence[Sample], rights: Sequence[Right]):
    """One right option a row: of several the likeliest, at the place of the first.

    Right answers are interchangeable, so the first one's place takes the likeliest's log-score: the
    predicted option is right exactly where the harness says so, in every model's file the answer
    has the same index, and its text is that of all of them.

    Returns:
      (answers [N], log-scores of each row, the options' texts of each row, how many rows have
      several).

    Raises:
      UserError: every option of a row is right.
    """
    place.refuse(
        [i for i, right in enumerate(rights) if len(right) == len(samples[i].pairs)],
        lambda i: f"counts all of its {len(rights[i])} options as right",
        "where no answer is wrong there is no confidence to measure",
    )
    answers, values, shown = [], [], []
    for sample, right in zip(samples, rights, strict=True):
        answer, row, texts = min(right), list(sample.values), list(sample.shown)
        if len(right) > 1:
            likeliest = max(sorted(right), key=lambda k: row[k])
            # Not of equals: the harness takes the first, which is wrong here.
            if sample.chosen in right or row[likeliest] < max(row):
                row[answer], row[likeliest] = row[likeliest], row[answer]
            every = " / ".join(texts[k] for k in sorted(right))
            texts = [every if k in right else text for k, text in enumerate(texts)]
        answers.append(answer)
        values.append(row)
        shown.append(texts)
    return np.array(answers), values, shown, sum(len(right) > 1 for right in rights)
