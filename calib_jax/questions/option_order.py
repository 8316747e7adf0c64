"""The order of a question's options: shuffled, evened out, and the letters' base rates.

Every random choice is a hash of (seed, task, id), so it neither depends on the order of the
questions nor on which others are there, nor on the version of a random number generator.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from calib_jax.questions.record import Question
from calib_jax.questions.references import names_options, summaries


def seeded_hash(seed: int, question: Question, *parts) -> bytes:
    """What orders questions and options: the same for a question wherever it stands."""
    key = json.dumps([int(seed), question.task, question.id, *parts])
    return hashlib.sha256(key.encode()).digest()


def shuffle_options(
    questions: Iterable[Question], seed: int, tasks: Collection[str] = ()
) -> tuple[list[Question], dict[str, int]]:
    """Permutes every question's options at random and moves ``answer`` along.

    ``tasks``: of these alone; () for all.

    A question with an option that names others by letter, number or position keeps its order. An
    option that sums up others ("all of the above", "both of these") keeps its place, and the
    options before it are permuted among themselves, as are those after it.

    Returns:
      The questions, and the counts ``pinned_options`` (options that kept their place) and
      ``kept_order`` (questions whose order was kept because of a named option).
    """
    shuffled, pinned, kept = [], 0, 0
    for question in questions:
        if tasks and question.task not in tasks:
            shuffled.append(question)
            continue
        if names_options(question.question, question.choices):
            kept += 1
            shuffled.append(question)
            continue
        fixed = summaries(question.choices)
        pinned += len(fixed)
        shuffled.append(_permuted(question, _permutation(question, fixed, seed)))
    return shuffled, {"pinned_options": pinned, "kept_order": kept}


def balance_answers(
    questions: Sequence[Question], seed: int, tasks: Collection[str] = ()
) -> tuple[list[Question], int]:
    """Evens out the right answers' letters: an uneven rest would be learnt as a preference.

    Among the questions of K options, where a letter is right more often than its share, the right
    option of some questions (the first in a seeded order) changes places with that of a letter
    which is right too seldom. Questions with an option that must keep its place are left alone, and
    so are those of other tasks than ``tasks`` (() for all).

    Returns:
      The questions, and how many were changed.
    """
    balanced, changed = list(questions), 0
    groups: dict[int, list[int]] = {}
    for i in sorted(range(len(balanced)), key=lambda i: seeded_hash(seed, balanced[i], "balance")):
        groups.setdefault(len(balanced[i].choices), []).append(i)
    for K, members in groups.items():
        counts = Counter(balanced[i].answer for i in members)
        for i in members:
            question = balanced[i]
            letter, target = question.answer, min(range(K), key=lambda k: (counts[k], k))
            if counts[letter] - counts[target] < 2 or counts[letter] <= len(members) // K:
                continue
            if summaries(question.choices) or names_options(question.question, question.choices):
                continue
            if tasks and question.task not in tasks:
                continue
            order = list(range(K))
            order[letter], order[target] = target, letter
            balanced[i] = _permuted(question, order)
            counts[letter] -= 1
            counts[target] += 1
            changed += 1
    return balanced, changed


def base_rates(questions: Iterable[Question]) -> dict[int, list[int]]:
    """How often each letter is the right one, for each number of options K: ``{K: [K counts]}``.

    >>> base_rates([Question("q", "Which?", ["this", "that"], 1)])
    {2: [0, 1]}
    """
    rates: dict[int, list[int]] = {}
    for question in questions:
        K = len(question.choices)
        rates.setdefault(K, [0] * K)[question.answer] += 1
    return dict(sorted(rates.items()))


def _permutation(question: Question, fixed: Sequence[int], seed: int) -> list[int]:
    """``order[i]`` is the old index of the option at place i."""
    K = len(question.choices)
    order: list[int] = []
    for end in (*fixed, K):
        free = range(len(order), end)
        order += sorted(free, key=lambda i: seeded_hash(seed, question, "option", i))
        if end < K:
            order.append(end)
    return order


def _permuted(question: Question, order: Sequence[int]) -> Question:
    choices = tuple(question.choices[i] for i in order)
    return replace(question, choices=choices, answer=order.index(question.answer))
