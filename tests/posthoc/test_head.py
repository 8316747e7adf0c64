"""The ridge head: against scikit-learn, in a world that only the states know, and its refusals."""

import dataclasses
import warnings
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.posthoc import head
from calib_jax.posthoc.inputs import FitInputs

linear_model = pytest.importorskip("sklearn.linear_model")


def world(num_rows=240, dims=24, seed=0, num_options=(4,), noise=1.0):
    """(states, answers, mask): the answer is written in a few directions of the state.

    Dimensions differ by orders of magnitude, as those of a decoder do.
    """
    rng = np.random.default_rng(seed)
    K = max(num_options)
    mask = np.arange(K) < rng.choice(num_options, size=num_rows)[:, None]
    answers = np.where(mask, rng.random((num_rows, K)), -1).argmax(axis=1)
    directions = rng.normal(size=(K, dims))
    states = directions[answers] + noise * rng.normal(size=(num_rows, dims)) * 2
    states = states * 10.0 ** rng.uniform(-2, 2, dims) + 10 * rng.normal(size=dims)
    return states.astype(np.float32), answers, mask


def scores_of(states, answers, mask, seed=1, **more):
    """Scores whose letters know nothing of the answers."""
    rng = np.random.default_rng(seed)
    logs = np.where(mask, rng.normal(size=mask.shape) * 2, -np.inf).astype(np.float32)
    probs = np.where(mask, np.exp(logs), 0)
    names = tuple(map(str, range(len(states))))
    return Scores(
        logs, (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32), mask,
        answers.astype(np.int32), names, names, names, states=states, **more,
    )  # fmt: skip  # the first seven in their order


