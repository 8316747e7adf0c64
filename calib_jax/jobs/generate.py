"""The job ``generate``: a model's answers to prompts, in a file that a judge reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.generation import (
    Answer,
    Generator,
    Prompt,
    Sampling,
    encode_prompts,
    load_prompts,
    stop_tokens,
)
from calib_jax.generation.answers import check_layout, write_answers
from calib_jax.models.model import open_checkpoint
from calib_jax.questions.chat import Chat
from calib_jax.reports.result import Result
from calib_jax.reports.views import generate as views
from calib_jax.runs import base_model, chat_prompt
from calib_jax.runs.generated import answer_with_journal, fingerprint
from calib_jax.runs.run import Run


def main(run: Run) -> None:
    """Answers every prompt, then writes the answer file and ``summary.json``.

    Answers are kept as they come, so a run that was stopped continues where it was; and an answer
    does not depend on which others were made with it.

    Raises:
      UserError: bad input; nothing is written then.
      Stopped: SIGTERM; the same command continues.
    """
    config, workdir, stop = run.config, run.workdir, run.stop
    # --- What is cheap to find wrong comes first --------------------------------------------------
    asked = config.generate
    check_config(config)
    settings = chat_prompt.chat_settings(config)
    sampling = Sampling(asked.temperature, asked.top_k, asked.top_p)
    prompts = load_prompts(asked.prompts, asked.size)
    name = asked.name or default_name(config.model.name, config.model.adapter)
    check_layout(asked.format, prompts, name)
    checkpoint = open_checkpoint(config.model.name, config.model.revision or None)
    if checkpoint.tokenizer is None:
        raise UserError(
            f"{checkpoint.name}: the model's folder has no tokenizer files (tokenizer.json, "
            "tokenizer.model), so prompts cannot be encoded; add them to the folder."
        )
    chat = Chat(checkpoint.tokenizer, settings) if config.prompt.chat else None
    stops = stop_tokens(checkpoint, chat)
    longest = config.prompt.max_length or checkpoint.config.max_length
    tokens = encode_prompts(checkpoint.tokenizer, prompts, chat, longest)

    # --- The model --------------------------------------------------------------------------------
    model = base_model.load(config, config.model.quantize)
    generator = Generator(
        model,
        sampling,
        max_new_tokens=asked.max_new_tokens,
        stops=list(stops),
        batch_size=asked.batch_size,
        seed=config.seed,
    )
    names = [prompt.id for prompt in prompts]
    generator.check(tokens, [f"prompt {name!r}" for name in names])
    run.claim()

    # --- Answers ----------------------------------------------------------------------------------
    header = {
        "model": model.fingerprint,
        "dtype": str(model.dtype),
        "quantize": config.model.quantize,
        "sampling": [sampling.temperature, sampling.top_k, sampling.top_p],
        "seed": config.seed,
        "max_new_tokens": asked.max_new_tokens,
        "stops": list(stops),
        "prompts": fingerprint(names, tokens),
    }
    path = workdir / "partial" / "answers.jsonl"
    found, resumed = answer_with_journal(generator, tokens, names, path, header, stop)
    if jax.process_index() != 0:
        return

    # --- Results ----------------------------------------------------------------------------------
    texts = [
        checkpoint.tokenizer.decode(
            answer.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for answer in found
    ]
    sizes = [len(answer.tokens) for answer in found]
    stopped = [answer.stopped for answer in found]
    written = write_answers(workdir, asked.format, name, prompts, texts, sizes, stopped)
    short = [generator.limit(len(one)) < generator.room for one in tokens]
    own = {
        "method": config.method,
        "model": config.model.name,
        "adapter": config.model.adapter,
        "fingerprint": model.fingerprint,
        "generator": name,
        "format": asked.format,
        "file": written.name if written.parent == workdir else f"model_answer/{written.name}",
        "source": asked.prompts,
        "columns": sorted({prompt.column for prompt in prompts}),
        "seed": config.seed,
        "sampling": {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "max_new_tokens": asked.max_new_tokens,
        },
        **({"prompt": {"chat": True, **settings.as_json()}} if chat else {}),
        "stops": {str(i): text for i, text in stops.items()},
        **counts(prompts, tokens, found, texts, short),
        "resumed_answers": resumed,
        "speed": speed(generator),
    }
    run.finish(Result(own), views.view)
    path.unlink()
    path.parent.rmdir()


def default_name(model: str, adapter: str) -> str:
    """What an answer file calls a model: the last parts of its name and of its adapter's.

    >>> default_name("owner/Model-8B", "runs/cft/export/adapter/"), default_name("offline:m", "")
    ('Model-8B+adapter', 'm')
    """
    parts = [Path(part.removeprefix("offline:")).name for part in (model, adapter) if part]
    name = "+".join(parts)
    return name[:-5] if name.lower().endswith(".gguf") else name


def counts(
    prompts: Sequence[Prompt],
    tokens: Sequence[np.ndarray],
    found: Sequence[Answer],
    texts: Sequence[str],
    short: Sequence[bool],
) -> dict[str, Any]:
    """How many answers there are, how long, and how many were cut or are empty."""
    sizes = np.array([len(answer.tokens) for answer in found])
    cut = [not answer.stopped for answer in found]
    return {
        "prompts": len(prompts),
        "prompt_tokens": int(sum(map(len, tokens))),
        "longest_prompt_tokens": max(map(len, tokens)),
        "answer_tokens": int(sizes.sum()),
        "mean_answer_tokens": float(sizes.mean()),
        "mean_answer_characters": float(np.mean([len(text) for text in texts])),
        # Of those that did not come to their end: where the model's length left less room.
        "truncated": int(sum(cut)),
        "truncated_by_model_length": int(sum(map(bool.__and__, cut, short))),
        "empty": int(sum(not text.strip() for text in texts)),
    }


def speed(generator: Generator) -> dict[str, Any]:
    """Tokens a second of every batch but those that compiled; null where there was none."""
    costs = generator.costs

    def rate(tokens: int, seconds: float) -> float | None:
        return round(tokens / seconds, 2) if seconds and tokens else None

    return {
        "prefill_tokens_per_s": rate(costs.prefill_tokens, costs.prefill_seconds),
        "decode_tokens_per_s": rate(costs.decode_tokens, costs.decode_seconds),
        "batch_size": generator.batch_size,
        "compiled_shapes": costs.compiled,
    }
