"""Splits of a training run, read by letters or by texts: one way to ask of either kind."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from calib_jax.confidence.engine import Engine
from calib_jax.confidence.letter_scores import letter_groups, score_encoded
from calib_jax.confidence.scores import Scores
from calib_jax.confidence.text_scores import EncodedTexts, score_texts
from calib_jax.questions.encoder import Encoded
from calib_jax.questions.pairs import Pair

Split: TypeAlias = Encoded | EncodedTexts


def split_groups(split: Split) -> Sequence[Sequence[Pair]]:
    """What the engine scores of a split."""
    return split.reading.groups if isinstance(split, EncodedTexts) else letter_groups(split)


def score_split(
    engine: Engine, split: Split, on_batch: Callable[[int], None] = lambda count: None
) -> Scores:
    """Scores a split as it is read; see ``letter_scores.score_encoded``."""
    if isinstance(split, EncodedTexts):
        return score_texts(engine, split, on_batch)
    return score_encoded(engine, split, on_batch)
