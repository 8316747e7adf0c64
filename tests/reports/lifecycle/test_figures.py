"""Curves over the axis, and reliability diagrams of a series."""

import numpy as np
import pytest

from calib_jax.reports.figures.canvas import png
from calib_jax.reports.lifecycle import figures
from tests.reports.lifecycle.conftest import rows_of


def curves(run, axis="scale", places=None):
    result, _ = run
    rows = rows_of(result)
    models = {label: {"place": x} for label, x in places.items()} if places else result["models"]
    return rows, figures.draw_curves(rows, models, axis)


def named(labels):
    return {label: {"place": None} for label in labels}


def test_curves_hold_every_figure_with_its_interval_on_a_log_axis(run):
    rows, figure = curves(run)
    for ax, key in zip(figure.axes, ("conf_ece", "accuracy"), strict=True):
        assert ax.get_xscale() == "log"
        assert [text.get_text() for text in ax.get_xticklabels()] == ["70m", "1b", "12b"]
        for part in ("text", "facts"):
            (line,) = [line for line in ax.lines if line.get_label() == part]
            np.testing.assert_allclose(line.get_xdata(), [70e6, 1e9, 12e9])
            values = [rows[label][part][key] for label in rows]
            np.testing.assert_allclose(line.get_ydata(), values)
        drawn = {tuple(segment[:, 1]) for bars in ax.collections for segment in bars.get_segments()}
        asked = {tuple(row[part][f"{key}_ci"]) for row in rows.values() for part in row}
        assert drawn == asked


def test_steps_begin_at_zero_and_names_stand_in_order(run):
    _, figure = curves(run, "step", {"70m": 0.0, "1b": 512.0, "12b": 143_000.0})
    ax = figure.axes[0]
    assert ax.get_xscale() == "symlog" and ax.get_xlim()[0] < 0
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "512", "143k"]
    _, figure = curves(run, "setting", dict.fromkeys(("70m", "1b", "12b")))
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "text"]
    assert line.get_xdata().tolist() == [0, 1, 2]


def test_numbers_are_joined_in_the_axis_order_whatever_the_series(run):
    _, figure = curves(run, "scale", {"70m": 9e9, "1b": 1e9, "12b": 5e9})
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "text"]
    assert line.get_xdata().tolist() == [1e9, 5e9, 9e9]


SERIES = ["epoch0", "full-epoch1", "full-epoch2", "lora-epoch1", "lora-epoch2"]


def settings_over_epochs(run, labels=SERIES):
    """Rows and models of several settings, in the order in which a user lists them."""
    given = list(rows_of(run[0]).values())
    rows = {label: given[i % 3] for i, label in enumerate(labels)}
    models = {}
    for label in labels:
        setting, _, epoch = label.rpartition("epoch")
        models[label] = {"place": float(epoch), "setting": setting.strip("-")}
    return rows, models


def test_the_names_of_many_settings_stand_clear_of_all_else(run):
    names = [
        f"alpaca-{kind}-{data}" for kind in ("full", "lora") for data in ("all", "half", "new")
    ]
    labels = ["epoch0", *(f"{name}-epoch{i}" for name in names for i in (1, 2))]
    rows, models = settings_over_epochs(run, labels)
    figure = figures.draw_curves(rows, models, "epoch")
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert 0 <= legend.x0 and legend.x1 <= figure.bbox.x1
    assert not legend.overlaps(figure.texts[0].get_window_extent())
    assert legend.y0 > max(ax.get_tightbbox().y1 for ax in figure.axes)


def test_every_setting_is_a_line_of_its_own(run):
    rows, models = settings_over_epochs(run)
    figure = figures.draw_curves(rows, models, "epoch")
    # A row of panels a part.
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "text: conf-ECE",
        "text: accuracy",
        "facts: conf-ECE",
        "facts: accuracy",
    ]
    for ax, part in zip(figure.axes[::2], ("text", "facts"), strict=True):
        lines = {line.get_label(): line for line in ax.lines if line.get_label()[0] != "_"}
        assert list(lines) == ["full", "lora"]
        for name, line in lines.items():
            # The model before tuning is where every setting begins.
            labels = ["epoch0", f"{name}-epoch1", f"{name}-epoch2"]
            assert list(line.get_xdata()) == [0, 1, 2]
            np.testing.assert_allclose(
                line.get_ydata(), [rows[label][part]["conf_ece"] for label in labels]
            )
        assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "2"]
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert box.y1 < figure.legends[0].get_window_extent().y0


