"""The questions that a model answered wrongly with the most confidence."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports.states import States, is_part, ordered_splits
from calib_jax.reports.views import Block, Details, Partial, Text, note
from calib_jax.reports.words import cut, number, option_name

MOST_WRONG = 20
# Longer texts are cut, with "…", so that a long passage does not fill the page.
MAX_TEXT, MAX_CHOICE = 600, 200
# Of more classes those are shown that have the most probability, and the right one.
MAX_CLASSES = 6


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A wrong answer: where it stands, its confidence, the option chosen and the right one."""

    split: str
    row: int
    confidence: float
    chosen: int
    answer: int


def most_wrong(by_split: Mapping[str, Scores], limit: int = MOST_WRONG) -> list[Wrong]:
    """The `limit` wrong answers of the highest confidence over all splits, the surest first.

    Of equals the one that comes first. A question of a task and of one of its groups appears once.
    """
    found = []
    seen: set[tuple] = set()
    for split, scores in by_split.items():
        confidences, chosen = np.asarray(scores.confidences), np.asarray(scores.predictions)
        wrong = np.flatnonzero(chosen != np.asarray(scores.answers))
        worst = iter(wrong[np.argsort(-confidences[wrong], kind="stable")].tolist())
        if is_part(split, by_split):
            worst = (row for row in worst if (scores.tasks[row], scores.ids[row]) not in seen)
        for row in itertools.islice(worst, limit):
            found.append(
                Wrong(
                    split,
                    int(row),
                    float(confidences[row]),
                    int(chosen[row]),
                    int(scores.answers[row]),
                )
            )
        if any(is_part(other, by_split) for other in by_split):
            seen |= set(zip(scores.tasks, scores.ids, strict=True))
    return sorted(found, key=lambda wrong: -wrong.confidence)[:limit]


def _name(scores: Scores, k: int) -> str:
    """An option's letter, or its name where the options are classes."""
    return cut(scores.classes[k], MAX_CHOICE) if scores.classes else option_name(k)


def _options(scores: Scores, wrong: Wrong) -> list[dict[str, str]]:
    """The options, each with letter (of classes the name), text and probability.

    Without texts only the two, and of many classes the likeliest.
    """
    if scores.is_free:
        return []
    texts = scores.choices[wrong.row] if scores.choices else ()
    options = np.flatnonzero(np.asarray(scores.mask[wrong.row], bool)).tolist()
    if scores.classes and len(options) > MAX_CLASSES:
        likeliest = np.argsort(-scores.probs[wrong.row], kind="stable")[:MAX_CLASSES]
        options = sorted({*map(int, likeliest), wrong.answer})
    items = []
    for k in map(int, options if len(texts) else (wrong.chosen, wrong.answer)):
        kind = {wrong.chosen: "chosen", wrong.answer: "answer"}.get(k, "")
        role = {"chosen": "chosen", "answer": "right"}.get(kind, "")
        text = cut(texts[k], MAX_CHOICE) if k < len(texts) and not scores.classes else ""
        said = f"{text} ({role})" if text and role else text or role
        probability = number(float(scores.probs[wrong.row, k]))
        items.append({"kind": kind, "name": _name(scores, k), "said": said, "p": probability})
    return items


def _item(scores: Scores, wrong: Wrong) -> dict[str, Any]:
    subject = scores.subjects[wrong.row] if scores.subjects else None
    where = [wrong.split, subject, f"id {scores.ids[wrong.row]}"]
    chosen, right = _name(scores, wrong.chosen), "another answer"
    if not scores.is_free:
        right = _name(scores, wrong.answer)
    else:
        chosen = cut(scores.choices[wrong.row][0], MAX_CHOICE) if scores.choices else "an answer"
    return {
        "chosen": chosen,
        "right": right,
        "confidence": number(wrong.confidence),
        "where": " · ".join(filter(None, where)),
        "question": cut(scores.questions[wrong.row], MAX_TEXT) if scores.questions else "",
        "options": _options(scores, wrong),
    }


def blocks(states: States, scores: Mapping[str, Mapping[str, Scores]]) -> list[Block]:
    """The surest wrong answers of the last state, and folded away those of the others."""
    found: list[Block] = []
    for state in reversed(list(states)):
        by_split = {s: scores[state][s] for s in ordered_splits(states) if s in states[state]}
        items = [_item(by_split[wrong.split], wrong) for wrong in most_wrong(by_split)]
        body: Block = Partial("wrong", {"items": items}) if items else Text("None is wrong.")
        if len(states) > 1:
            title = f"{state}: the {len(items)} surest wrong answers"
            body = Details(title, [body], opened=not found)
        found.append(body)
    if not any(one.questions for by_split in scores.values() for one in by_split.values()):
        text = "These predictions hold no texts, so the questions are named by id."
        found.append(note(text))
    return found