def quietly(call, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", posthoc.CalibrationWarning)
        return call(*args, **options)


def accuracy(probs, answers):
    return float((np.asarray(probs).argmax(axis=1) == answers).mean())


@pytest.mark.parametrize("dims", [7, 60], ids=["primal", "dual"])
def test_ridge_is_scikit_learns(dims):
    rng = np.random.default_rng(dims)
    z, y, w = rng.normal(size=(40, dims)), rng.normal(size=(40, 3)), rng.uniform(0.1, 3, 40)
    penalties = np.array([1e-3, 0.5, 40.0])
    weight, bias = head.ridge_path(z, y, w, penalties)
    assert weight.dtype == np.float64
    for p, penalty in enumerate(penalties):
        oracle = linear_model.Ridge(alpha=penalty * w.sum()).fit(z, y, sample_weight=w)
        np.testing.assert_allclose(weight[p].T, oracle.coef_, atol=1e-9)
        np.testing.assert_allclose(bias[p], oracle.intercept_, atol=1e-9)


def test_the_head_is_the_best_of_the_loop_by_hand():
    """Every fold, penalty and option by itself, in float64: scikit-learn's ridge, T by a grid."""
    states, answers, mask = world(90, 12, num_options=(2, 3, 4))
    fitted = posthoc.RidgeHead.fit(states, answers, mask, seed=3)
    folds = posthoc.fold_numbers(90, 5, 3, answers)
    values = states.astype(np.float64)

    def scores(fit, out, penalty):
        mean, spread = values[fit].mean(axis=0), values[fit].std(axis=0)
        z = (values - mean) / spread
        found = np.zeros((out.sum(), 4))
        for k in range(4):
            rows = fit & mask[:, k]
            ridge = linear_model.Ridge(alpha=penalty * rows.sum()).fit(z[rows], answers[rows] == k)
            found[:, k] = ridge.predict(z[out])
        return found

    def nll(s, temperature):
        logits = np.where(mask, s / temperature, -np.inf)
        top = logits.max(axis=1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return (total - logits[np.arange(90), answers]).mean()

    best = {}
    for penalty in head.PENALTIES:
        s = np.zeros((90, 4))
        for fold in range(5):
            s[folds == fold] = scores(folds != fold, folds == fold, penalty)
        grid = np.exp(np.linspace(np.log(0.02), np.log(5), 120))
        losses = [nll(s, t) for t in grid]
        best[penalty] = min(losses), grid[np.argmin(losses)]
    penalty = min(best, key=lambda p: best[p][0])
    assert fitted.penalty == penalty
    assert fitted.temperature == pytest.approx(best[penalty][1], rel=0.03)
    every = np.ones(90, bool)
    s = np.where(mask, scores(every, every, penalty), -np.inf) / fitted.temperature
    powers = np.exp(s - s.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted(states, mask), expected, atol=2e-5)


def test_what_only_the_states_know_is_found():
    states, answers, mask = world(300)
    before = scores_of(states, answers, mask)
    assert accuracy(before.probs, answers) < 0.35
    after = posthoc.cross_fit_scores("ridge_head", before)
    assert accuracy(after.probs, answers) > 0.8
    assert float(metrics.conf_ece(after.probs, answers)) < 0.1
    assert float(metrics.nll(after.probs, answers)) < 0.7
    assert set(after.folds) == set(range(5))
    assert float(metrics.nll(before.probs, answers)) > 1.5


def test_states_that_know_nothing_are_not_believed():
    """More dimensions than rows, and nothing in them: penalty and T are chosen out of fold."""
    rng = np.random.default_rng(0)
    states, answers = rng.normal(size=(80, 150)), rng.integers(0, 4, 80)
    probs = quietly(posthoc.cross_fit, "ridge_head", states, answers, np.ones((80, 4), bool))
    assert float(metrics.nll(probs, answers)) < np.log(4) + 0.05
    fitted = quietly(posthoc.RidgeHead.fit, states, answers)
    # Nor does it boast of the rows that it was fitted to.
    own = np.asarray(fitted(states))
    assert own.max(axis=1).mean() < 0.7


def test_scales_and_offsets_of_the_dimensions_do_not_matter():
    states, answers, mask = world(120, 150, noise=3)  # more dimensions than rows
    rng = np.random.default_rng(4)
    scale, offset = 2.0 ** rng.integers(-8, 8, 150), rng.normal(size=150)
    fitted = posthoc.RidgeHead.fit(states, answers, mask)
    other = posthoc.RidgeHead.fit(states * scale - offset, answers, mask)
    assert fitted.penalty == other.penalty
    np.testing.assert_allclose(fitted(states), other(states * scale - offset), atol=2e-4)


def test_a_dimension_that_does_not_vary_has_no_weight():
    states, answers, mask = world(80, 5)
    states[:, 2] = 1234.5
    fitted = posthoc.RidgeHead.fit(states, answers, mask)
    assert [line[2] for line in fitted.weight] == [0.0] * 4
    moved = states + np.float32(1e4) * (np.arange(5) == 2)
    np.testing.assert_array_equal(fitted(moved), fitted(states))


def test_masked_options_get_nothing_and_teach_nothing():
    states, answers, mask = world(200, 10, num_options=(2, 3, 4))
    fitted = posthoc.RidgeHead.fit(states, answers, mask)
    probs, logs = np.asarray(fitted(states, mask)), np.asarray(fitted.log_probs(states, mask))
    assert probs.dtype == np.float32
    assert (probs[~mask] == 0).all() and (logs[~mask] == -np.inf).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=2e-6)
    np.testing.assert_allclose(np.exp(logs), probs, atol=1e-5)
    np.testing.assert_allclose(jax.jit(fitted)(states, mask), probs, atol=1e-6)
    # A further option that no row has changes nothing.
    one = np.array([0.1])
    inputs = FitInputs(np.zeros(mask.shape), answers, mask, np.ones(200))
    _, weight, bias = head._fit_path(states.astype(np.float64), inputs, one)
    wide = inputs._replace(mask=np.pad(mask, ((0, 0), (0, 1))))
    _, wider, wider_bias = head._fit_path(states.astype(np.float64), wide, one)
    np.testing.assert_allclose(wider[:, :, :4], weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(wider_bias[:, :4], bias)
    assert (wider[:, :, 4] == 0).all() and (wider_bias[:, 4] == 0).all()


def test_rows_of_weight_0_are_not_there():
    states, answers, mask = world(100, 8)
    weights = (np.arange(100) < 70).astype(np.float32)
    fitted = posthoc.RidgeHead.fit(states, answers, mask, weights=weights)
    changed = states.copy()
    changed[70:] = 1e6
    assert posthoc.RidgeHead.fit(changed, answers, mask, weights=weights) == fitted
    assert posthoc.RidgeHead.fit(states[:70], answers[:70], mask[:70]) == fitted


def test_held_out_rows_do_not_reach_their_own_fold():
    states, answers, mask = world(120, 6)
    clusters = np.arange(120) // 3
    folds = posthoc.fold_numbers(120, 4, clusters=clusters)
    changed = np.where(folds == 1, (answers + 1) % 4, answers)
    before, after = (
        posthoc.cross_fit("ridge_head", states, y, mask, folds=4, clusters=clusters)
        for y in (answers, changed)
    )
    np.testing.assert_array_equal(before[folds == 1], after[folds == 1])
    assert (before[folds != 1] != after[folds != 1]).any()


def test_copies_of_a_question_share_a_fold():
    """Else each is recognised by its copy, and T says that the head knows everything."""
    rng = np.random.default_rng(0)
    states = np.repeat(rng.normal(size=(40, 80)), 4, axis=0)
    answers = np.repeat(rng.integers(0, 4, 40), 4)
    mask, names = np.ones((160, 4), bool), tuple(str(i // 4) for i in range(160))
    apart = quietly(posthoc.RidgeHead.fit, states, answers, mask)
    together = quietly(posthoc.RidgeHead.fit, states, answers, mask, clusters=names)
    sure, unsure = (np.asarray(fit(states)).max(axis=1).mean() for fit in (apart, together))
    assert sure > 0.9 and unsure < 0.7
    scores = scores_of(states.astype(np.float32), answers, mask, clusters=names)
    assert quietly(posthoc.fit_scores, "ridge_head", scores) == together


def test_seeded_saved_and_read_back(tmp_path):
    states, answers, mask = world(60, 9, num_options=(2, 4))
    fitted = posthoc.RidgeHead.fit(states, answers, mask)
    assert posthoc.RidgeHead.fit(states, answers, mask) == fitted
    fitted.save(tmp_path / "head.json")
    again = posthoc.load(tmp_path / "head.json")
    assert again == fitted and type(again) is posthoc.RidgeHead
    assert np.asarray(again(states, mask)).tobytes() == np.asarray(fitted(states, mask)).tobytes()
    assert not posthoc.RidgeHead.preserves_argmax and posthoc.reads_states(["ridge_head"])
    assert "0." in repr(fitted) and len(repr(fitted)) < 400


def test_fit_on_one_split_and_apply_to_another():
    states, answers, mask = world(200, 10)
    scores = scores_of(states, answers, mask)
    parts = scores.take(range(100)), scores.take(range(100, 200))
    fitted, probs = posthoc.fit_split("ridge_head", *parts)
    assert accuracy(probs, answers[100:]) > 0.5  # a guess has 0.25
    applied = posthoc.calibrated_scores(fitted, scores)
    np.testing.assert_array_equal(applied.probs[100:], probs)


def test_what_is_refused():
    states, answers, mask = world(20, 6)
    fit = posthoc.RidgeHead.fit
    with pytest.raises(UserError, match="these scores hold none"):
        posthoc.cross_fit_scores(
            "ridge_head", dataclasses.replace(scores_of(states, answers, mask), states=None)
        )
    with pytest.raises(UserError, match="these scores hold none"):
        posthoc.fit_scores("ridge_head", SimpleNamespace(answers=answers, mask=mask))
    bad = states.copy()
    bad[7, 2] = np.nan
    with pytest.raises(UserError, match="row 7 of states is not finite"):
        fit(bad, answers, mask)
    with pytest.raises(UserError, match=r"states must have shape \[N, D\]"):
        fit(states[0], answers, mask)
    with pytest.raises(UserError, match=r"mask must be bool of shape \(20, K\)"):
        fit(states, answers, mask[:5])
    with pytest.raises(UserError, match="answers are needed"):
        fit(states)
    with pytest.raises(UserError, match="1 cluster to fit to"):
        fit(states, answers, mask, clusters=["a"] * 20)
    fitted = fit(states, answers, mask)
    with pytest.raises(UserError, match="fitted to states of 6 dimensions"):
        fitted(states[:, :5], mask)
    with pytest.raises(UserError, match="fitted to 4 options, these scores have 3"):
        fitted(states, mask[:, :3])
    with pytest.raises(UserError, match='"weight" and "mean" must have one D'):
        dataclasses.replace(fitted, mean=fitted.mean[:-1])


def test_out_of_fold_scores_are_of_the_other_folds():
    states, answers, mask = world(30, 4)
    inputs = FitInputs(np.zeros(mask.shape), answers, mask, np.ones(30))
    numbers = np.arange(30) % 3
    found = head.out_of_fold(states.astype(np.float64), inputs, numbers, np.array([0.1]))
    changed = inputs._replace(answers=np.where(numbers == 2, (answers + 1) % 4, answers))
    other = head.out_of_fold(states.astype(np.float64), changed, numbers, np.array([0.1]))
    np.testing.assert_array_equal(found[:, numbers == 2], other[:, numbers == 2])
    assert (found[:, numbers != 2] != other[:, numbers != 2]).all(axis=(0, 2)).any()