@pytest.mark.parametrize(
    ("labels", "lines"),
    [
        (SERIES[1:], {"full": SERIES[1:3], "lora": SERIES[3:]}),
        (["epoch0", "epoch1"], {"": ["epoch0", "epoch1"]}),
        (["epoch0", "full-epoch1"], {"full": ["epoch0", "full-epoch1"]}),
        (["epoch0", "epoch1", "full-epoch1"], {"": ["epoch0", "epoch1"], "full": ["full-epoch1"]}),
    ],
)
def test_a_lone_model_without_a_setting_belongs_to_all_and_several_to_none(run, labels, lines):
    _, models = settings_over_epochs(run, labels)
    assert figures.lines_of(models, labels) == lines


def test_sizes_of_several_families_are_named_by_their_size(run):
    rows = dict(zip(("a-70m", "b-70m", "b-1.4b"), rows_of(run[0]).values(), strict=True))
    models = {
        n: {"place": x, "setting": n[0]} for n, x in zip(rows, (70e6, 70e6, 1.4e9), strict=True)
    }
    ax = figures.draw_curves(rows, models, "scale").axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["70m", "1.4b"]


@pytest.mark.parametrize("labels", [("a", "b", "c"), ("a long name", "another long name", "third")])
def test_nothing_empty_is_left_below_the_axes(run, labels):
    rows = dict(zip(labels, rows_of(run[0]).values(), strict=True))
    figure = figures.draw_curves(rows, named(labels), "setting")
    figure.canvas.draw()
    drawn = [ax.get_tightbbox() for ax in figure.axes]
    assert 0 < min(box.y0 for box in drawn) / figure.dpi < 0.2
    labels = [text for ax in figure.axes for text in ax.get_xticklabels()]
    assert all(text.get_window_extent().x1 < figure.bbox.x1 for text in labels)
    for ax in figure.axes:  # mean confidence lies above accuracy here
        assert max(max(line.get_ydata()) for line in ax.lines) < ax.get_ylim()[1]
    # The axes keep their size, and stay below the legend.
    for ax in figure.axes:
        box = ax.get_window_extent()
        assert (box.width / figure.dpi, box.height / figure.dpi) == pytest.approx((4.05, 2.5))
    assert max(box.y1 for box in drawn) < figure.legends[0].get_window_extent().y0


def test_a_part_that_one_model_lacks_is_a_gap(run):
    result, _ = run
    rows = {label: dict(row) for label, row in rows_of(result).items()}
    del rows["1b"]["facts"]
    figure = figures.draw_curves(rows, named(rows), "setting")
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "facts"]
    assert line.get_xdata().tolist() == [0, 2]


def test_one_model_has_no_curve(run):
    rows = {"70m": rows_of(run[0])["70m"]}
    assert figures.draw_curves(rows, {"70m": {"place": 70e6}}, "scale") is None


def test_the_panels_bins_are_the_predictions(run, make_tokens):
    tokens = make_tokens(lift=0.1)
    shown = figures.panel(run[0]["1b"]["text"], tokens, 10, "right")
    inside = (tokens.confidences > shown.bins.edges[4]) & (
        tokens.confidences <= shown.bins.edges[5]
    )
    assert shown.bins.counts[4] == inside.sum() and shown.bins.counts.sum() == len(tokens)
    assert shown.bins.accuracy[4] == pytest.approx(tokens.correct[inside].mean())


def test_the_diagrams_of_a_part_stand_together(run):
    figure = figures.draw_reliability("text", run[1]["text"])
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[:3] == ["70m", "1b", "12b"]
    assert png(figure, dpi=40).startswith(b"\x89PNG")


def test_of_a_long_series_ends_and_middle_are_drawn():
    labels = [str(i) for i in range(40)]
    chosen = figures.spread(labels)
    assert len(chosen) == figures.MAX_MODELS and chosen[0] == "0" and chosen[-1] == "39"
    assert figures.spread(["a"]) == ["a"] and figures.spread(labels[:12]) == labels[:12]
