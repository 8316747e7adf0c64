"""Questions read by their options' texts: what a training run on texts learns from and measures.

The counterpart of ``questions.encoder`` and ``letter_scores``, which read letters. A question's
options stand after one context; under PMI they stand once more after nothing.
"""

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Sequence

import numpy as np
import transformers

from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.confidence.readout import Reading, plan_reading
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.questions.chat import Chat
from calib_jax.questions.pairs import Pair, PairEncoder
from calib_jax.questions.prompts import DEFAULT_CONTINUATION, Prompt, check_template
from calib_jax.questions.record import Question

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EncodedTexts:
    """Questions as tokens, with every option's text after them.

    Attributes:
      reading: by one method of texts, of N questions.
      mask: [N, K] bool, the options that a question has.
      answers: [N] int32.
    """

    reading: Reading
    mask: np.ndarray
    answers: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.reading.questions

    @property
    def method(self) -> str:
        """How confidence is read: one of ``methods.METHODS``."""
        return self.reading.methods[0]

    @functools.cached_property
    def options(self) -> list[list[Pair]]:
        """N groups: every option's text after the question."""
        return [self.reading.groups[place.continuation] for place in self.reading.places]

    @functools.cached_property
    def priors(self) -> list[list[Pair]] | None:
        """N groups: every option's text after nothing; None where the reading needs none."""
        if self.method != "continuation_pmi":
            return None
        return [self.reading.groups[place.unconditional] for place in self.reading.places]

    @functools.cached_property
    def divisors(self) -> np.ndarray:
        """[N, K] float32, what the reading divides an option's log-probability by; 1 if nothing."""
        units = {"continuation_char": "characters", "continuation_byte": "bytes"}
        counts: Sequence[Sequence[int]] = [[] for _ in self.questions]
        if self.method == "continuation_token":
            counts = [[pair.num_targets for pair in group] for group in self.options]
        elif self.method in units:
            counts = self.reading.lengths[units[self.method]]
        found = np.ones(self.mask.shape, np.float32)
        for row, lengths in zip(found, counts, strict=True):
            row[: len(lengths)] = np.maximum(lengths, 1)
        return found

    def fingerprint(self) -> str:
        """sha256 over names, the method, tokens and answers, in their order."""
        head = json.dumps([self.method, [q.id for q in self.questions]])
        digest = hashlib.sha256(head.encode())
        for group in self.reading.groups:
            for pair in group:
                digest.update(np.asarray([len(pair.tokens), pair.num_targets], "<i4").tobytes())
                digest.update(np.asarray(pair.tokens, "<i4").tobytes())
        digest.update(np.asarray(self.answers, "<i4").tobytes())
        return digest.hexdigest()


class TextEncoder:
    """Renders and tokenises questions and their options' texts for one model.

    All questions have one template, whatever task they are from, as in fine-tuning on letters.

    Args:
      tokenizer: the model's own.
      method: the reading, a ``continuation_*`` of ``methods.METHODS``.
      template: the context, with the field {question}; "" for ``DEFAULT_CONTINUATION``.
      max_length: the longest context in tokens that is accepted; longer ones are an error.
      model_length: the longest input of the model.
      num_options: K, the width of the masks.
      chat: where contexts are one turn of the user.

    Raises:
      UserError: no tokenizer, or a template without the question.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase | None,
        method: str,
        template: str = "",
        max_length: int = 2048,
        model_length: int = 2048,
        num_options: int = 2,
        chat: Chat | None = None,
    ):
        self.pairs = PairEncoder(tokenizer, model_length)
        self.tokenizer, self.method = tokenizer, method
        template = template or DEFAULT_CONTINUATION
        check_template(template, False, "config.prompt.continuation")
        self.prompt = Prompt(template, False, chat=chat)
        self.max_length, self.num_options = max_length, num_options

    def encode(self, questions: Sequence[Question], what: str = "questions") -> EncodedTexts:
        """Tokenises the questions.

        Args:
          questions: N questions.
          what: how messages call them, for example the split's name.

        Raises:
          UserError: a context longer than ``max_length``, a context and an option that are together
            longer than the model, or an option without any token.
        """
        unseen = sum(question.context is not None for question in questions)
        if unseen and "{context}" not in self.prompt.template:
            log.warning("%s: the prompt lacks {context}, and %d questions have one", what, unseen)
        reading = plan_reading(
            questions,
            None,
            (self.method,),
            self.pairs,
            chat=self.prompt.chat,
            continuation=self.prompt.template,
        )
        if len(reading.questions) < len(questions):
            raise UserError(
                f"{what}: {len(questions) - len(reading.questions)} questions have an option of "
                "which no token is left after the context, so that it has no probability. Remove "
                "them, or read letters (--config.train.reading=choice)."
            )
        counts = np.array([len(q.choices) for q in questions], np.int32)
        encoded = EncodedTexts(
            reading,
            mask=np.arange(self.num_options)[None, :] < counts[:, None],
            answers=np.array([q.answer for q in questions], np.int32),
        )
        for question, group in zip(questions, encoded.options, strict=True):
            self._check(question, group, what)
        return encoded

    def _check(self, question: Question, group: Sequence[Pair], what: str) -> None:
        length = max(len(p.tokens) - p.num_targets + p.num_cut for p in group)
        if length > self.max_length:
            raise UserError(
                f"{what}: question {question.id!r} has a prompt of {length} tokens, and the limit "
                f"is {self.max_length}. Raise config.prompt.max_length (the model's own limit "
                "permitting) or remove the question; prompts are never cut."
            )
        if any(pair.num_cut for pair in group):
            raise UserError(
                f"{what}: question {question.id!r} and one of its options have more tokens than "
                f"the {self.pairs.max_length} that the model takes. Remove the question; prompts "
                "are never cut."
            )


def score_texts(
    engine: Engine, encoded: EncodedTexts, on_batch: Callable[[int], None] = lambda count: None
) -> Scores:
    """Scores encoded questions by their options' texts; see ``letter_scores.score_encoded``."""
    reading, K = encoded.reading, encoded.mask.shape[1]
    places = [(p.continuation, p.unconditional) for p in reading.places]
    owner = {place: n for n, both in enumerate(places) for place in both if place >= 0}
    left = [sum(place >= 0 for place in both) for both in places]
    count = 0

    def on_group(group: int, scores: list[TokenScores]) -> None:
        nonlocal count
        left[owner[group]] -= 1
        count += not left[owner[group]]

    def check() -> None:
        nonlocal count
        count, done = 0, count
        on_batch(done)

    found = engine.score(
        reading.groups,
        on_group,
        check,
        lambda i: f"question {encoded.questions[owner[i]].id!r}",
    )
    scores = reading.finish(found)[encoded.method]
    # All splits of a run are as wide as the one with most options.
    extra = ((0, 0), (0, K - scores.mask.shape[1]))
    return dataclasses.replace(
        scores,
        log_scores=np.pad(scores.log_scores, extra, constant_values=-np.inf),
        probs=np.pad(scores.probs, extra),
        mask=encoded.mask,
    )
