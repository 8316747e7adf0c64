"""lm-evaluation-harness drives our models: the model type "calib_jax" (extra ``lm-eval``).

    pip install "calib_jax[lm-eval]"
    python -m calib_jax.harness run --model calib_jax \
        --model_args pretrained=HuggingFaceTB/SmolLM2-135M-Instruct,dtype=float32 \
        --tasks arc_easy,hellaswag

Version 0.4.13 of the harness learns of other people's models only when their module is imported,
and its own command has no option for that. So this command imports, then hands over to the
harness's: all its subcommands and options hold. In Python, import this module before
``lm_eval.simple_evaluate(model="calib_jax", model_args={"pretrained": ...})``.

It drives log-likelihood tasks: multiple choice, log-likelihood and perplexity of whole texts.
Tasks that generate (``generate_until``) are refused with one message.

Log-likelihoods are those of the harness's hf backend to rounding, with ``logits_cache=False``:
its cache gathers the wrong places where the same tokens are divided into context and continuation
in two ways. Under ``--apply_chat_template`` they are those of ``enable_thinking=False`` there, with
a stated date where a template asks for today's; and control tokens in a document's text are
control tokens, as there.
"""

import dataclasses
import functools
import json
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from calib_jax.api import load_model
from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.errors import UserError, UserNotice
from calib_jax.models.model import Model
from calib_jax.questions.chat import DATE, Chat, ChatSettings
from calib_jax.questions.pairs import Pair, PairEncoder

try:
    # Before ours: the harness registers its own models only where there are none so far.
    import lm_eval.models  # noqa: F401
    from lm_eval import utils as lm_eval_utils
    from lm_eval.api.model import LM, TemplateLM
    from lm_eval.api.registry import register_model
    from tqdm import tqdm
except ModuleNotFoundError:  # said when the adapter is used: importing this module is harmless
    lm_eval_utils, LM = None, object

    def register_model(*names: str):
        return lambda cls: cls


if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


def _check_installed() -> None:
    if lm_eval_utils is None:
        raise UserError(
            "the adapter for lm-evaluation-harness needs the package lm-eval. Run: "
            'pip install "calib_jax[lm-eval]"'
        )


