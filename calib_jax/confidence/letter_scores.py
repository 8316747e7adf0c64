"""Encoded questions read by their letters: what evaluation before and after training and the
E-step share."""

from collections.abc import Callable

import numpy as np

from calib_jax.confidence.choice import renormalise
from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.confidence.scores import Scores
from calib_jax.questions.clusters import clusters_of
from calib_jax.questions.encoder import Encoded
from calib_jax.questions.pairs import Pair


def letter_groups(encoded: Encoded) -> list[list[Pair]]:
    """What the engine scores: every question's prompt with each of its letters after it."""
    return [
        [Pair(np.append(tokens, letter), 1) for letter in encoded.letter_ids[: mask.sum()]]
        for tokens, mask in zip(encoded.tokens, encoded.mask, strict=True)
    ]


def score_encoded(
    engine: Engine, encoded: Encoded, on_batch: Callable[[int], None] = lambda count: None
) -> Scores:
    """Scores encoded questions by their letters.

    Args:
      engine: of the model; the scores hold its states where it keeps them.
      encoded: N questions.
      on_batch: called after every batch with the number of questions that it held, for progress
        and for a stop in between.

    Returns:
      Scores in the order of ``encoded``; float32 whatever the weights.

    Raises:
      UserError: a token outside the model's vocabulary, or a probability that is not a number.
    """
    log_scores = np.full(encoded.mask.shape, -np.inf, np.float32)
    D = engine.decoder.config.hidden_size
    states = np.zeros((len(encoded), D), np.float32) if engine.states else None
    count = 0

    def on_group(i: int, scores: list[TokenScores]) -> None:
        nonlocal count
        log_scores[i, : len(scores)] = [float(score.log_probs[0]) for score in scores]
        if states is not None:
            states[i] = scores[0].state
        count += 1

    def check() -> None:
        nonlocal count
        count, done = 0, count
        on_batch(done)

    questions = encoded.questions
    groups = letter_groups(encoded)
    engine.score(groups, on_group, check, lambda i: f"question {questions[i].id!r}")
    probs = np.asarray(renormalise(log_scores, encoded.mask)) if len(encoded) else log_scores
    return Scores(
        log_scores=log_scores,
        probs=probs,
        mask=encoded.mask,
        answers=encoded.answers,
        ids=tuple(q.id for q in questions),
        tasks=tuple(q.task for q in questions),
        subjects=tuple(q.subject for q in questions),
        method="choice",
        questions=tuple(q.question for q in questions),
        choices=tuple(q.choices for q in questions),
        clusters=clusters_of(questions),
        mass=np.exp(log_scores).sum(axis=1, dtype=np.float32),
        states=states,
    )
