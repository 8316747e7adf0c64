"""How much the terms of a loss pull, at the start of CFT and RCFT: gradient norms by term.

SmolLM2-135M-Instruct on 16 questions of OpenBookQA: the answer's token, the question's tokens, and
λ · ECE, towards fresh adapters. Of RCFT's SFT2 as a sum over a question's tokens (the paper's, the
default) and as a mean over the batch's (--config.train.sft2_reduction=mean). Takes a minute.

    JAX_PLATFORMS=cpu python benchmarks/loss_weights.py [--questions 64]
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calib_jax import load_model, presets
from calib_jax.questions import load, sample
from calib_jax.questions.encoder import Encoder
from calib_jax.training.em import EmTraining
from calib_jax.training.inputs import LABELS, Settings
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.loop import Listener
from calib_jax.training.objective import EmObjective, weighted
from calib_jax.training.step import variables_of


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=64)
    args = parser.parse_args()
    config = presets.get("", "rcft")
    config.train.packing, config.train.microbatches, config.train.batch_size = False, 1, 16
    model = load_model(config.model.name)
    encoder = Encoder(model.tokenizer)
    found = sample(load("offline:openbookqa/train"), args.questions, config.seed)
    training = EmTraining(config, model, encoder.encode(found))
    aux = training.prepare(0, StopRequest(), Listener())
    batch = training.make_batch(training.batch_rows(0)[0], aux)
    batch = {name: x[0] for name, x in batch["rows"].items()} | batch["whole"]
    answers = np.full_like(batch["labels"], -1)
    at = np.take_along_axis(batch["labels"], batch["last"], axis=1)
    np.put_along_axis(answers, batch["last"], at, axis=1)
    questions = batch["labels"].copy()
    np.put_along_axis(questions, batch["last"], -1, axis=1)

    def norm(objective: EmObjective, labels: np.ndarray = answers) -> float:
        def loss(trainable, batch):
            variables = variables_of(training.decoder, trainable, training.base)
            return objective.terms(training.decoder, variables, batch)["loss"]

        gradient = jax.jit(jax.grad(loss))(training.state.trainable, batch | {"labels": labels})
        return float(optax.tree.norm(gradient))

    ece = norm(EmObjective(weighted(ece=config.train.ece_weight)))
    length = batch["num_tokens"] / batch["num_rows"]
    print(f"{len(batch['last'])} questions of {length:.0f} tokens; λ · ECE: norm {ece:.3f}")
    for name, objective in (
        ("CFT", EmObjective(weighted(sft1=1.0))),
        ("RCFT, sum", EmObjective(weighted(sft2=1.0))),
        ("RCFT, mean", EmObjective(weighted(sft2=1.0), Settings(sft2_reduction="mean"))),
    ):
        answer = norm(objective)
        print(f"{name:11} answer {answer:8.3f}, {answer / ece:6.2f} : 1 of λ · ECE", end="")
        if LABELS in objective.needs:
            print(f"; question tokens {norm(objective, questions):8.3f}", end="")
        print()


if __name__ == "__main__":
    main()
