"""Generated answers as a probe: what a model is asked about each, and its confidences."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence import free
from calib_jax.confidence.readout import plan_reading
from calib_jax.confidence.scores import Scores, of_confidences
from calib_jax.errors import UserError
from calib_jax.models.model import Checkpoint, Model
from calib_jax.questions.free import FreeQuestion, confidence_prompt, is_right, true_or_false
from calib_jax.questions.pairs import Pair, PairEncoder
from calib_jax.runs.probe import Asked, File, Found, Probe, scores_file

_LETTERS = "choice"  # how "True" and "False" are read


@dataclasses.dataclass(frozen=True)
class Generated:
    """A question with what a model has said to it.

    Attributes:
      question: that was asked.
      prompt: [L] int32, its tokens.
      tokens: of the greedy answer, one or more, without the one that stopped it.
      text: of the greedy answer, not blank.
      samples: texts of the drawn answers, one or more; blank ones count as different.
    """

    question: FreeQuestion
    prompt: np.ndarray
    tokens: tuple[int, ...]
    text: str
    samples: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether the greedy answer is."""
        return is_right(self.text, self.question.answers)


@dataclasses.dataclass(frozen=True)
class AnswersProbe(Probe):
    """What a model makes of its own answers, by every method of ``confidence.free``.

    Attributes:
      name: of the questions.
      answers: N of them.
    """

    name: str
    answers: Sequence[Generated]

    @property
    def file(self) -> str:
        """The name of the scores' file."""
        return f"measured-{self.name}"

    @property
    def files(self) -> Mapping[str, File]:
        return {self.file: scores_file(free.METHODS)}

    def asked(self, model: Checkpoint | Model) -> Asked:
        encoder = PairEncoder(model.tokenizer, model.config.max_length)
        keys, groups = [], []
        for one in self.answers:
            keys.append(f"sequence/{one.question.id}")
            groups.append([Pair(np.array([*one.prompt, *one.tokens], np.int32), len(one.tokens))])
        numbers = [f" {percent}" for percent in free.PERCENT]
        for one in self.answers:
            context = confidence_prompt(one.question, one.text)
            keys.append(f"verbalised/{one.question.id}")
            groups.append(encoder.encode([(context, number) for number in numbers]))
        asked = [true_or_false(one.question, one.text, self.name) for one in self.answers]
        reading = plan_reading(asked, None, (_LETTERS,), encoder)
        keys += [f"p_true/{key}" for key in reading.keys]
        groups += reading.groups
        self._check(keys, groups, encoder.max_length)
        return Asked(keys, groups, (groups, reading))

    def _check(self, keys: Sequence[str], groups: Sequence[Sequence[Pair]], limit: int) -> None:
        for key, group in zip(keys, groups, strict=True):
            if any(pair.num_cut or len(pair.tokens) > limit + 1 for pair in group):
                raise UserError(
                    f"{self.name}: {key} has a prompt that is longer than the model's {limit} "
                    "tokens. Remove the question; prompts are never cut."
                )
            if any(pair.num_targets == 0 for pair in group):
                raise UserError(
                    f"{self.name}: {key}: with this tokenizer no token is left of a number after "
                    '"Confidence:", so a stated confidence cannot be read.'
                )

    def finish(self, asked: Asked, found: Found) -> Mapping[str, Any]:
        groups, reading = asked.source
        N = len(self.answers)
        logs = [group[0].log_probs for group in found[:N]]
        values = [percent / 100 for percent in free.PERCENT]
        stated = []
        for group, scores in zip(groups[N : 2 * N], found[N : 2 * N], strict=True):
            tokens = [pair.tokens[len(pair.tokens) - pair.num_targets :] for pair in group]
            probs = free.number_probabilities(tokens, [score.log_probs for score in scores])
            stated.append(free.verbalised(probs, values))
        letters = reading.finish(found[2 * N :])[_LETTERS]
        c = {
            "length_normalised": [free.length_normalised(row) for row in logs],
            "sequence": [free.sequence_probability(row) for row in logs],
            "p_true": letters.probs[:, 0],
            "verbalised": [confidence for confidence, _ in stated],
            "self_consistency": [free.self_consistency(a.text, a.samples) for a in self.answers],
        }
        mass = {"p_true": letters.mass, "verbalised": np.array([m for _, m in stated], np.float32)}
        return {self.file: {name: self._scores(name, c[name], mass.get(name)) for name in c}}

    def _scores(self, method: str, confidences: Any, mass: np.ndarray | None) -> Scores:
        right = [one.right for one in self.answers]
        ids = tuple(one.question.id for one in self.answers)
        bad = np.flatnonzero(np.isnan(np.asarray(confidences, np.float64)))
        if len(bad):
            raise UserError(
                f"{self.name}: question {ids[bad[0]]!r} has no {method} confidence: the model's "
                "probabilities are not numbers, or it gives no probability to any number."
            )
        scores = of_confidences(
            np.clip(confidences, 0, 1),
            right,
            ids,
            method,
            tasks=(self.name,) * len(ids),
            questions=tuple(one.question.question for one in self.answers),
            choices=tuple((one.text,) for one in self.answers),
        )
        return dataclasses.replace(scores, mass=mass)
