"""What holds for every scalar metric: vmap, low precision, NaN, no rows, padding, sharding."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics

NAMES = [
    "accuracy", "mean_confidence", "nll", "brier", "auroc",
    "conf_ece", "cw_ece", "sce_ovr", "top_letter_share", "share_above",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_a_leading_batch(draw, name):
    metric = getattr(metrics, name)
    probs, answers = zip(*(draw(50, 4, seed=s) for s in range(3)), strict=True)
    batched = jax.jit(jax.vmap(metric))(np.stack(probs), np.stack(answers))
    single = [metric(p, y) for p, y in zip(probs, answers, strict=True)]
    np.testing.assert_allclose(batched, single, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_low_precision_is_cast_on_entry(draw, name):
    metric = getattr(metrics, name)
    probs, answers = draw(50, 4)
    low = jnp.asarray(probs, jnp.float16 if name == "conf_ece" else jnp.bfloat16)
    value = metric(low, answers)
    assert value.dtype == jnp.float32
    assert value == metric(low.astype(jnp.float32), answers)


@pytest.mark.parametrize("name", NAMES)
def test_lists_arrays_and_float64_are_read_alike(draw, name):
    metric = getattr(metrics, name)
    probs, answers = draw(50, 4)
    expected = metric(jnp.asarray(probs), jnp.asarray(answers))
    assert metric(probs.astype(np.float64), answers.astype(np.int64)) == expected
    assert metric(probs, answers, np.ones((50, 4), bool)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_and_one_row(name):
    metric = getattr(metrics, name)
    assert np.isnan(metric(np.ones((0, 3)), np.zeros(0, int)))
    assert np.isnan(metric(np.ones((2, 3)) / 3, [0, 1], weights=[0, 0]))
    one = metric(np.array([[0.5, 0.25, 0.25]]), [0])
    assert np.isnan(one) if name == "auroc" else np.isfinite(one)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"top_letter_share"}))
def test_nan_propagates(draw, name):
    probs, answers = draw(50, 4)
    probs[7] = np.nan
    assert np.isnan(getattr(metrics, name)(probs, answers))


@pytest.mark.parametrize("name", NAMES)
def test_padding_rows_with_weight_zero_change_nothing(draw, name):
    metric = getattr(metrics, name)
    probs, answers = draw(50, 4)
    padded = np.concatenate([probs, np.full((14, 4), np.nan, np.float32)])
    padded_answers = np.concatenate([answers, np.full(14, 99, np.int32)])
    for dtype in (bool, np.float32):
        weights = (np.arange(64) < 50).astype(dtype)
        value = metric(padded, padded_answers, weights=weights)
        np.testing.assert_allclose(value, metric(probs, answers), rtol=1e-6)


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


# One of each kind: a mean, a sort, a scatter, a count.
SPREAD = ["nll", "auroc", "cw_ece", "top_letter_share"]

SHARDED = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from calib_jax import metrics

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
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, *SPREAD], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip() == "agree", done.stderr[-2000:]
