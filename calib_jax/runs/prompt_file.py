"""prompt.json beside an export: what the model was asked, literally, for others to ask it too."""

import contextlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from calib_jax.errors import UserError
from calib_jax.models.model import Checkpoint
from calib_jax.questions import control
from calib_jax.questions.encoder import Encoder
from calib_jax.questions.prompts import letter_template
from calib_jax.questions.record import LETTERS, Question
from calib_jax.reports.reproduction import EXAMPLE
from calib_jax.runs import chat_prompt

# Numbers of letters that are tried, most first: not every tokenizer has a token for each.
_MOST = (len(LETTERS), 10, 5, 4, 3)
_NO_LIMIT = 1 << 30


def describe(
    config: ml_collections.ConfigDict, checkpoint: Checkpoint, summary: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What prompt.json holds.

    Args:
      config: whose prompt: that of the run, or of the export where there is no run.
      checkpoint: of the base.
      summary: of the run; None where there is none.

    Returns:
      prompt (with the fields that a question fills in, as its reader sees it), letters (what the
      model writes) and letter_ids (their tokens), add_special_tokens (whether the tokenizer adds
      them to the whole prompt), dtype (of the computation that was measured), template, chat (None,
      or what the chat template was told), and example: question, options, prompt and tokens.

    Raises:
      UserError: the tokenizer and the prompt give no letters, or the run reads texts.
    """
    if config.train.reading != "choice":
        raise UserError(
            f"the run reads options' texts (config.train.reading is {config.train.reading!r}), and "
            "prompt.json tells how letters are asked for."
        )
    prompt = config.prompt
    chat = chat_prompt.chat_of(config, checkpoint.tokenizer)
    template = letter_template(prompt) or None
    encoder = _encoder(checkpoint, template, prompt.letter_prefix, chat)
    asks = encoder.prompt
    question = Question("example", EXAMPLE[0], EXAMPLE[1], 1, subject="food", context="A passage.")
    (tokens,) = encoder.encode([question]).tokens
    text = control.unmarked(asks.text(question))
    special, bare = _how(checkpoint.tokenizer, text, tokens.tolist())
    literal = asks.literal()
    return {
        "prompt": literal.rstrip() if bare else literal,
        "letters": [asks.before_target + letter for letter in LETTERS[: len(encoder.letter_ids)]],
        "letter_ids": encoder.letter_ids.tolist(),
        "add_special_tokens": special,
        "dtype": _dtype(config, summary),
        "template": asks.template,
        "chat": chat.settings.as_json() if chat else None,
        "example": {
            "question": question.question,
            "options": list(question.choices),
            "prompt": text.rstrip() if bare else text,
            "tokens": tokens.tolist(),
        },
    }


def _encoder(checkpoint: Checkpoint, template: str | None, prefix: str, chat: Any) -> Encoder:
    """That of the run, for as many options as the tokenizer has letters for."""
    for most in _MOST[:-1]:
        with contextlib.suppress(UserError):
            return Encoder(checkpoint.tokenizer, template, prefix, _NO_LIMIT, most, chat)
    return Encoder(checkpoint.tokenizer, template, prefix, _NO_LIMIT, _MOST[-1], chat)


def _how(tokenizer: Any, text: str, tokens: list[int]) -> tuple[bool, bool]:
    """Whether the tokenizer adds special tokens, and whether white space at the end falls away."""
    for bare in (False, True):
        for special in (False, True):
            shown = text.rstrip() if bare else text
            ids = tokenizer(shown, add_special_tokens=special, verbose=False).input_ids
            if list(ids) == tokens:
                return special, bare
    raise UserError("the prompt's tokens depend on the letter that follows it.")


def _dtype(config: ml_collections.ConfigDict, summary: Mapping[str, Any] | None) -> str:
    """Of the computation, as ``load_model`` chose it where the run ran."""
    if config.model.dtype != "auto":
        return config.model.dtype
    platform = ((summary or {}).get("versions") or {}).get("platform", "cpu")
    return "float32" if platform == "cpu" else "bfloat16"
