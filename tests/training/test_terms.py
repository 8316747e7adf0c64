"""The registry of loss terms: what each computes, and what follows from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics, presets
from calib_jax.config import base, check_config
from calib_jax.errors import UserError
from calib_jax.training import em, terms
from calib_jax.training.inputs import Answers, Settings
from calib_jax.training.interrupt import Stopped
from calib_jax.training.terms import TERMS
from tests.training.conftest import tiny_config


def answers_of(seed=0, N=6, V=40, K=4):
    """Invented logits; the last place holds no question, and its weight is 0."""
    rng = np.random.default_rng(seed)
    mask = np.arange(K) < rng.integers(2, K + 1, N)[:, None]
    return Answers(
        logits_NxV=jnp.asarray(rng.normal(size=(N, V)) * 3, jnp.float32),
        mask_NxK=jnp.asarray(mask),
        answers_N=jnp.asarray(rng.integers(0, 2, N)),
        weights_N=jnp.asarray(np.arange(N) < N - 1, jnp.float32),
        letter_ids_K=jnp.asarray(rng.choice(V, K, replace=False)),
        num_rows=jnp.float32(N - 1),
        num_tokens=jnp.float32(10 * N),
    )


def test_the_brier_term_is_the_brier_score():
    answers = answers_of()
    found = TERMS["brier"].loss(answers, Settings())
    probs, mask, right = (x[:-1] for x in (answers.probs_NxK, answers.mask_NxK, answers.answers_N))
    assert float(found) == pytest.approx(float(metrics.brier(probs, right, mask)), rel=1e-6)


@pytest.mark.parametrize("name", [name for name, term in TERMS.items() if not term.field])
def test_further_terms_of_two_microbatches_add_up_to_those_of_the_batch(name):
    """Each is a mean over the batch's questions; places without a question count nothing."""
    whole = answers_of()
    own = jnp.where(whole.mask_NxK, 1.0, 0.0) / whole.mask_NxK.sum(axis=1, keepdims=True)
    whole = dataclasses.replace(whole, own_NxK=own)
    fields = [field.name for field in dataclasses.fields(whole)]
    by_row = [n for n in fields if "_N" in n and getattr(whole, n) is not None]

    def rows(part):
        return dataclasses.replace(whole, **{n: getattr(whole, n)[part] for n in by_row})

    loss = TERMS[name].loss
    found = float(loss(whole, Settings()))
    parts = sum(float(loss(rows(part), Settings())) for part in (slice(0, 2), slice(2, None)))
    assert found == pytest.approx(parts, rel=1e-6) and found > 0
    alone = [float(loss(rows(slice(i, i + 1)), Settings())) for i in range(6)]
    assert alone[-1] == 0 and found == pytest.approx(sum(alone[:-1]), rel=1e-6)


def test_self_distillation_holds_the_model_to_what_it_was(start):
    """KL from the model's own letters: 0 at the first step, not later; kept by checkpoints."""
    config = tiny_config(sft="sft1", ece_weight=0.0, terms="distil=1")
    config.em.refresh = "once"
    whole = start(config, "whole", count=16).run()
    assert len(whole.e_steps) == 1
    first, *_, last = [told["distil"] for _, told in whole.terms]
    assert first == pytest.approx(0, abs=1e-6) and last > 1e-4
    parts = []
    for stop_at in (1, 3, None):  # within the first epoch, and within the second
        run = start(config, "parts", count=16)
        try:
            run.run(stop_at)
            assert stop_at is None
        except Stopped:
            assert stop_at is not None
        parts.append(run)
    assert sum(len(run.e_steps) for run in parts) == 1
    assert [told for run in parts for told in run.terms] == whole.terms


def test_confidences_as_options_must_be_confidences(start):
    """The answers of ordinary questions are no levels, and shuffled levels have no order."""
    config = tiny_config(sft="none", ece_weight=0.0, terms="tokenised_brier=1")
    with pytest.raises(UserError, match=r"Set --config\.data\.shuffle_options=False"):
        config.data.shuffle_options = True
        start(config)
    config.data.shuffle_options = False
    with pytest.raises(UserError, match=r"question q\d+: .* its answer is option"):
        start(config)


