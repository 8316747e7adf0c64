"""What a job does to its questions before a model sees them: pure steps, and ``prepare``.

Every random choice is a hash of (seed, task, id), so it neither depends on the order of the
questions nor on which others are there, nor on the version of a random number generator.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from calib_jax.errors import UserError
from calib_jax.questions import domains, sources
from calib_jax.questions.option_order import (
    balance_answers,
    base_rates,
    seeded_hash,
    shuffle_options,
)
from calib_jax.questions.record import Question, normalised


@dataclass(frozen=True)
class Prepared:
    """Questions ready for a job; ``report`` is the ``data`` part of ``summary.json``."""

    train: list[Question]
    evals: dict[str, list[Question]]
    report: dict


def prepare(
    train_specs: Sequence[str],
    eval_specs: Sequence[str],
    train_size: int = 0,
    eval_size: int = 0,
    seed: int = 0,
    shuffle: bool = True,
    in_domain: Sequence[str] = (),
    out_of_domain: Sequence[str] = (),
    shuffle_tasks: Collection[str] = (),
    answer_base: str = "auto",
) -> Prepared:
    """Loads the splits, keeps them apart, draws the samples and shuffles the options.

    In this order: load; drop from training what occurs in a *full* evaluation split (stricter than
    the sampled one, and the same for every seed and size); drop training questions with equal
    options; sample; shuffle. The training sample is drawn last, so it has the size asked for.

    Args:
      train_specs, eval_specs: see ``sources.load``. ``train_specs`` may be empty; one that names a
        task without a split, or a divided source without a part, is its ``train``.
      train_size: questions to train on, in equal parts from each task; 0 for all; more than there
        are is an error.
      eval_size: most questions per evaluation split, 0 for all.
      seed: for sampling, shuffling and dividing.
      shuffle: whether to shuffle the options of every question, in training and evaluation.
      in_domain, out_of_domain: names of evaluation splits whose domain the user decides.
      shuffle_tasks: with ``shuffle``: of these tasks' questions alone; () for all.
      answer_base: see ``sources.load``.

    Returns:
      ``Prepared``; its report has, per split where it applies (``train`` or an evaluation's name):
      ``n``; ``removed_overlap`` (training questions found in that evaluation split) and
      ``removed_overlap_total`` (each counted once); ``domains`` (see ``domains.decide``; with
      training sources); ``skipped_duplicate_options`` (training),
      ``duplicate_options`` (kept in evaluation); ``repeated_questions`` (rows equal to an earlier
      one of the split but for the order of options; kept); ``pinned_options``, ``kept_order``;
      ``balanced_answers`` (training);
      ``answer_counts`` and ``answer_counts_as_given`` (gold letters per number of options, with and
      without the shuffle); ``seed``, ``shuffled`` (True, False, or the tasks that are).

    Raises:
      UserError: a source is bad, two splits have one name, too few questions are left, or a task
        to shuffle is not among them.
    """
    for name, specs in (("train_specs", train_specs), ("eval_specs", eval_specs)):
        if isinstance(specs, str):
            raise UserError(f"{name} is the text {specs!r}; give a list of sources")
    for name, size in (("train_size", train_size), ("eval_size", eval_size)):
        if size < 0:
            raise UserError(f"{name} is {size}; it must be 0 (all) or a number of questions")
    names = _split_names(eval_specs)
    train_specs = [sources.for_role(spec, "train") for spec in train_specs]
    train, data_sets = _load_merged(train_specs, seed, answer_base)
    full = {
        name: sources.load(spec, seed, answer_base)
        for name, spec in zip(names, eval_specs, strict=True)
    }

    removed: dict[str, Any] = {}
    skipped, total, decided = 0, 0, {}
    if train_specs:
        decided = domains.decide(
            domains.Origins.of(data_sets, (q.asked for q in train)),
            origins(eval_specs, full),
            in_domain,
            out_of_domain,
        )
        loaded = len(train)
        train, removed = remove_overlap(train, full)
        total = loaded - len(train)
        train, skipped = drop_duplicate_options(train)
        if not train:
            raise UserError(
                f"no training question is left: of {loaded}, {total} appear in an evaluation split "
                f"and {skipped} have equal options"
            )
        if train_size > len(train):
            raise UserError(
                f"train_size is {train_size}, but there are {len(train)} training questions after "
                f"{total} were removed for standing in an evaluation split and {skipped} for equal "
                "options; set 0 for all, or add a source"
            )
        train = sample_evenly(train, train_size, seed)
    evals = {name: sample(split, min(eval_size, len(split)), seed) for name, split in full.items()}

    splits = {"train": train, **evals} if train_specs else evals
    if shuffle_tasks:
        _check_shuffled(shuffle_tasks, splits, shuffle)
    report: dict[str, Any] = {
        "seed": seed,
        "shuffled": sorted(shuffle_tasks) or shuffle,
        "n": {name: len(split) for name, split in splits.items()},
        "removed_overlap": removed,
        "removed_overlap_total": total,
        "domains": decided,
        "skipped_duplicate_options": skipped,
        "duplicate_options": {
            name: sum(q.has_duplicate_choices for q in split) for name, split in evals.items()
        },
        "repeated_questions": {name: _repeats(split) for name, split in splits.items()},
        "pinned_options": {},
        "kept_order": {},
        "answer_counts_as_given": _all_base_rates(splits),
    }
    if shuffle:
        for name, split in splits.items():
            splits[name], counts = shuffle_options(split, seed, shuffle_tasks)
            report["pinned_options"][name] = counts["pinned_options"]
            report["kept_order"][name] = counts["kept_order"]
        if "train" in splits:
            splits["train"], report["balanced_answers"] = balance_answers(
                splits["train"], seed, shuffle_tasks
            )
    report["answer_counts"] = _all_base_rates(splits)
    # Ids are made unique last: they are part of the hashes above.
    train = _with_unique_ids(splits.pop("train", []))
    return Prepared(train, splits, report)


def origins(
    specs: Sequence[str], splits: Mapping[str, Sequence[Question]]
) -> dict[str, domains.Origins]:
    """Name -> what is known of the content of the whole splits, which ``specs`` name in order."""
    return {
        name: domains.Origins.of(
            (sources.data_set(spec, q) for q in split), (q.asked for q in split)
        )
        for spec, (name, split) in zip(specs, splits.items(), strict=True)
    }


def training_origins(
    specs: Sequence[str], seed: int = 0, answer_base: str = "auto"
) -> domains.Origins:
    """What is known of the content of training sources, whole; raises UserError for a bad one."""
    specs = [sources.for_role(spec, "train") for spec in specs]
    questions, data_sets = _load_merged(specs, seed, answer_base)
    return domains.Origins.of(data_sets, (q.asked for q in questions))


def sample(questions: Sequence[Question], size: int, seed: int) -> list[Question]:
    """A seeded subset of ``size`` questions (0 for all) in their own order.

    A smaller sample is part of a larger one with the same seed.

    Raises:
      UserError: there are fewer than ``size`` questions, or ``size`` is negative.
    """
    if not 0 <= size <= len(questions):
        raise UserError(f"cannot sample {size} of {len(questions)} questions; 0 takes all")
    if size == 0:
        return list(questions)
    order = sorted(
        range(len(questions)), key=lambda i: (seeded_hash(seed, questions[i], "sample"), i)
    )
    return [questions[i] for i in sorted(order[:size])]


def sample_evenly(questions: Sequence[Question], size: int, seed: int) -> list[Question]:
    """A seeded subset of ``size`` questions (0 for all), each task giving an equal part of them.

    What does not divide comes from the first tasks.

    Raises:
      UserError: a task has fewer than its part.
    """
    if size == 0:
        return list(questions)
    tasks: dict[str | None, list[Question]] = {}
    for question in questions:
        tasks.setdefault(question.task, []).append(question)
    chosen = set()
    for i, (task, members) in enumerate(tasks.items()):
        part = size // len(tasks) + (i < size % len(tasks))
        if part > len(members):
            raise UserError(
                f"train_size {size} asks for {part} questions of each of {len(tasks)} tasks, and "
                f"{task!r} has {len(members)}; ask for fewer, or set 0 for all"
            )
        if part:
            chosen |= {id(question) for question in sample(members, part, seed)}
    return [question for question in questions if id(question) in chosen]


def remove_overlap(
    train: Iterable[Question], evals: Mapping[str, Iterable[Question]]
) -> tuple[list[Question], dict[str, int]]:
    """Training questions whose normalised text stands in no evaluation split.

    Only the question's text counts, not its options, so that a reworded set of options does not
    hide a known question.

    Returns:
      The questions kept, and per split how many training questions it holds; one that stands in
      two splits is counted in both.
    """
    texts = {name: {normalised(q.asked) for q in split} for name, split in evals.items()}
    kept, counts = [], dict.fromkeys(texts, 0)
    for question in train:
        text = normalised(question.asked)
        found = [name for name, known in texts.items() if text in known]
        for name in found:
            counts[name] += 1
        if not found:
            kept.append(question)
    return kept, counts


def drop_duplicate_options(questions: Iterable[Question]) -> tuple[list[Question], int]:
    """Questions without equal options, and how many had some: their targets would be undefined."""
    questions = list(questions)
    kept = [question for question in questions if not question.has_duplicate_choices]
    return kept, len(questions) - len(kept)


def _check_shuffled(
    tasks: Collection[str], splits: Mapping[str, Sequence[Question]], shuffle: bool
) -> None:
    if not shuffle:
        raise UserError(
            f"config.data.shuffle_tasks names {', '.join(tasks)}, and config.data.shuffle_options "
            "is False: nothing would be shuffled. Set it to True, or name no task."
        )
    known = {question.task for split in splits.values() for question in split}
    if missing := [task for task in tasks if task not in known]:
        raise UserError(
            f"config.data.shuffle_tasks names {', '.join(map(repr, missing))}; the questions are "
            f"of {', '.join(sorted(map(str, known)))}. Name some of these; to shuffle none, leave "
            "it empty and set config.data.shuffle_options to False."
        )


def _split_names(specs: Sequence[str]) -> list[str]:
    names = [sources.split_name(spec) for spec in specs]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"two evaluation splits are called {name!r}: write <name>=<source>")
        if name == "train":
            raise UserError("an evaluation split cannot be called 'train': write <name>=<source>")
    return names


def _load_merged(
    specs: Sequence[str], seed: int, answer_base: str
) -> tuple[list[Question], set[str]]:
    """The questions of several sources, (task, id) unique, and the data sets that they are of.

    Sources often count their rows alike. Where an id of a task stands in an earlier source, too,
    the later question's begins with the number of its source: "2/row-1".

    Raises:
      UserError: it stands there with the same question: a source was named twice.
    """
    merged: list[Question] = []
    data_sets: set[str] = set()
    origin: dict[tuple[str | None, str], tuple[str, Question]] = {}
    for number, spec in enumerate(specs, 1):
        for question in sources.load(spec, seed, answer_base):
            data_sets.add(sources.data_set(spec, question))
            while (key := (question.task, question.id)) in origin:
                where, other = origin[key]
                if replace(other, id=question.id) == question:
                    raise UserError(
                        f"id {question.id!r} of task {question.task!r} appears in {where} and in "
                        f"{spec}, with the same question: name every source once, and give "
                        "different rows different ids"
                    )
                question = replace(question, id=f"{number}/{question.id}")
            origin[key] = spec, question
            merged.append(question)
    return merged, data_sets


def _with_unique_ids(questions: list[Question]) -> list[Question]:
    """Ids that two tasks share become ``task/id``; all of the ids if even that is not enough."""
    times = Counter(question.id for question in questions)
    renamed = [replace(q, id=f"{q.task}/{q.id}") if times[q.id] > 1 else q for q in questions]
    if len({question.id for question in renamed}) < len(renamed):
        renamed = [replace(q, id=json.dumps([q.task, q.id])) for q in questions]
    return renamed


def _repeats(questions: Iterable[Question]) -> int:
    """How many rows have the question and the options of an earlier row, in whatever order."""
    keys = Counter(
        (normalised(q.asked), tuple(sorted(map(normalised, q.choices)))) for q in questions
    )
    return sum(keys.values()) - len(keys)


def _all_base_rates(splits: Mapping[str, Iterable[Question]]) -> dict[str, dict[str, list[int]]]:
    """Base rates of each split, with text keys as JSON has them."""
    return {
        name: {str(K): counts for K, counts in base_rates(split).items()}
        for name, split in splits.items()
    }
