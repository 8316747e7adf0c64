"""The job ``answers``: free answers, and how well a model knows which of them are right."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax

from calib_jax.atomic import write_text
from calib_jax.confidence import free
from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.generation import Answer, Generator, Prompt, Sampling, encode_prompts, stop_tokens
from calib_jax.generation.stops import line_ends
from calib_jax.models.model import Model, open_checkpoint
from calib_jax.questions.free import PACKAGED, FreeQuestion, answer_prompt, load_free, true_or_false
from calib_jax.questions.sources import split_name
from calib_jax.runs import base_model, results, score
from calib_jax.runs.free import AnswersProbe, Generated
from calib_jax.runs.generated import answer_with_journal, fingerprint
from calib_jax.runs.run import Run

ROWS, TRUE_OR_FALSE = "answers.jsonl", "p_true.jsonl"


def main(run: Run) -> None:
    """Answers every question greedily and by samples, grades, reads the confidences, measures.

    Answers are kept as they come, so a run that was stopped continues where it was.

    Raises:
      UserError: bad input; nothing is written then.
      Stopped: SIGTERM; the same command continues.
    """
    config, asked = run.config, run.config.answers
    # --- Questions, then model, then tokens: what is cheap to find wrong comes first --------------
    check_config(config)
    if jax.process_count() > 1:
        raise UserError("the job answers runs in one process. Start it on one host.")
    every = load_free(asked.source)
    questions = sample(every, asked.size, config.seed)
    name = asked.source if asked.source in PACKAGED else split_name(asked.source)
    checkpoint = open_checkpoint(config.model.name, config.model.revision or None)
    prompts = [_prompt(question) for question in questions]
    tokens = encode_prompts(checkpoint.tokenizer, prompts, None, checkpoint.config.max_length)
    stops = sorted({*stop_tokens(checkpoint), *line_ends(checkpoint)})
    model = base_model.load(config, config.model.quantize)
    run.claim()

    # --- Answers ----------------------------------------------------------------------------------
    ids = [question.id for question in questions]
    greedy = _answers(run, model, "greedy", tokens, ids, stops, Sampling(), 1)
    drawn = _answers(
        run,
        model,
        "samples",
        [row for row in tokens for _ in range(asked.samples)],
        [f"{one}#{k}" for one in ids for k in range(asked.samples)],
        stops,
        Sampling(asked.temperature),
        asked.samples,
    )

    def text(answer: Answer) -> str:
        decoded = checkpoint.tokenizer.decode(answer.tokens, skip_special_tokens=True)
        return str(decoded).strip()

    generated, empty, cut = [], 0, 0
    for i, (question, prompt, answer) in enumerate(zip(questions, tokens, greedy, strict=True)):
        samples = drawn[i * asked.samples : (i + 1) * asked.samples]
        said = text(answer)
        if not said:
            empty += 1
            continue
        cut += not answer.stopped
        generated.append(
            Generated(question, prompt, answer.tokens, said, tuple(map(text, samples)))
        )
    if not generated:
        raise UserError(
            f"{config.model.name}: all {len(questions)} answers are empty, so there is nothing to "
            "measure."
        )

    # --- Confidences ------------------------------------------------------------------------------
    probe = AnswersProbe(name, generated)
    given = {probe.name: probe.asked(model)}
    found = score.ask(config, model, [probe], given, run.workdir, run.stop.check)[probe.file]

    # --- Results ----------------------------------------------------------------------------------
    write_text(run.workdir / ROWS, _lines(rows(generated, found)))
    items = [true_or_false(one.question, one.text, name) for one in generated]
    write_text(run.workdir / TRUE_OR_FALSE, _lines(_question(item) for item in items))
    own = {
        "method": config.method,
        "model": config.model.name,
        "fingerprint": model.fingerprint,
        "data": {
            "source": asked.source,
            "questions": len(every),
            "asked": len(questions),
            "answered": len(generated),
            "empty": empty,
            "cut_at_max_new_tokens": cut,
            "samples": asked.samples,
            "temperature": asked.temperature,
            "max_new_tokens": asked.max_new_tokens,
            "seed": config.seed,
        },
    }
    results.finish(
        run,
        {method: {name: found[method]} for method in free.METHODS},
        {name: ""},
        own,
        title=config.model.name.removeprefix("offline:"),
        by_reading=True,
    )
    for kind in ("greedy", "samples"):
        (run.workdir / "partial" / f"{kind}.jsonl").unlink()
    (run.workdir / "partial").rmdir()


def sample(questions: Sequence[FreeQuestion], size: int, seed: int) -> list[FreeQuestion]:
    """At most ``size`` questions (0: all) in their order, chosen by a hash of seed and id.

    A smaller sample is part of a larger one with the same seed.
    """
    if not size or size >= len(questions):
        return list(questions)

    def place(i: int) -> tuple[str, int]:
        return hashlib.sha256(f"{seed}/{questions[i].id}".encode()).hexdigest(), i

    return [questions[i] for i in sorted(sorted(range(len(questions)), key=place)[:size])]


def rows(generated: Sequence[Generated], found: Any) -> list[dict[str, Any]]:
    """A row per answer, as the job ``report`` reads it: "correct", and a confidence per method."""
    return [
        {
            "id": one.question.id,
            "question": one.question.question,
            "output": one.text,
            "samples": list(one.samples),
            "correct": one.right,
            **{f"confidence_{method}": float(found[method].probs[i, 0]) for method in found},
        }
        for i, one in enumerate(generated)
    ]


def _prompt(question: FreeQuestion) -> Prompt:
    message = {"role": "user", "content": answer_prompt(question)}
    return Prompt(question.id, (message,), {}, "question")


def _question(item: Any) -> dict[str, Any]:
    """A row that ``finetune`` takes as a source of questions."""
    return {
        "id": item.id,
        "question": item.question,
        "choices": list(item.choices),
        "answer": item.answer,
    }


def _lines(found: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


def _answers(
    run: Run,
    model: Model,
    kind: str,
    prompts: Sequence[Any],
    names: Sequence[str],
    stops: Sequence[int],
    sampling: Sampling,
    copies: int,
) -> list[Answer]:
    """Answers of one kind, with their journal in ``partial/<kind>.jsonl``."""
    asked = run.config.answers
    generator = Generator(
        model,
        sampling,
        max_new_tokens=asked.max_new_tokens,
        stops=stops,
        batch_size=max(1, asked.batch_size // copies),
        seed=run.config.seed,
        copies=copies,
    )
    generator.check(prompts, [f"question {name!r}" for name in names])
    header = {
        "model": model.fingerprint,
        "dtype": str(model.dtype),
        "quantize": run.config.model.quantize,
        "temperature": sampling.temperature,
        "seed": run.config.seed,
        "max_new_tokens": asked.max_new_tokens,
        "prompts": fingerprint(names, prompts),
    }
    path = run.workdir / "partial" / f"{kind}.jsonl"
    return answer_with_journal(generator, prompts, names, path, header, run.stop, kind)[0]