def test_self_distillation_needs_an_e_step():
    config = base()
    config.train.terms, config.em.refresh = "distil=1", "online"
    with pytest.raises(UserError, match=r"has distil, .* Set --config\.em\.refresh=once"):
        check_config(config)


def test_the_nll_term_is_the_nll_of_the_options_and_stays_finite():
    answers = answers_of()
    found = TERMS["nll"].loss(answers, Settings())
    probs, mask, right = (x[:-1] for x in (answers.probs_NxK, answers.mask_NxK, answers.answers_N))
    assert float(found) == pytest.approx(float(metrics.nll(probs, right, mask)), rel=1e-6)
    scores = jnp.array([[0.0, -300.0, -5.0]])
    certain = dataclasses.replace(
        answers,
        mask_NxK=jnp.array([[True, True, False]]),
        answers_N=jnp.array([1]),
        weights_N=jnp.ones(1),
        num_rows=jnp.float32(1),
        text_scores_NxK=scores,
    )
    assert float(TERMS["nll"].loss(certain, Settings())) == pytest.approx(300.0)
    slope = jax.grad(
        lambda s: TERMS["nll"].loss(dataclasses.replace(certain, text_scores_NxK=s), Settings())
    )(scores)
    np.testing.assert_allclose(slope, [[1.0, -1.0, 0.0]], atol=1e-6)


def test_further_terms_are_weighed_by_name_and_named_in_formulas():
    config = base()
    config.train.terms, config.train.sft = "brier=0.25", "none"
    assert terms.formula(config.train) == "1 · ECE + 0.25 · Brier"
    config.train.ece_weight = 0.0
    assert terms.formula(config.train) == "0.25 · Brier"
    objective = em.objective_of(config, 10)
    assert objective.logged == ("loss", "brier")
    assert not objective.needs_e_step and not terms.reads_bins(config.train)
    config.train.terms = "brier=0"
    with pytest.raises(UserError, match=r"config.train.terms has no weight .* no loss is left"):
        check_config(config)
    config.train.terms, config.train.objective = "brier=1", "released"
    with pytest.raises(UserError, match="it has no further terms"):
        check_config(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ece=0.1", "names 'ece', which config.train.ece_weight weighs"),
        ("breir=0.1", "names 'breir'; choose from: brier, focal, .*. Did you mean 'brier'"),
        ("brier", r"'brier' is not valid; write brier=0.1"),
        ("brier=-1", "'brier=-1' is not valid"),
        ("brier=inf", "'brier=inf' is not valid"),
        ("brier=1,brier=2", "'brier' appears twice"),
    ],
)
def test_weights_that_are_not_valid(text, message):
    with pytest.raises(UserError, match=f"config.train.terms.*{message}"):
        terms.parse_weights(text)


def test_a_further_term_that_needs_targets_brings_the_e_step(start, monkeypatch):
    ece = dataclasses.replace(TERMS["ece"], name="pull", field="", weight_of=None)
    monkeypatch.setitem(TERMS, "pull", ece)
    run = start(tiny_config(ece_weight=0.0, terms="pull=0.5"), count=8).run()
    assert len(run.e_steps) == 2
    same = start(tiny_config(ece_weight=0.5), "same", count=8).run()
    assert [told["loss"] for _, told in run.terms] == [told["loss"] for _, told in same.terms]
    assert "pull" in run.terms[0][1] and "ece" not in run.terms[0][1]


def test_terms_of_one_method_have_columns_of_their_own():
    """Alternatives share a column of the log; terms that are minimised together must not."""
    for name in presets.METHODS:
        config = base()
        presets.set_method(config, name)
        presets.check_method(config)
        keys = [term.key for term in terms.active(config.train)]
        assert keys and len(set(keys)) == len(keys)
        assert set(keys) <= set(terms.titles())
    assert not {term.key for term in TERMS.values()} & {"loss", "grad_norm", "learning_rate"}
