"""From a task's questions to what the engine must score, and from that to every method's scores.

reading = plan_reading(questions, task, ("choice", "continuation_sum"), encoder)
scores = reading.finish(engine.score(reading.groups))      # {"choice": Scores, ...}
"""

import dataclasses
import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from calib_jax.confidence.engine import TokenScores
from calib_jax.confidence.methods import METHODS, check_methods, confidences
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.questions.chat import Chat, control_counts
from calib_jax.questions.clusters import clusters_of
from calib_jax.questions.encoder import encode_letters
from calib_jax.questions.pairs import Pair, PairEncoder
from calib_jax.questions.prompts import (
    CONTENT_FREE,
    DEFAULT_CONTINUATION,
    DEFAULT_PROMPT,
    Prompt,
    Shots,
    check_template,
    content_free,
    rotate,
)
from calib_jax.questions.record import Question
from calib_jax.questions.tasks import Task

__all__ = ["METHODS", "Reading", "plan_reading"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where a question's scores stand among the groups; -1 and () where a method needs none.

    ``shifts`` are the groups of letters, one for each cyclic shift that is read; ``content_free``
    those of letters after prompts without content.
    """

    shifts: tuple[int, ...] = ()
    content_free: tuple[int, ...] = ()
    continuation: int = -1
    unconditional: int = -1


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is scored for a set of questions, and how it becomes their scores.

    Attributes:
      methods: those that ``finish`` returns.
      questions: those that every method can score, N of them, in the order given.
      groups: what the engine scores together: a question's options under one prompt.
      keys: a name for each group, unique, the same in every run.
      cut: id to the most context tokens that were cut at the left of one of its prompts, for the
        questions whose prompts are beyond the model.
      counts: what happened to the questions, for a summary: "questions", "scored", "skipped" by
        reason, "cut_questions", "cut_tokens", those of ``chat.control_counts``, and
        "descriptions_left_out", prompts whose chat template takes no turn of the system.
      own_contexts: whether each option has a context of its own (Winogrande).
    """

    methods: tuple[str, ...]
    questions: tuple[Question, ...]
    groups: list[list[Pair]]
    keys: list[str]
    cut: Mapping[str, int]
    counts: Mapping[str, Any]
    places: tuple[_Places, ...] = dataclasses.field(repr=False)
    lengths: Mapping[str, list[list[int]]] = dataclasses.field(repr=False)
    own_contexts: bool = False

    def finish(self, token_scores: Sequence[Sequence[TokenScores]]) -> dict[str, Scores]:
        """Every method's scores, all of the same questions.

        Args:
          token_scores: what the engine says about each of ``groups``.

        Raises:
          UserError: a log-probability that is not a number; names the question's key.
        """
        for key, group in zip(self.keys, token_scores, strict=True):
            if any(np.isnan(pair.log_probs).any() for pair in group):
                raise UserError(
                    f"{key}: the model's probabilities are not numbers (NaN). Its weights hold NaN "
                    "or infinity, or overflow in this dtype."
                )
        counts = np.array([len(q.choices) for q in self.questions], np.int32)
        K = int(counts.max(initial=2))
        mask = np.arange(K) < counts[:, None]
        arrays = {"mask": mask, **self._arrays(token_scores, K)}
        found = jax.device_get(confidences(self.methods, arrays))
        common: dict[str, Any] = {
            "mask": mask,
            "answers": np.array([q.answer for q in self.questions], np.int32),
            "ids": tuple(q.id for q in self.questions),
            "tasks": tuple(q.task for q in self.questions),
            "subjects": tuple(q.subject for q in self.questions),
            "questions": tuple(q.question for q in self.questions),
            "choices": tuple(q.choices for q in self.questions),
            "clusters": clusters_of(self.questions),
        }
        if self.own_contexts:  # probabilities after different contexts add up to nothing
            for method in self.methods:
                if method.startswith("continuation"):
                    found[method]["mass"] = None
        if "choice" in self.methods:
            read = [token_scores[places.shifts[0]][0].state for places in self.places]
            states = [state for state in read if state is not None]
            if states:
                found["choice"]["states"] = np.stack(states)
        return {m: Scores(**found[m], **common, method=m) for m in self.methods}

    def _arrays(
        self, token_scores: Sequence[Sequence[TokenScores]], K: int
    ) -> dict[str, np.ndarray]:
        """The token scores as arrays, by what they are of."""
        N = len(self.questions)
        arrays: dict[str, np.ndarray] = {}
        if any(m.startswith("choice") for m in self.methods):
            S = K if _are_permuted(self.methods) else 1
            arrays["letters"] = np.full((N, S, K), -np.inf, np.float32)
            for n, places in enumerate(self.places):
                for s, group in enumerate(places.shifts):
                    row = _last(token_scores[group])
                    arrays["letters"][n, s, : len(row)] = row
        if "choice_contextual" in self.methods:
            shape = (N, len(CONTENT_FREE), K)
            arrays["content_free"] = np.full(shape, -np.inf, np.float32)
            for n, places in enumerate(self.places):
                for c, group in enumerate(places.content_free):
                    row = _last(token_scores[group])
                    arrays["content_free"][n, c, : len(row)] = row
        if any(m.startswith("continuation") for m in self.methods):
            groups = [token_scores[p.continuation] for p in self.places]
            arrays["log_probs"], arrays["tokens"] = _padded(groups, K)
            for unit, lengths in self.lengths.items():
                arrays[unit] = np.ones((N, K), np.int32)
                for n, counts in enumerate(lengths):
                    arrays[unit][n, : len(counts)] = counts
        if "continuation_pmi" in self.methods:
            groups = [token_scores[p.unconditional] for p in self.places]
            arrays["prior_log_probs"], arrays["prior_tokens"] = _padded(groups, K)
        return arrays


def _last(group: Sequence[TokenScores]) -> list[float]:
    return [pair.log_probs[-1] for pair in group]


def _padded(groups: Sequence[Sequence[TokenScores]], K: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [N, K, T] and the mask of the tokens that exist."""
    T = max((len(pair.log_probs) for group in groups for pair in group), default=1)
    values = np.zeros((len(groups), K, max(1, T)), np.float32)
    mask = np.zeros(values.shape, bool)
    for n, group in enumerate(groups):
        for k, pair in enumerate(group):
            values[n, k, : len(pair.log_probs)] = pair.log_probs
            mask[n, k, : len(pair.log_probs)] = True
    return values, mask


def plan_reading(
    questions: Sequence[Question],
    task: Task | None,
    methods: Sequence[str],
    encoder: PairEncoder,
    *,
    shots: int = 0,
    seed: int = 0,
    chat: Chat | None = None,
    choice: str = "",
    continuation: str = "",
    letter_prefix: str = " ",
    shot_questions: Sequence[Question] = (),
) -> Reading:
    """Renders and tokenises what the methods need, each prompt once for all of them.

    A question that one of the methods cannot score (an option of which no token is left after the
    context) is left out of all of them, counted and logged.

    Args:
      questions: N questions, 2 to 26 options each.
      task: whose prompts; None for the default ones.
      methods: of ``METHODS``.
      encoder: of the model's tokenizer and length.
      shots: answered examples before every question.
      seed: of their draw; shot_questions: what they are drawn from.
      chat: in which prompts are one turn of the user; then nothing stands between prompt and
        target, and the description is the system's turn.
      choice, continuation: templates in place of the task's own and of its description.
      letter_prefix: between prompt and letter, without ``chat``.

    Raises:
      UserError: an unknown method, a template without its fields, a tokenizer for which the letters
        are not single tokens, too few examples, or a continuation that is longer than the model.
    """
    check_methods(methods)
    planner = _Planner(task, encoder, chat)
    planner.shots = Shots(
        shot_questions,
        shots,
        pick=task.shots_pick if task else "random",
        seed=seed,
        by_subject=task is not None and _is_by_subject(task),
        name=task.title if task else "examples",
    )
    if any(m.startswith("choice") for m in methods):
        template = choice or (task.choice if task else DEFAULT_PROMPT)
        check_template(template, True, "config.prompt.template" if choice else planner.name)
        description = task.description if task and not choice else ""
        prompt = Prompt(template, True, description, delimiter=letter_prefix, chat=chat)
        planner.add_letters(
            prompt,
            questions,
            permuted=_are_permuted(methods),
            contextual="choice_contextual" in methods,
        )
    if any(m.startswith("continuation") for m in methods):
        template = continuation or (task.continuation if task else DEFAULT_CONTINUATION)
        check_template(
            template, False, "config.prompt.continuation" if continuation else planner.name
        )
        description = task.continuation_description if task and not continuation else ""
        form = task.form if task else "options"
        prompt = Prompt(template, False, description, form, chat=chat)
        planner.add_texts(prompt, questions, unconditional="continuation_pmi" in methods)
    return planner.reading(tuple(methods), questions)


def _are_permuted(methods: Sequence[str]) -> bool:
    """Whether the letters are read under every shift of the options."""
    return any(method.startswith("choice_permuted") for method in methods)


def _is_by_subject(task: Task) -> bool:
    """Whether examples are of the question's subject, as where a prompt announces it."""
    texts = (task.description, task.continuation_description, task.choice, task.continuation)
    return bool(task.groups) or any("{subject}" in text for text in texts)


class _Planner:
    """Collects groups, and where each question's are."""

    shots: Shots

    def __init__(self, task: Task | None, encoder: PairEncoder, chat: Chat | None):
        self.encoder, self.chat = encoder, chat
        self.name = task.name if task else "questions"
        self.own_contexts = task is not None and task.form == "contexts"
        self.keys: list[str] = []
        self.groups: list[list[Pair]] = []
        self.places: dict[int, dict[str, Any]] = {}
        self.lengths: dict[str, list[list[int]]] = {"characters": [], "bytes": []}
        self.left_out = 0

    def _whole(self, prompt: Prompt, question: Question, context: str) -> str:
        """Description, examples and one context: all that stands before the target."""
        if self.chat and not self.chat.has_system and prompt.described(question):
            self.left_out += 1
        return prompt.text(question, context, self.shots.of(question))

    def _add(self, key: str, group: list[Pair]) -> int:
        self.keys.append(f"{self.name}/{key}")
        self.groups.append(group)
        return len(self.groups) - 1

    def add_letters(
        self, prompt: Prompt, questions: Sequence[Question], permuted: bool, contextual: bool
    ) -> None:
        """The letters after every question: as given, shifted, and without content."""
        names = _names(questions)
        units: dict[str, tuple[str, int]] = {}  # key to context and number of letters
        for n, question in enumerate(questions):
            K = len(question.choices)
            shifts = []
            for shift in range(K if permuted else 1):
                key = f"choice/{names[n]}" + (f"/shift{shift}" if shift else "")
                context = prompt.contexts(rotate(question, shift))[0]
                units[key] = self._whole(prompt, question, context), K
                shifts.append(key)
            free = []
            for filler in CONTENT_FREE if contextual else ():
                context = content_free(question, prompt.template, filler)
                context = self._whole(prompt, question, context)
                # Many questions have the same one; its name is what is in it.
                digest = hashlib.sha256(context.encode()).hexdigest()[:16]
                key = f"content_free/{digest}-{K}"
                units[key] = context, K
                free.append(key)
            self.places.setdefault(n, {}).update(shifts=shifts, content_free=free)
        texts, counts = [text for text, _ in units.values()], [K for _, K in units.values()]
        pairs = encode_letters(self.encoder, prompt, texts, counts)
        added = {key: self._add(key, group) for key, group in zip(units, pairs, strict=True)}
        for places in self.places.values():
            for kind in ("shifts", "content_free"):
                places[kind] = tuple(added[key] for key in places[kind])

    def add_texts(self, prompt: Prompt, questions: Sequence[Question], unconditional: bool) -> None:
        """The options' texts after every question, and after nothing."""
        names, delimiter = _names(questions), prompt.before_target
        keys, pairs = [], []
        for n, question in enumerate(questions):
            targets = prompt.targets(question)
            contexts = prompt.contexts(question)
            if len(set(contexts)) == 1:
                contexts = [self._whole(prompt, question, contexts[0])] * len(contexts)
            else:
                contexts = [self._whole(prompt, question, context) for context in contexts]
            ends = [delimiter + (self.chat.text(t) if self.chat else t) for t in targets]
            keys.append((n, "continuation", f"continuation/{names[n]}"))
            pairs.append(list(zip(contexts, ends, strict=True)))
            if unconditional:
                keys.append((n, "unconditional", f"unconditional/{names[n]}"))
                pairs.append([("", end) for end in ends])
            self.lengths["characters"].append([len(text) for text in targets])
            self.lengths["bytes"].append([len(text.encode()) for text in targets])
        labels = [
            f"question {questions[n].id!r}"
            for (n, _, _), group in zip(keys, pairs, strict=True)
            for _ in group
        ]
        encoded = iter(self.encoder.encode([pair for group in pairs for pair in group], labels))
        for (n, kind, key), group in zip(keys, pairs, strict=True):
            place = self._add(key, [next(encoded) for _ in group])
            self.places.setdefault(n, {})[kind] = place

    def reading(self, methods: tuple[str, ...], questions: Sequence[Question]) -> Reading:
        """Leaves out what cannot be scored, and counts."""
        empty, cut = [], {}
        for n, question in enumerate(questions):
            mine = [self.groups[i] for i in _groups_of(self.places[n])]
            if any(pair.num_targets == 0 for group in mine for pair in group):
                empty.append(n)
            elif tokens := max(pair.num_cut for group in mine for pair in group):
                cut[question.id] = tokens
        if empty:
            log.warning(
                "%s: %d questions are left out: an option has no token after its context: %s",
                self.name,
                len(empty),
                ", ".join(questions[n].id for n in empty),
            )
        kept = [n for n in range(len(questions)) if n not in set(empty)]
        used = sorted({i for n in kept for i in _groups_of(self.places[n])})
        place = {old: new for new, old in enumerate(used)}
        counts = {
            "questions": len(questions),
            "scored": len(kept),
            "skipped": {"empty_continuation": len(empty)} if empty else {},
            "cut_questions": len(cut),
            "cut_tokens": sum(cut.values()),
            **control_counts(questions, self.encoder.tokenizer, self.chat),
            **({"descriptions_left_out": self.left_out} if self.left_out else {}),
        }
        return Reading(
            methods=methods,
            questions=tuple(questions[n] for n in kept),
            groups=[self.groups[i] for i in used],
            keys=[self.keys[i] for i in used],
            cut=cut,
            counts=counts,
            places=tuple(_moved(self.places[n], place) for n in kept),
            lengths={unit: [r[n] for n in kept] if r else [] for unit, r in self.lengths.items()},
            own_contexts=self.own_contexts,
        )


def _names(questions: Sequence[Question]) -> list[str]:
    """The questions' ids; where one stands again it is numbered."""
    seen: Counter[str] = Counter()
    names = []
    for question in questions:
        count = seen[question.id] = seen[question.id] + 1
        names.append(question.id if count == 1 else f"{question.id}#{count}")
    return names


def _groups_of(places: Mapping[str, Any]) -> list[int]:
    single = [places[kind] for kind in ("continuation", "unconditional") if kind in places]
    return [*places.get("shifts", ()), *places.get("content_free", ()), *single]


def _moved(places: Mapping[str, Any], place: Mapping[int, int]) -> _Places:
    moved: dict[str, Any] = {
        kind: tuple(place[i] for i in at) if isinstance(at, tuple) else place[at]
        for kind, at in places.items()
    }
    return _Places(**moved)
