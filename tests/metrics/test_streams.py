"""Streams: batches, devices and processes merged equal the whole."""

import functools
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics import streams

NUM_BINS, K = 15, 4


@pytest.fixture(scope="module")
def stream():
    return streams.everything(K, NUM_BINS)


@pytest.fixture(scope="module")
def rows(draw):
    """60 rows of 2 to 4 options, with weights 0 to 2."""
    probs, answers = draw(60, K, seed=3, sharpness=2.0)
    rng = np.random.default_rng(0)
    mask = np.arange(K) < rng.integers(2, K + 1, size=(60, 1))
    mask[np.arange(60), answers] = True
    probs = np.where(mask, probs, 0)
    probs /= probs.sum(axis=1, keepdims=True)
    return {
        "probs": probs.astype(np.float32),
        "answers": answers,
        "mask": mask,
        "weights": rng.integers(0, 3, size=60).astype(np.int32),
    }


@functools.partial(jax.jit, static_argnames="num_bins")
def whole(probs, answers, mask, weights, num_bins=NUM_BINS):
    bins = {"num_bins": num_bins, "weights": weights}
    given = probs, answers, mask
    return {
        "conf_ece": metrics.conf_ece(*given, **bins),
        "cw_ece": metrics.cw_ece(*given, **bins),
        "sce_ovr": metrics.sce_ovr(*given, **bins),
        "pooled_ece": metrics.pooled_ece(*given, **bins),
        "mce": metrics.mce(*given, **bins),
        "rmsce": metrics.rmsce(*given, **bins),
        "overconfidence_error": metrics.overconfidence_error(*given, **bins),
        "underconfidence_error": metrics.underconfidence_error(*given, **bins),
        "smooth_ece": metrics.smooth_ece(*given, weights=weights),
        "accuracy": metrics.accuracy(*given, weights=weights),
        "mean_confidence": metrics.mean_confidence(*given, weights=weights),
        "nll": metrics.nll(*given, weights=weights),
        "brier": metrics.brier(*given, weights=weights),
        "letter_counts": metrics.letter_counts(probs, mask, weights),
        "answer_counts": metrics.answer_counts(answers, K, weights),
    }


def part(rows, index):
    return {name: values[index] for name, values in rows.items()}


def assert_same(found, expected, rtol=2e-6):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=1e-7, err_msg=name)


def test_batches_merged_in_any_order_equal_the_whole(stream, rows):
    parts = [part(rows, slice(i, i + 20)) for i in (0, 20, 40)]
    states = [stream.update(stream.init(), **p) for p in parts]
    expected = whole(**rows)
    one_by_one = stream.init()
    for p in parts:
        one_by_one = stream.update(one_by_one, **p)
    for state in (
        one_by_one,
        stream.merge(stream.merge(states[0], states[1]), states[2]),
        stream.merge(states[2], stream.merge(states[1], states[0])),
        stream.merge(one_by_one, stream.init()),
    ):
        figures = stream.compute(state)
        assert_same(figures, expected)
        assert figures["n"] == rows["weights"].sum()


def test_the_state_is_a_scan_carry(stream, rows):
    batches = {name: values.reshape(3, 20, *values.shape[1:]) for name, values in rows.items()}

    @jax.jit
    def scanned(batches):
        def step(state, batch):
            return stream.update(state, **batch), None

        return stream.compute(jax.lax.scan(step, stream.init(), batches)[0])

    assert_same(scanned(batches), whole(**rows))


def test_sharded_rows_give_the_state_of_all_devices(stream, rows):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=auto)
    placed = jax.device_put(rows, jax.NamedSharding(mesh, jax.P("data")))
    assert_same(stream.compute(stream.update(stream.init(), **placed)), whole(**rows))


def test_a_batch_of_another_number_of_options_is_refused(stream, rows):
    with pytest.raises(ValueError, match="num_options=4, the batch's probs have shape"):
        stream.update(stream.init(), rows["probs"][:, :3], rows["answers"] % 3)


