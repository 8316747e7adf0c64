"""The questions that a model answered wrongly with the most confidence."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.page.layout import States, escape, note

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

    Of equals the one that comes first. A question of a task and of one of its groups stands once.
    """
    found = []
    seen: set[tuple] = set()
    for split, scores in by_split.items():
        confidences, chosen = np.asarray(scores.confidences), np.asarray(scores.predictions)
        wrong = np.flatnonzero(chosen != np.asarray(scores.answers))
        wrong = wrong[np.argsort(-confidences[wrong], kind="stable")]
        if content.is_part(split, by_split):
            wrong = [row for row in wrong if (scores.tasks[row], scores.ids[row]) not in seen]
        for row in wrong[:limit]:
            found.append(
                Wrong(
                    split, int(row), float(confidences[row]), int(chosen[row]),
                    int(scores.answers[row]),
                )
            )  # fmt: skip
        seen |= set(zip(scores.tasks, scores.ids, strict=True))
    return sorted(found, key=lambda wrong: -wrong.confidence)[:limit]


def _name(scores: Scores, k: int) -> str:
    """An option's letter, or its name where the options are classes."""
    return content.cut(scores.classes[k], MAX_CHOICE) if scores.classes else content.option_name(k)


def _options(scores: Scores, wrong: Wrong) -> str:
    """The options, each with letter (of classes the name), text and probability.

    Without texts only the two, and of many classes the likeliest.
    """
    texts = scores.choices[wrong.row] if scores.choices else ()
    options = np.flatnonzero(np.asarray(scores.mask[wrong.row], bool))
    if scores.classes and len(options) > MAX_CLASSES:
        likeliest = np.argsort(-scores.probs[wrong.row], kind="stable")[:MAX_CLASSES]
        options = sorted({*map(int, likeliest), wrong.answer})
    items = []
    for k in options if len(texts) else (wrong.chosen, wrong.answer):
        kind = {wrong.chosen: "chosen", wrong.answer: "answer"}.get(int(k), "")
        role = {"chosen": "chosen", "answer": "right"}.get(kind, "")
        text = content.cut(texts[k], MAX_CHOICE) if k < len(texts) else ""
        name = _name(scores, int(k))
        if scores.classes:
            said = role
        else:
            said = f"{text} ({role})" if text and role else text or role
        items.append(
            f'<li class="{kind}"><b>{escape(name)}</b>'
            f"<span>{escape(said)}</span>"
            f"<em>{content.number(float(scores.probs[wrong.row, k]))}</em></li>"
        )
    return f"<ul>{''.join(items)}</ul>"


def _item(number: int, scores: Scores, wrong: Wrong) -> str:
    subject = scores.subjects[wrong.row] if scores.subjects else None
    where = [wrong.split, subject, f"id {scores.ids[wrong.row]}"]
    text = scores.questions[wrong.row] if scores.questions else ""
    question = f"<p>{escape(content.cut(text, MAX_TEXT))}</p>" if text else ""
    chosen, answer = escape(_name(scores, wrong.chosen)), escape(_name(scores, wrong.answer))
    return (
        f"<li><p><strong>{number}. chose {chosen} with confidence "
        f"{content.number(wrong.confidence)}, right is {answer}</strong></p>"
        f'<p class="where">{escape(" · ".join(filter(None, where)))}</p>'
        f"{question}{_options(scores, wrong)}</li>"
    )


def section(states: States, scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """The surest wrong answers of the last state, and folded away those of the others."""
    parts = []
    for state in reversed(list(states)):
        by_split = {
            s: scores[state][s] for s in content.ordered_splits(states) if s in states[state]
        }
        found = most_wrong(by_split)
        items = [_item(i, by_split[w.split], w) for i, w in enumerate(found, 1)]
        body = f'<ol class="wrong">{"".join(items)}</ol>' if items else "<p>None is wrong.</p>"
        if len(states) > 1:
            opened = "" if parts else " open"
            title = f"<summary>{escape(state)}: the {len(found)} surest wrong answers</summary>"
            body = f"<details{opened}>{title}{body}</details>"
        parts.append(body)
    if not any(one.questions for by_split in scores.values() for one in by_split.values()):
        parts.append(note("These predictions hold no texts, so the questions are named by id."))
    return "\n".join(parts)
