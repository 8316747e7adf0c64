"""From questions to tokens: the one encoder that evaluation, E-step and M-step share.

A row is the prompt alone. The answer position is the prompt's last token: the model's distribution
after it is read for the letters, and the letter's token is the target there. The letter is never
part of the input, so training and evaluation see the same tokens.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence

import numpy as np
import transformers

from calib_jax.errors import UserError
from calib_jax.questions.prompts import DEFAULT_PROMPT, ends_in_field, render
from calib_jax.questions.record import LETTERS, Question

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Questions as tokens, with what is read after them.

    Attributes:
      questions: the questions, N of them.
      tokens: N arrays [L_i] int32, the prompts; the answer position is L_i - 1.
      letter_ids: [K] int32, the token of each option letter.
      mask: [N, K] bool, the options that a question has.
      answers: [N] int32.
    """

    questions: tuple[Question, ...]
    tokens: tuple[np.ndarray, ...]
    letter_ids: np.ndarray
    mask: np.ndarray
    answers: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def lengths(self) -> np.ndarray:
        """[N] int32, tokens in each prompt."""
        return np.array([len(t) for t in self.tokens], np.int32)

    def fingerprint(self) -> str:
        """sha256 over names, tokens, options and answers, in their order."""
        digest = hashlib.sha256(json.dumps([q.id for q in self.questions]).encode())
        for array in (self.lengths, *self.tokens, self.letter_ids, self.mask, self.answers):
            digest.update(np.asarray(array, "<i4").tobytes())
        return digest.hexdigest()


class Encoder:
    """Renders and tokenises questions for one model, and knows the tokens of the letters.

    Args:
      tokenizer: the model's own; its BOS is used everywhere or nowhere, as it does by default.
      template: the prompt, with the fields {question} and {options}.
      letter_prefix: what stands between the prompt and the letter, normally one space.
      max_length: the longest prompt in tokens that is accepted; longer ones are an error, never
        cut.
      num_options: K, the width of the masks; 26 at most.

    Raises:
      UserError: no tokenizer, a template without a field, or a tokenizer for which a letter after
        the prompt is not exactly one token.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase | None,
        template: str | None = None,
        letter_prefix: str = " ",
        max_length: int = 2048,
        num_options: int = len(LETTERS),
    ):
        if tokenizer is None:
            raise UserError(
                "the model's folder has no tokenizer files (tokenizer.json, tokenizer.model), so "
                "questions cannot be encoded; add them to the folder."
            )
        self.tokenizer = tokenizer
        self.template = DEFAULT_PROMPT if template is None else template
        for field in ("{question}", "{options}"):
            if field not in self.template:
                raise UserError(f"the prompt template {self.template!r} lacks the field {field}.")
        self.letter_prefix = letter_prefix
        self.max_length = max_length
        self.letter_ids = self._letter_ids(num_options)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text).input_ids

    def _letter_ids(self, num_options: int) -> np.ndarray:
        """Finds the token that each letter adds to a prompt; raises where it is not exactly one."""
        probe = render(Question("probe", "What is 2 + 2?", ("1", "2", "3", "4"), 3), self.template)
        before = self._ids(probe)
        ids = []
        for letter in LETTERS[:num_options]:
            after = self._ids(probe + self.letter_prefix + letter)
            if len(after) != len(before) + 1 or after[:-1] != before:
                raise UserError(
                    f"with this tokenizer the letter {letter!r} after the prompt is not one more "
                    f"token: the prompt ends in {before[-3:]}, and with {self.letter_prefix!r} + "
                    f"{letter!r} it ends in {after[-4:]}. Set config.prompt.template so that it "
                    "ends where a word can begin (for example in 'Answer:'), or "
                    "config.prompt.letter_prefix to '' when the template itself ends in a space."
                )
            ids.append(after[-1])
        if len(set(ids)) != len(ids):
            raise UserError("with this tokenizer two option letters are the same token.")
        return np.array(ids, np.int32)

    def encode(self, questions: Sequence[Question], what: str = "questions") -> Encoded:
        """Tokenises the questions.

        Args:
          questions: N questions.
          what: how messages call them, for example the split's name.

        Raises:
          UserError: a prompt longer than ``max_length``, more options than ``num_options``, or a
            prompt that ends in a question's own text which the letter would merge with.
        """
        K = len(self.letter_ids)
        unseen = sum(question.context is not None for question in questions)
        if unseen and "{context}" not in self.template:
            log.warning("%s: the prompt lacks {context}, and %d questions have one", what, unseen)
        texts = [render(question, self.template) for question in questions]
        encoded = self.tokenizer(texts).input_ids if texts else []
        if ends_in_field(self.template):
            self._check_ends(questions, texts, encoded, what)
        tokens = tuple(np.array(ids, np.int32) for ids in encoded)
        for question, ids in zip(questions, tokens, strict=True):
            if len(ids) > self.max_length:
                raise UserError(
                    f"{what}: question {question.id!r} has a prompt of {len(ids)} tokens, and the "
                    f"limit is {self.max_length}. Raise config.prompt.max_length (the model's own "
                    "limit permitting) or remove the question; prompts are never cut."
                )
            if len(question.choices) > K:
                raise UserError(
                    f"{what}: question {question.id!r} has {len(question.choices)} options, and "
                    f"this run reads {K} letters."
                )
        counts = np.array([len(question.choices) for question in questions], np.int32)
        return Encoded(
            questions=tuple(questions),
            tokens=tokens,
            letter_ids=self.letter_ids,
            mask=np.arange(K)[None, :] < counts[:, None],
            answers=np.array([question.answer for question in questions], np.int32),
        )

    def _check_ends(
        self, questions: Sequence[Question], texts: list[str], encoded: list[list[int]], what: str
    ) -> None:
        """Where a question's own text ends the prompt, its end may merge with the letter."""
        letter = self.letter_prefix + LETTERS[0]
        after = self.tokenizer([text + letter for text in texts]).input_ids if texts else []
        for question, ids, longer in zip(questions, encoded, after, strict=True):
            if longer != [*ids, int(self.letter_ids[0])]:
                raise UserError(
                    f"{what}: the prompt of question {question.id!r} ends so that the letter after "
                    "it is not one more token. Set config.prompt.template so that it ends in fixed "
                    "text, for example in 'Answer:'."
                )
