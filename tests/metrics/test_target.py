import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.metrics.kernels import kernels as metrics

VALUES = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
    st.floats(0, 1, width=32, allow_subnormal=False),
)
ROWS = hnp.arrays(np.float32, (24, 4), elements=VALUES)
WEIGHTS = hnp.arrays(np.int32, 24, elements=st.integers(0, 3))
MASKS = hnp.arrays(bool, (24, 4)).map(lambda mask: mask | (np.arange(4) == 1))


@functools.partial(jax.jit, static_argnames="edges")
def evaluate(probs, target, mask, weights, edges):
    return {
        f"{name} {num_bins} {norm}": getattr(metrics, name)(
            probs, target, mask, num_bins, edges, weights=weights, norm=norm
        )
        for name in ("tce", "cw_tce")
        for num_bins in (None, 10)
        for norm in ("l1", "l2", "max")
    }


@settings(max_examples=12, deadline=None)
@given(
    probs=ROWS, target=ROWS, mask=MASKS, weights=WEIGHTS, edges=st.sampled_from(["right", "left"])
)
def test_equals_the_definition(ref, probs, target, mask, weights, edges):
    weights[0] = max(weights[0], 1)
    junk = np.where(mask & (weights[:, None] > 0), probs, np.nan).astype(np.float32)
    masked_target = np.where(mask & (weights[:, None] > 0), target, np.nan).astype(np.float32)
    found = evaluate(junk, masked_target, mask, weights, edges)
    for key, value in found.items():
        name, num_bins, norm = key.split()
        table = {}
        for i in range(24):
            options = [k for k in range(4) if mask[i, k]]
            top = max(options, key=lambda k: (probs[i, k], -k))
            for k in [top] if name == "tce" else options:
                m = i if num_bins == "None" else ref.bin_of(probs[i, k], 10, edges)
                cell = table.setdefault((m, k if name == "cw_tce" else 0), [0, 0.0])
                cell[0] += int(weights[i])
                cell[1] += int(weights[i]) * (float(target[i, k]) - float(probs[i, k]))
        gaps = [(n, abs(total / n)) for n, total in table.values() if n]
        rows = sum(n for n, _ in gaps)
        expected = {
            "l1": sum(n * g for n, g in gaps) / rows,
            "l2": np.sqrt(sum(n * g * g for n, g in gaps) / rows),
            "max": max(g for _, g in gaps),
        }[norm]
        np.testing.assert_allclose(value, expected, atol=2e-6, err_msg=key)


def test_a_one_hot_target_is_the_answer(draw):
    probs, answers = draw(300, 4, sharpness=2.0)
    target = np.eye(4, dtype=np.float32)[answers]
    assert float(metrics.tce(probs, target)) == pytest.approx(
        float(metrics.conf_ece(probs, answers)), abs=1e-6
    )
    assert float(metrics.cw_tce(probs, target)) == pytest.approx(
        float(metrics.cw_ece(probs, answers)), abs=1e-6
    )


def test_is_the_limit_of_many_answers_per_question(draw):
    """400 answers drawn to each of 100 questions: conf-ECE comes near TCE, without their noise."""
    target, _ = draw(100, 4)
    probs = target**2 / (target**2).sum(axis=1, keepdims=True)
    rng = np.random.default_rng(3)
    answers = (target.cumsum(axis=1)[None] < rng.random((400, 100, 1))).sum(axis=2).clip(max=3)
    repeated = np.broadcast_to(probs, (400, 100, 4)).reshape(-1, 4)
    assert float(metrics.tce(probs, target)) == pytest.approx(
        float(metrics.conf_ece(repeated, answers.ravel())), abs=0.005
    )


def test_the_target_itself_has_no_error(draw):
    probs, _ = draw(100, 4)
    for metric in (metrics.tce, metrics.cw_tce):
        for num_bins in (None, 10):
            assert float(metric(probs, probs, num_bins=num_bins)) == 0
    other, _ = draw(100, 4, seed=1)
    binned, by_row = metrics.tce(probs, other), metrics.tce(probs, other, num_bins=None)
    assert 0 < float(binned) <= float(by_row) + 1e-6


def test_no_rows_resampling_and_gradient(draw):
    assert np.isnan(metrics.tce(np.ones((0, 3)), np.ones((0, 3))))
    assert np.isnan(metrics.cw_tce(np.ones((0, 3)), np.ones((0, 3)), num_bins=None))
    probs, _ = draw(100, 4)
    target, _ = draw(100, 4, seed=1)
    low, high = metrics.bootstrap(metrics.tce, probs, target, num_resamples=100)
    assert low < high and low < float(metrics.tce(probs, target)) + 0.05
    grad = jax.grad(functools.partial(metrics.tce, num_bins=None))(jnp.asarray(probs), target)
    top = probs.argmax(axis=1)[:, None]
    sign = np.sign(np.take_along_axis(probs - target, top, axis=1)) / 100
    np.testing.assert_allclose(np.take_along_axis(np.asarray(grad), top, axis=1), sign, rtol=1e-5)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"target_probs must have the shape of probs \(4, 2\)"):
        metrics.tce(np.full((4, 2), 0.5), np.zeros(4, int))
    with pytest.raises(ValueError, match="edges must be"):
        metrics.tce(np.full((4, 2), 0.5), np.full((4, 2), 0.5), num_bins=None, edges="both")


def test_validate_names_the_bad_row_of_the_target():
    probs = np.full((4, 2), 0.5)
    target = probs.copy()
    metrics.validate(probs, target)
    target[2] = 0.5, 0.75
    with pytest.raises(ValueError, match=r"row 2 of target_probs sums to 1\.25, not to 1"):
        metrics.validate(probs, target)
