"""What holds for every scalar metric: vmap, low precision, NaN, no rows, padding, sharding."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.devices import xla_flags
from tests.metrics.kernels import kernels as metrics

NAMES = [
    "accuracy", "mean_confidence", "nll", "brier", "auroc",
    "conf_ece", "cw_ece", "sce_ovr", "top_letter_share", "share_above",
    "mce", "rmsce", "average_ce", "overconfidence_error", "underconfidence_error", "pooled_ece",
    "adaptive_ece", "cw_adaptive_ece", "nixon_ace", "tace", "soft_ece",
    "debiased_rmsce", "cw_debiased_rmsce", "debiased_ece", "sweep_ece",
    "smooth_ece", "aurc", "auprc", "confidence_gap", "rps", "squared_ece",
]  # fmt: skip  # names, several on a line


@jax.jit
def evaluate(probs, answers, mask=None, weights=None):
    """Every metric at once: one compilation per kind of input instead of ten."""
    return {name: getattr(metrics, name)(probs, answers, mask, weights=weights) for name in NAMES}


def assert_same(found, expected, rtol=1e-6):
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


def test_vmap_over_a_leading_batch(draw):
    probs, answers = zip(*(draw(50, 4, seed=s) for s in range(3)), strict=True)
    batched = jax.vmap(evaluate)(np.stack(probs), np.stack(answers))
    for b in range(3):
        single = evaluate(probs[b], answers[b])
        assert_same({name: values[b] for name, values in batched.items()}, single)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_cast_on_entry(draw, dtype):
    probs, answers = draw(50, 4)
    low = jnp.asarray(probs, dtype)
    values = evaluate(low, answers)
    assert all(value.dtype == jnp.float32 for value in values.values())
    assert_same(values, evaluate(low.astype(jnp.float32), answers))


def test_lists_float64_and_full_masks_are_read_alike(draw):
    probs, answers = draw(50, 4)
    expected = evaluate(jnp.asarray(probs), jnp.asarray(answers))
    assert_same(evaluate(probs.astype(np.float64), answers.astype(np.int64)), expected, rtol=0)
    assert_same(evaluate(probs, answers, np.ones((50, 4), bool)), expected)
    assert metrics.conf_ece(probs.tolist()[:2], answers.tolist()[:2]) == metrics.conf_ece(
        probs[:2], answers[:2]
    )


def test_no_rows_and_one_row():
    for value in evaluate(np.ones((0, 3)), np.zeros(0, int)).values():
        assert np.isnan(value)
    row = np.array([[0.5, 0.25, 0.25]])
    for value in evaluate(row, [0], weights=[0]).values():
        assert np.isnan(value)
    for name, value in evaluate(row, [0], weights=[1]).items():
        pairs = name in ("auroc", "squared_ece")  # of two rows or more
        assert np.isnan(value) if pairs else np.isfinite(value)


def test_nan_propagates(draw):
    probs, answers = draw(50, 4)
    probs[7] = np.nan
    values = evaluate(probs, answers)
    assert not np.isnan(values.pop("top_letter_share"))  # made of integer counts
    assert all(np.isnan(value) for value in values.values()), values


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_padding_rows_with_weight_zero_change_nothing(draw, dtype):
    probs, answers = draw(50, 4)
    padded = np.concatenate([probs, np.full((14, 4), np.nan, np.float32)])
    padded_answers = np.concatenate([answers, np.full(14, 99, np.int32)])
    weights = (np.arange(64) < 50).astype(dtype)
    assert_same(evaluate(padded, padded_answers, weights=weights), evaluate(probs, answers))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_row_of_weight_two_stands_twice(draw, dtype):
    probs, answers = draw(50, 4)
    probs[10:20] = probs[:10]  # ties
    weights = np.random.default_rng(1).integers(0, 3, 50)
    repeated = evaluate(np.repeat(probs, weights, axis=0), np.repeat(answers, weights))
    assert_same(evaluate(probs, answers, weights=weights.astype(dtype)), repeated, rtol=3e-6)


def test_every_metric_can_be_resampled(draw):
    probs, answers = draw(40, 4, sharpness=2.0)
    mask = np.ones((40, 4), bool)
    fns = {name: getattr(metrics, name) for name in NAMES}
    low_high = metrics.bootstrap_all(fns, probs, answers, mask, num_resamples=20)
    for name, (low, high) in low_high.items():
        assert low <= high, name


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_checked(name):
    metric = getattr(metrics, name)
    probs, answers = np.full((4, 2), 0.5), np.zeros(4, int)
    for args, kwargs, message in (
        ((probs[0], answers), {}, "probs must have shape"),
        ((probs, answers[:3]), {}, "answers must have shape"),
        ((probs, answers * 1.0), {}, "answers must be integers"),
        ((probs, answers), {"mask": np.ones(4, bool)}, "mask must have the shape"),
        ((probs, answers), {"weights": np.ones(3)}, "weights must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(*args, **kwargs)


# One of each kind: a mean, a sort, a scatter, a count, equal-mass edges, a loop, a block sum.
SPREAD = [
    "nll",
    "auroc",
    "cw_ece",
    "top_letter_share",
    "cw_adaptive_ece",
    "sweep_ece",
    "soft_ece",
    "smooth_ece",
    "aurc",
]

SHARDED = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tests.metrics.kernels import kernels as metrics

assert jax.device_count() == 8, jax.devices()
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
probs = rng.dirichlet(np.ones(4), size=4096).astype(np.float32)
answers = rng.integers(0, 4, 4096).astype(np.int32)
weights = rng.integers(0, 3, 4096).astype(np.int32)
rows = NamedSharding(mesh, PartitionSpec("data"))
sharded = [jax.device_put(x, rows) for x in (probs, answers, weights)]
assert len(sharded[0].addressable_shards) == 8
for name in sys.argv[1:]:
    metric = getattr(metrics, name)
    alone = metric(probs, answers, weights=weights)
    spread = metric(*sharded[:2], weights=sharded[2])
    np.testing.assert_allclose(spread, alone, rtol=2e-6, err_msg=name)
stats, whole = metrics.bin_stats(*sharded[:2]), metrics.bin_stats(probs, answers)
np.testing.assert_array_equal(stats.count, whole.count)
np.testing.assert_array_equal(stats.correct, whole.correct)
print("agree")
"""


def test_rows_sharded_over_eight_devices_equal_one_device():
    """In its own process: the number of fake devices is fixed when jax starts."""
    env = dict(os.environ, JAX_PLATFORMS="cpu")
    env["XLA_FLAGS"] = xla_flags(8)
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, *SPREAD], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip() == "agree", done.stderr[-2000:]
