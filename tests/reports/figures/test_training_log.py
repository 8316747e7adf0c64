import numpy as np

from calib_jax.reports.figures import training_log

LOG = [
    {"step": 0, "epoch": 0, "kind": "estep", "conf_ece": 0.4, "accuracy": 0.25},
    {"step": 0, "epoch": 0, "kind": "eval", "split": "near", "conf_ece": 0.5, "accuracy": 0.3},
    *({"step": s, "epoch": 0, "kind": "train", "loss": 3.0 - s} for s in (1, 2)),
    {"step": 2, "epoch": 1, "kind": "eval", "split": "near", "conf_ece": None, "accuracy": 0.2},
]


def test_curves_are_the_logged_numbers():
    figure = training_log.draw(LOG)
    ece, accuracy, loss = figure.axes
    curves = {line.get_label(): line.get_xydata() for line in ece.lines}
    assert curves["training set (E-step)"].tolist() == [[0, 0.4]]
    np.testing.assert_array_equal(curves["near"], [[0, 0.5], [2, np.nan]])
    assert loss.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 1.0]]
    assert accuracy.get_ylim()[1] > 0.3


def test_table_has_a_row_per_measurement_and_no_empty_column():
    header, rows = training_log.table(LOG)
    assert header == ["step", "epoch", "questions of", "conf-ECE", "accuracy"]
    assert rows == [
        ["0", "0", "training set (E-step)", "0.400", "0.250"],
        ["0", "0", "near", "0.500", "0.300"],
        ["2", "1", "near", "–", "0.200"],
    ]


def test_nothing_logged_draws_nothing():
    assert training_log.draw([]) is None
    assert training_log.table([]) == (["step", "epoch", "questions of"], [])


def test_a_metric_that_one_split_lacks_leaves_its_curve_out():
    log = [*LOG, {"step": 2, "epoch": 1, "kind": "eval", "split": "far", "accuracy": 0.5}]
    ece, accuracy, _ = training_log.draw(log).axes
    assert "far" not in [line.get_label() for line in ece.lines]
    assert "far" in [line.get_label() for line in accuracy.lines]


def test_a_loss_that_is_never_finite_draws_no_curve():
    log = [{"step": 1, "epoch": 0, "kind": "train", "loss": None}]
    assert training_log.draw(log) is None and not training_log.has_curves(log)
