"""The chat template of a run's prompts, and what it is told."""

import warnings
from typing import Any

import ml_collections

from calib_jax.errors import UserNotice
from calib_jax.questions.chat import Chat, ChatSettings


def chat_of(config: ml_collections.ConfigDict, tokenizer: Any) -> Chat | None:
    """The chat that prompts are put into, None without ``config.prompt.chat``.

    Raises:
      UserError: the tokenizer has no template, or it cannot be used.
    """
    if not config.prompt.chat:
        return None
    chat = Chat(tokenizer, chat_settings(config))
    if chat.opens_thoughts():
        warnings.warn(
            "the chat template begins the answer with a block of thoughts (<think>) that "
            "config.prompt.template_arguments does not end, so that options are read where the "
            "model would write its thoughts; set --config.prompt.chat=False, or the argument with "
            "which this template does not think",
            UserNotice,
            stacklevel=2,
        )
    return chat


def chat_settings(config: ml_collections.ConfigDict) -> ChatSettings:
    """What chat templates are told."""
    return ChatSettings.read(config.prompt.template_arguments, config.prompt.date)