def test_no_rows_compute_nan(stream):
    figures = stream.compute(stream.init())
    for name, value in figures.items():
        if name == "n" or name.endswith("counts"):
            assert not np.any(value)
        else:
            assert np.isnan(value), name


def test_float32_sums_hold_over_ten_million_rows():
    rng = np.random.default_rng(1)
    batch = rng.dirichlet(np.full(2, 0.3), size=1_000_000).astype(np.float32)
    answers = (rng.random(len(batch)) < 0.4).astype(np.int32)
    stream = streams.combine([streams.confidence_bins(), streams.proper_scores()])
    arrays = jnp.asarray(batch), jnp.asarray(answers)
    state = stream.init()
    for _ in range(10):
        state = stream.update(state, *arrays)
    figures = stream.compute(state)
    exact = batch.astype(np.float64)
    confidence, right = exact.max(axis=1), batch.argmax(axis=1) == answers
    index = np.clip(np.ceil(batch.max(axis=1) * np.float32(10)) - 1, 0, 9).astype(int)
    ece = np.abs(np.bincount(index, right - confidence)).sum() / len(batch)
    target = np.eye(2)[answers]
    assert abs(figures["conf_ece"] - ece) < 1e-6
    assert abs(figures["mean_confidence"] - confidence.mean()) < 1e-7
    assert abs(figures["brier"] - ((exact - target) ** 2).sum(axis=1).mean()) < 1e-6
    assert figures["n"] == 10_000_000


def test_more_rows_than_int32_counts_compute_nan_not_a_wrapped_figure():
    stream = streams.combine(
        [
            streams.confidence_bins(num_bins=2),
            streams.class_bins(num_options=2, num_bins=2),
            streams.proper_scores(),
            streams.ranking(num_cells=4),
        ]
    )
    state = stream.update(stream.init(), [[0.75, 0.25]], [0])
    for _ in range(32):
        state = stream.merge(state, state)
    for name, value in stream.compute(state).items():
        assert name == "n" or np.isnan(value), name


@pytest.mark.parametrize("num_cells", [16, 4096])
def test_ranking_is_within_its_own_bound(draw, num_cells):
    probs, answers = draw(300, K, seed=5)
    stream = streams.ranking(num_cells)
    figures = stream.compute(stream.update(stream.init(), probs, answers))
    exact = float(metrics.auroc(probs, answers))
    assert abs(figures["auroc"] - exact) <= figures["auroc_error"] + 1e-6
    assert figures["auroc_error"] < 2 / num_cells + 0.005
    assert abs(figures["aurc"] - metrics.aurc(probs, answers)) < (0.02 if num_cells < 100 else 1e-3)


def test_ranking_of_confidences_in_cells_of_their_own_is_exact():
    confidence = np.linspace(0.51, 0.97, 50).astype(np.float32)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    answers = np.random.default_rng(2).integers(0, 2, 50)
    stream = streams.ranking()
    figures = stream.compute(stream.update(stream.init(), probs, answers))
    assert figures["auroc_error"] == 0
    np.testing.assert_allclose(figures["auroc"], metrics.auroc(probs, answers), atol=2e-6)
    np.testing.assert_allclose(figures["aurc"], metrics.aurc(probs, answers), atol=2e-6)


_PROCESS = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from calib_jax.metrics import streams
stream = streams.confidence_bins(num_bins=2)
probs = [[0.75, 0.25]] if jax.process_index() == 0 else [[0.5, 0.5], [0.25, 0.75]]
state = stream.update(stream.init(), probs, [0] * len(probs))
figures = stream.compute(streams.merge_processes(stream, state))
print("figures", int(figures["n"]), float(figures["conf_ece"]))
"""


def test_two_processes_merge_their_states():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, address, str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    probs, answers = [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]], [0, 0, 0]
    expected = float(metrics.conf_ece(probs, answers, num_bins=2))
    for out, err in outputs:
        assert f"figures 3 {expected}" in out, err
