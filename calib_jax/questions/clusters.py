"""Which questions depend on each other: those of one passage, and repeats of one question."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np

from calib_jax.errors import UserError
from calib_jax.questions.record import Question, normalised


def named(keys: Sequence[Sequence[str] | None]) -> tuple[str | None, ...]:
    """A name per row whose key other rows have, too, None for the others; () where none has.

    The names are digests of the keys: the same in every file that holds the same texts.

    >>> a, b, c, d = named([["x"], None, ["x"], ["y"]])
    >>> a == c, b, d, named([["x"], ["y"]])
    (True, None, None, ())
    """
    texts = [None if key is None else json.dumps(key, ensure_ascii=False) for key in keys]
    counts = Counter(text for text in texts if text is not None)
    if all(count == 1 for count in counts.values()):
        return ()
    return tuple(
        hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
        if text is not None and counts[text] > 1
        else None
        for text in texts
    )


def asked_again(question: str, choices: Sequence[str]) -> list[str]:
    """The key of a question whatever the order of its options, so that permuted copies share it."""
    return ["question", normalised(question), *sorted(choices)]


def clusters_of(questions: Sequence[Question]) -> tuple[str | None, ...]:
    """The cluster of every question: its ``group``, else its passage, else its own text.

    >>> yes_no = ["yes", "no"]
    >>> on = [Question(i, f"Is it {i}?", yes_no, 0, context="A passage.") for i in ("a", "b")]
    >>> alone = Question("c", "Is it?", yes_no, 0)
    >>> first, second, third = clusters_of([*on, alone])
    >>> first == second, third
    (True, None)
    """
    return named(
        [
            ["group", q.group]
            if q.group
            else ["passage", normalised(q.context)]
            if q.context
            else asked_again(q.question, q.choices)
            for q in questions
        ]
    )


def hold_out(questions: Sequence[Question], share: float, seed: int) -> np.ndarray:
    """Which questions are held out: whole clusters, drawn until they hold the share.

    Args:
      questions: N of them.
      share: between 0 and 1.
      seed: of the draw.

    Returns:
      [N] bool.

    Raises:
      UserError: one of the two parts would be empty.

    >>> some = [Question(str(i), f"Is it {i}?", ["yes", "no"], 0) for i in range(10)]
    >>> int(hold_out(some, 0.3, seed=0).sum())
    3
    """
    names = clusters_of(questions) or (None,) * len(questions)
    keys = [("own", i) if name is None else ("shared", name) for i, name in enumerate(names)]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    member = np.array([number[key] for key in keys])
    drawn = np.random.default_rng([seed, len(questions)]).permutation(len(number))
    before = np.cumsum(np.bincount(member)[drawn]) - np.bincount(member)[drawn]
    held = np.isin(member, drawn[before < round(share * len(questions))])
    if held.all() or not held.any():
        raise UserError(
            f"a share of {share:g} cannot be held out of {len(questions)} question(s) in "
            f"{len(number)} cluster(s): one part would be empty."
        )
    return held
