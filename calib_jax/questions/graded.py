"""Questions about an answer: is the proposed option right, and how sure is one of that?

The answer's grade is what Kapoor et al. 2024 (arXiv 2406.08391) train on, with two classes, and
what Li et al. 2025 (ConfTuner, arXiv 2508.18847) train on, with confidences for options. The words
are ours.
"""

from calib_jax.questions.record import LETTERS, Question

# Confidences from 0 % to 100 % in steps of 10 %: as many as letters name well. The paper's 101
# are numbers of one token each, which not every tokenizer has.
LEVELS = tuple(f"{10 * k} %" for k in range(11))


def grade(question: Question, proposed: int) -> Question:
    """Whether the option ``proposed`` is right: the options are "no" and "yes".

    >>> asked = grade(Question("q1", "Which is a fruit?", ["stone", "pear"], 1), 0)
    >>> asked.choices[asked.answer]
    'no'
    """
    return _about(question, proposed, "Is the proposed answer correct?", ("no", "yes"))


def grade_by_level(question: Question, proposed: int) -> Question:
    """How probable it is that ``proposed`` is right: ``LEVELS``, of which the first or the last is
    true, in an order that must be kept.

    >>> asked = grade_by_level(Question("q1", "Which is a fruit?", ["stone", "pear"], 1), 1)
    >>> asked.choices[asked.answer], len(asked.choices)
    ('100 %', 11)
    """
    return _about(question, proposed, "How probable is it that the answer is correct?", LEVELS)


def _about(question: Question, proposed: int, ask: str, choices: tuple[str, ...]) -> Question:
    if not 0 <= proposed < len(question.choices):
        raise ValueError(f"question {question.id!r} has no option {proposed}")
    options = (f"{x}. {text}" for x, text in zip(LETTERS, question.choices, strict=False))
    answer = f"Proposed answer: {LETTERS[proposed]}. {question.choices[proposed]}"
    return Question(
        id=question.id,
        question="\n".join((question.question, *options, answer, ask)),
        choices=choices,
        answer=len(choices) - 1 if proposed == question.answer else 0,
        subject=question.subject,
        task=question.task,
        context=question.context,
        group=question.group,
    )
