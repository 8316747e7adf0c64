"""From questions to tokens: the one encoding of letters that evaluation, E-step and M-step share.

A row is the prompt alone. The answer position is the prompt's last token: the model's distribution
after it is read for the letters, and the letter's token is the target there. The letter is never
part of the input, so training and evaluation see the same tokens.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import transformers

from calib_jax.errors import UserError
from calib_jax.questions.chat import Chat
from calib_jax.questions.pairs import Pair, PairEncoder
from calib_jax.questions.prompts import DEFAULT_PROMPT, Prompt, check_template
from calib_jax.questions.record import LETTERS, Question

log = logging.getLogger(__name__)

_NO_LIMIT = 1 << 30


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


def encode_letters(
    encoder: PairEncoder, prompt: Prompt, texts: Sequence[str], counts: Sequence[int]
) -> list[list[Pair]]:
    """``PairEncoder.encode_letters`` of whole prompts, as fine-tuning and every evaluation ask it.

    Args:
      encoder: of the model's tokenizer.
      prompt: whose ``Prompt.text`` the texts are.
      texts, counts: N of each.
    """
    return encoder.encode_letters(
        texts, counts, prompt.before_target, fixed_end=prompt.fixed_end, chat=bool(prompt.chat)
    )


class Encoder:
    """Renders and tokenises questions for one model, and knows the tokens of the letters.

    Its tokens are those of ``encode_letters``, as in every evaluation; a prompt must fit, and all
    questions share the letters' tokens, or they could not be learnt in batches.

    Args:
      tokenizer: the model's own; its BOS is used everywhere or nowhere, as it does by default.
      template: the prompt, with the fields {question} and {options}.
      letter_prefix: what stands between the prompt and the letter, normally one space.
      max_length: the longest prompt in tokens that is accepted; longer ones are an error, never
        cut.
      num_options: K, the width of the masks; 26 at most.
      chat: where prompts are one turn of the user in the chat template, and nothing stands between
        them and the letter.

    Raises:
      UserError: no tokenizer, one that puts a token after every text, a template without a field,
        or a tokenizer for which a letter after the prompt is not exactly one token.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase | None,
        template: str | None = None,
        letter_prefix: str = " ",
        max_length: int = 2048,
        num_options: int = len(LETTERS),
        chat: Chat | None = None,
    ):
        self.pairs = PairEncoder(tokenizer, _NO_LIMIT)
        self.tokenizer = tokenizer
        template = DEFAULT_PROMPT if template is None else template
        check_template(template, True, "config.prompt.template")
        self.prompt = Prompt(template, True, delimiter=letter_prefix, chat=chat)
        self.max_length = max_length
        probe = Question(
            "probe", "What is 2 + 2?", ("1", "2", "3", "4"), 3, "sums", context="Sums."
        )
        texts = [self.prompt.text(probe)]
        ((*letters,),) = encode_letters(self.pairs, self.prompt, texts, [num_options])
        self.letter_ids = np.array([pair.tokens[-1] for pair in letters], np.int32)

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
        if unseen and "{context}" not in self.prompt.template:
            log.warning("%s: the prompt lacks {context}, and %d questions have one", what, unseen)
        for question in questions:
            if len(question.choices) > K:
                raise UserError(
                    f"{what}: question {question.id!r} has {len(question.choices)} options, and "
                    f"this run reads {K} letters."
                )
        tokens = tuple(self._tokens(questions, what))
        for question, ids in zip(questions, tokens, strict=True):
            if len(ids) > self.max_length:
                raise UserError(
                    f"{what}: question {question.id!r} has a prompt of {len(ids)} tokens, and the "
                    f"limit is {self.max_length}. Raise config.prompt.max_length (the model's own "
                    "limit permitting) or remove the question; prompts are never cut."
                )
        counts = np.array([len(question.choices) for question in questions], np.int32)
        return Encoded(
            questions=tuple(questions),
            tokens=tokens,
            letter_ids=self.letter_ids,
            mask=np.arange(K)[None, :] < counts[:, None],
            answers=np.array([question.answer for question in questions], np.int32),
        )

    def _tokens(self, questions: Sequence[Question], what: str) -> Iterator[np.ndarray]:
        """Every prompt's tokens; the letter after it must be the letters' own token."""
        texts = [self.prompt.text(question) for question in questions]
        if self.prompt.fixed_end:
            # One letter is enough: what follows is the same after all of them.
            for (pair,) in encode_letters(self.pairs, self.prompt, texts, [1] * len(texts)):
                yield pair.tokens[:-1]
            return
        for question, text in zip(questions, texts, strict=True):
            groups: Sequence[Sequence[Pair]] = ()
            with contextlib.suppress(UserError):
                groups = encode_letters(self.pairs, self.prompt, [text], [1])
            if not groups or groups[0][0].tokens[-1] != self.letter_ids[0]:
                raise UserError(
                    f"{what}: the prompt of question {question.id!r} ends so that the letter after "
                    "it is not one more token. Set config.prompt.template so that it ends in fixed "
                    "text, for example in 'Answer:'."
                )
            yield groups[0][0].tokens[:-1]