@register_model("calib_jax")
class CalibJaxLM(LM):
    """One of our models behind the harness's interface.

    Args:
      pretrained: what ``load_model`` takes (a folder, a ``.gguf`` file, a hub id,
        ``offline:smollm2-135m-instruct``), or a model that it returned.
      dtype: "float32" or "bfloat16"; "auto" for float32 on a CPU and bfloat16 elsewhere.
      revision, adapter, quantize, attention: as for ``load_model``.
      max_length: of an input, in tokens; None for the model's own.
      token_budget: tokens of a batch; 0 for the engine's choice.
      enable_thinking, chat_template_args: what the chat template is told beside the messages, as of
        the hf backend; it is not to think unless one of them says so.
      chat_date: what it is told where it asks for today's date.
      batch_size, max_batch_size: the harness passes them; batches are made by tokens, and no
        result depends on them.
      device: only checked, since JAX has chosen. "cuda:0" is what the harness passes where its user
        said nothing, so that says nothing here.

    Raises:
      UserError: lm-eval is not installed, an argument is unknown or wrong, or the model cannot be
        loaded.
    """

    def __init__(
        self,
        pretrained: str | Model = "",
        dtype: str = "auto",
        revision: str | None = None,
        adapter: str | None = None,
        quantize: str | None = None,
        attention: str = "auto",
        max_length: int | None = None,
        token_budget: int = 0,
        enable_thinking: bool | None = None,
        chat_template_args: dict[str, Any] | str | None = None,
        chat_date: str = DATE,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ):
        _check_installed()
        super().__init__()
        if unknown:
            raise UserError(
                f"model_args {', '.join(sorted(unknown))}: not known to the model type "
                "'calib_jax'. There is pretrained, dtype, revision, adapter, quantize, attention, "
                "max_length, token_budget, enable_thinking, chat_template_args and chat_date."
            )
        if not isinstance(chat_template_args, str):
            chat_template_args = json.dumps(chat_template_args or {})
        settings = ChatSettings.read(chat_template_args, chat_date)
        if enable_thinking is not None:
            arguments = {**settings.arguments, "enable_thinking": enable_thinking}
            settings = dataclasses.replace(settings, arguments=arguments)
        self.chat_settings = settings
        _check_device(device)
        if not isinstance(pretrained, Model):
            pretrained = load_model(
                str(pretrained),
                None if dtype == "auto" else dtype,
                revision=revision,
                adapter=adapter,
                quantize=quantize,
                attention=attention,
            )
        self.model, self.revision = pretrained, revision
        self.tokenizer: Any = self.model.tokenizer
        self.max_length = int(max_length or self.model.config.max_length)
        self.encoder = PairEncoder(self.tokenizer, self.max_length)
        self.engine = Engine(self.model, token_budget=int(token_budget))

    # ---- log-likelihoods

    def loglikelihood(
        self, requests: Sequence["Instance"], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of every continuation after its context, and whether it is the argmax.

        A continuation of which the tokenizer leaves nothing has -inf and False, and a notice says
        so: the hf backend stops there.
        """
        pairs = self.encoder.encode([request.args for request in requests])
        self._notice(pairs)
        # The options of one question share what they begin with.
        groups: dict[tuple, list[int]] = {}
        for i, request in enumerate(requests):
            key = (request.task_name, request.doc_id, request.args[0])
            groups.setdefault(key, []).append(i)
        members = list(groups.values())
        answers: list[tuple[float, bool]] = [(-np.inf, False)] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Log-likelihoods") as bar:

            def on_group(group: int, scores: list[TokenScores]) -> None:
                for i, score in zip(members[group], scores, strict=True):
                    if pairs[i].num_targets:
                        answers[i] = _answer(score)
                    # As they come: with --use_cache a run that was killed continues from there.
                    self.cache_hook.add_partial("loglikelihood", requests[i].args, answers[i])
                bar.update(len(scores))

            self.engine.score([[pairs[i] for i in group] for group in members], on_group)
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence["Instance"], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of whole texts, in the hf backend's windows: every token once.

        A text without tokens has 0.
        """
        windows, owners = [], []
        for i, request in enumerate(requests):
            (text,) = request.args
            for pair in self._windows(self.encoder.tokens(text)):
                windows.append([pair])
                owners.append(i)
        totals = [0.0] * len(requests)
        left = np.bincount(owners, minlength=len(requests)).astype(int)
        with tqdm(total=len(windows), disable=disable_tqdm, desc="Windows") as bar:

            def on_group(window: int, scores: list[TokenScores]) -> None:
                i = owners[window]
                totals[i] += float(scores[0].log_probs.sum(dtype=np.float64))
                left[i] -= 1
                if not left[i]:
                    args = requests[i].args
                    self.cache_hook.add_partial("loglikelihood_rolling", args, totals[i])
                bar.update()

            self.engine.score(windows, on_group)
        return totals

    def generate_until(self, requests: Sequence["Instance"], disable_tqdm: bool = False):
        """Refused: this model type does not generate."""
        tasks = sorted({str(request.task_name) for request in requests})
        raise UserError(
            f"{', '.join(tasks)}: a task of the type generate_until, and the model type "
            "'calib_jax' does not generate text. It drives log-likelihood tasks: multiple_choice, "
            "loglikelihood and loglikelihood_rolling. Leave the task out of --tasks."
        )

    def _windows(self, tokens: list[int]) -> list[Pair]:
        """A text's tokens divided as ``HFLM.loglikelihood_rolling`` does."""
        if self.encoder.prefix_id is None:
            raise UserError(
                "the tokenizer has neither a BOS nor an EOS token, and a text's first token needs "
                "one before it. Set bos_token in tokenizer_config.json."
            )
        windows = lm_eval_utils.get_rolling_token_windows(
            tokens, self.encoder.prefix_id, self.max_length, context_len=1
        )
        return [
            Pair(np.array(context + targets, np.int32), len(targets))
            for context, targets in map(lm_eval_utils.make_disjoint_window, windows)
        ]

    def _notice(self, pairs: Sequence[Pair]) -> None:
        """Says what was cut, and what is not there to be scored."""
        cut = [pair.num_cut for pair in pairs if pair.num_cut]
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(pairs)} contexts were longer than the model's "
                f"{self.max_length} tokens and lost {sum(cut)} tokens at the left.",
                UserNotice,
                stacklevel=3,
            )
        empty = sum(not pair.num_targets for pair in pairs)
        if empty:
            warnings.warn(
                f"{empty} of {len(pairs)} continuations have no token of their own after their "
                "context; their log-likelihood is -inf.",
                UserNotice,
                stacklevel=3,
            )

    # ---- what the harness asks of a model with a chat template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The turns as one text; without the system's turns where the template takes none."""
        turns = [
            chat_history,
            [message for message in chat_history if message["role"] != "system"],
        ]
        for attempt in turns:
            try:
                return self._chat.render(
                    attempt,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            except UserError as error:
                problem = error
        raise UserError(f"--apply_chat_template: {problem}")

    @functools.cached_property
    def _chat(self) -> Chat:
        return Chat(self.tokenizer, self.chat_settings)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template in use, which the harness writes into its results."""
        return TemplateLM.chat_template(self, chat_template)

    @property
    def tokenizer_name(self) -> str:
        """Names the harness's cache of rendered requests."""
        return self.model.name.replace("/", "__")

    # ---- what it writes into its results

    @property
    def eot_token_id(self) -> int | None:
        return self.tokenizer.eos_token_id

    def get_model_info(self) -> dict[str, Any]:
        sizes = jax.tree.map(lambda x: x.size, self.model.params)
        return {
            "model_num_parameters": sum(jax.tree.leaves(sizes)),
            "model_dtype": str(self.model.dtype),
            "model_revision": self.revision or "",
            "model_sha": self.model.fingerprint,
        }


def _answer(score: TokenScores) -> tuple[float, bool]:
    return float(score.log_probs.sum(dtype=np.float64)), bool(score.greedy.all())


def _check_device(device: str | None) -> None:
    have = jax.default_backend()
    if device is None or device.split(":")[0] in ("cuda", have):
        return
    raise UserError(
        f"--device {device}: JAX computes on {have} here. Leave --device out, or set the "
        "environment variable JAX_PLATFORMS."
    )


def main() -> int:
    """The harness's command line, with this model type in it."""
    try:
        _check_installed()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except UserError as error:
        print(f"calib_jax: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
