"""Preference pairs and demonstrations as tokens: one prompt, and the answers as targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import transformers

from calib_jax.errors import UserError
from calib_jax.questions.chat import ChatSettings
from calib_jax.questions.dialogue import Rendering
from calib_jax.questions.pairs import Pair, PairEncoder
from calib_jax.questions.preference_rows import Demonstration, Preference

_CHAT = ChatSettings()

Item = Preference | Demonstration


def encode_preference(
    tokenizer: transformers.PreTrainedTokenizerBase,
    item: Preference,
    chat: ChatSettings | None = _CHAT,
) -> tuple[Pair, Pair]:
    """(chosen, rejected) as tokens: one prompt, the answers as targets, EOS or end of turn last.

    Args:
      tokenizer: the model's own.
      item: messages go through the chat template where the tokenizer has one; a plain text is
        followed by the answer.
      chat: what the template is told; None: messages as a plain transcript, whatever the tokenizer
        has.

    Raises:
      UserError: no tokenizer, or a template that does not take the messages.
    """
    ((chosen, rejected),) = _encode(
        tokenizer, [item], [(item.chosen, item.rejected)], chat, max_length=1 << 30
    )
    return chosen, rejected


def encode_preferences(
    tokenizer: transformers.PreTrainedTokenizerBase,
    items: Sequence[Preference],
    max_length: int,
    chat: ChatSettings | None = _CHAT,
) -> tuple[list[Preference], list[tuple[Pair, Pair]], int]:
    """Many of them, as ``encode_preference``.

    Returns:
      The items of which both answers fit ``max_length`` tokens with their prompt, their (chosen,
      rejected), and how many items do not fit.
    """
    answers = [(item.chosen, item.rejected) for item in items]
    return _fitting(items, _encode(tokenizer, items, answers, chat, max_length), max_length)


def encode_demonstrations(
    tokenizer: transformers.PreTrainedTokenizerBase,
    items: Sequence[Demonstration],
    max_length: int,
    chat: ChatSettings | None = _CHAT,
) -> tuple[list[Demonstration], list[tuple[Pair]], int]:
    """Likewise, with groups of one: (response,)."""
    answers = [(item.response,) for item in items]
    return _fitting(items, _encode(tokenizer, items, answers, chat, max_length), max_length)


def _fitting(items: Sequence, groups: list, max_length: int) -> tuple[list, list, int]:
    fits = [max(len(pair.tokens) for pair in group) <= max_length for group in groups]
    kept = [i for i, good in enumerate(fits) if good]
    return [items[i] for i in kept], [groups[i] for i in kept], len(items) - len(kept)


def _encode(
    tokenizer: Any,
    items: Sequence[Item],
    answers: Sequence[tuple[str, ...]],
    chat: ChatSettings | None,
    max_length: int,
) -> list[tuple[Pair, ...]]:
    """The targets are the whole's tokens from the first that is not the prompt's own."""
    encoder = PairEncoder(tokenizer, max_length)
    rendering = Rendering(tokenizer, chat)
    eos = tokenizer.eos_token_id
    texts = []
    for item, some in zip(items, answers, strict=True):
        try:
            before = rendering.prompt(item.prompt)
            texts.append((before, [rendering.answer(item.prompt, a, item.ends) for a in some]))
        except UserError as error:
            raise UserError(f"{item.id!r}: {error}") from None
    ids = encoder.token_lists(
        text for before, some in texts for text in (before, *(before + a for a, _ in some))
    )
    groups = []
    for before, rendered in texts:
        group = []
        for answer, add_eos in rendered:
            whole = list(ids[before + answer])
            if add_eos and eos is not None and whole[-1:] != [eos]:
                whole.append(eos)
            head = ids[before]
            same = [a == b for a, b in zip(head, whole, strict=False)]
            start = same.index(False) if False in same else min(len(head), len(whole) - 1)
            start = max(start, 1)  # the first token is given, never predicted
            group.append(Pair(np.array(whole, np.int32), len(whole) - start))
        groups.append(tuple(group))
    return groups
