"""The unbiased squared calibration error and its intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics


def parts(probs, answers, num_bins=10):
    """T by all pairs of different rows of a bin, and psi and second; float64 loops."""
    confidence = probs.max(axis=1).astype(np.float64)
    index = np.clip(np.ceil(np.float32(confidence) * num_bins).astype(int) - 1, 0, None)
    r = (probs.argmax(axis=1) == answers) - confidence
    value, psi, second = 0.0, np.zeros(len(r)), 0.0
    for m in range(num_bins):
        mine = np.flatnonzero(index == m)
        n = len(mine)
        if n:
            gap = r[mine].mean()
            psi[mine] = 2 * r[mine] * gap - gap**2
        if n > 1:
            pairs = sum(r[i] * r[j] for i in mine for j in mine if i != j)
            value += n / len(r) * pairs / (n * (n - 1))
            second += 2 * np.var(r[mine], ddof=1) ** 2 / len(r) ** 2
    return value, psi, second


def test_is_the_mean_over_pairs(draw):
    probs, answers = draw(61, 4, seed=3, sharpness=2.0)
    value, psi, second = parts(probs, answers)
    assert float(metrics.squared_ece(probs, answers)) == pytest.approx(value, abs=1e-7)
    half = 1.959964 * np.sqrt(np.var(psi, ddof=1) / 61 + second)
    found = metrics.squared_ece_interval(probs, answers)
    assert found == pytest.approx((value - half, value + half), abs=1e-6)
    narrow = metrics.squared_ece_interval(probs, answers, level=0.5)
    assert found[0] < narrow[0] < value < narrow[1] < found[1]


def test_a_change_is_paired(draw):
    probs, answers = draw(80, 4, seed=4, sharpness=2.0)
    flat = probs**0.5 / (probs**0.5).sum(axis=1, keepdims=True)
    (one, psi1, second1), (two, psi2, second2) = parts(probs, answers), parts(flat, answers)
    half = 1.959964 * np.sqrt(max(np.var(psi2 - psi1, ddof=1) / 80, second1 + second2))
    found = metrics.paired_squared_ece_interval(probs, flat, answers)
    assert found == pytest.approx((two - one - half, two - one + half), abs=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        metrics.paired_squared_ece_interval(probs, flat[1:], answers)
    with pytest.raises(ValueError, match="level"):
        metrics.squared_ece_interval(probs, answers, level=1.0)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0], ids=["calibrated", "under", "over"])
@pytest.mark.parametrize(("size", "draws"), [(50, 4000), (200, 1000), (1000, 300)])
def test_is_unbiased(scale, size, draws):
    """Against the population's binned square: within four standard errors."""

    def sample(key, num_rows):
        a, b = jax.random.split(key)
        scores = 1.5 * jax.random.normal(a, (num_rows, 4))
        return jax.nn.softmax(scale * scores), jax.random.categorical(b, scores), scores

    probs, _, scores = sample(jax.random.key(0), 400_000)
    p, q = (np.asarray(x, np.float64) for x in (probs, jax.nn.softmax(scores)))
    top = p.argmax(axis=1)
    confidence, right = (x[np.arange(len(p)), top] for x in (p, q))
    index = np.asarray(metrics.bin_index(probs.max(axis=1)))
    gap = np.bincount(index, right - confidence, 10)
    expected = np.sum(gap**2 / np.maximum(np.bincount(index, minlength=10), 1)) / len(p)

    @jax.jit
    def values(keys):
        return jax.lax.map(
            lambda key: metrics.squared_ece(*sample(key, size)[:2]), keys, batch_size=100
        )

    found = np.asarray(values(jax.random.split(jax.random.key(1), draws)), np.float64)
    error = found.std() / np.sqrt(draws)
    # Bins that hold one row are left out: at 50 rows a part of the gap that is below 1 %.
    assert found.mean() == pytest.approx(expected, abs=4 * error + 0.01 * expected)


def test_weights_are_copies_and_bins_of_one_row_add_nothing(draw):
    probs, answers = draw(30, 3, seed=5)
    counts = np.random.default_rng(0).integers(0, 4, 30)
    again = np.repeat(np.arange(30), counts)
    found = float(metrics.squared_ece(probs, answers, weights=counts))
    assert found == pytest.approx(
        float(metrics.squared_ece(probs[again], answers[again])), abs=1e-7
    )
    pair = np.array([[0.75, 0.25], [0.75, 0.25]], np.float32)
    alone = np.concatenate([pair, [[0.55, 0.45]]]).astype(np.float32)
    value = float(metrics.squared_ece(pair, [0, 0]))
    assert value == 0.0625
    assert float(metrics.squared_ece(alone, [0, 0, 1])) == pytest.approx(value * 2 / 3)
    assert np.isnan(metrics.squared_ece(alone[1:], [0, 0]))
    assert np.isnan(metrics.squared_ece_interval(alone[1:], [0, 0])).all()
    assert np.isnan(metrics.squared_ece(np.ones((0, 2)), np.zeros(0, int)))
    certain = np.array([[1.0, 0.0]] * 3, np.float32)
    assert metrics.squared_ece_interval(certain, [0, 0, 0]) == (0, 0)
    assert float(metrics.squared_ece(certain, [1, 1, 1])) == 1
    slope = jax.grad(metrics.squared_ece)(jnp.asarray(alone), jnp.array([0, 0, 1]))
    assert np.isfinite(slope).all()
