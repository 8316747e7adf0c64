"""Preference pairs and demonstrations: what DPO and SFT learn from."""

import dataclasses
from collections.abc import Sequence

import transformers

from calib_jax.questions.pairs import Pair

# {"role": "system", "user" or "assistant", "content": text}
Message = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which people prefer the first.

    Attributes:
      id: unique within its source.
      prompt: plain text that the answer follows directly, or messages for the chat template.
      chosen, rejected: the answers.
      rate: P(chosen preferred to rejected), the share of people, where it is known.
      subject: a finer topic, where there is one.
      ends: whether nothing follows the answers, so that they end in EOS (or the end of a turn); a
        letter after a question's prompt does not end, as in calibration.
    """

    id: str
    prompt: str | tuple[Message, ...]
    chosen: str
    rejected: str
    rate: float | None = None
    subject: str | None = None
    ends: bool = True


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """A prompt (as in ``Preference``) and the answer to learn."""

    id: str
    prompt: str | tuple[Message, ...]
    response: str
    ends: bool = True


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What a source holds; ``report`` says what was left out and why, for ``summary.json``."""

    items: list
    report: dict


def load_preferences(
    spec: str, size: int = 0, seed: int = 0, *, template: str | None = None, prefix: str = " "
) -> Loaded:
    """The pairs of a source.

    Args:
      spec: a .jsonl, .json or .parquet file, ``hf:<owner>/<name>[:<config>]:<split>``, or
        ``questions:<source>[@rate]``.
      size: at most so many, drawn with the seed; 0 for all.
      template, prefix: of pairs made of questions: the prompt (None: the default one), and what
        stands before the letter.

    Returns:
      ``Loaded`` of ``Preference``.

    Raises:
      UserError: the source is missing or not understood, or a row is bad.
    """
    raise NotImplementedError


def encode_preference(
    tokenizer: transformers.PreTrainedTokenizerBase, item: Preference, chat: bool = True
) -> tuple[Pair, Pair]:
    """(chosen, rejected) as tokens: one prompt, the answers as targets, EOS or end of turn last.

    Args:
      tokenizer: the model's own.
      item: messages go through the chat template where the tokenizer has one; a plain text is
        followed by the answer.
      chat: False: messages as a plain transcript, whatever the tokenizer has.
    """
    raise NotImplementedError


def encode_preferences(
    tokenizer: transformers.PreTrainedTokenizerBase,
    items: Sequence[Preference],
    max_length: int,
    chat: bool = True,
) -> tuple[list[Preference], list[tuple[Pair, Pair]], int]:
    """Like ``encode_preference`` for many: those that fit ``max_length`` and their pairs, and how
    many did not fit."""
    raise NotImplementedError
