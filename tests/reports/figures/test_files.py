import pytest
from PIL import Image

from calib_jax.reports.figures import canvas, files
from calib_jax.reports.views import measurement, pictures

LOG = [
    {
        "step": 0,
        "epoch": 0,
        "kind": "estep",
        "conf_ece": 0.4,
        "accuracy": 0.2,
        "sorted_confidences": [[0.5, 0.6, 0.7, 0.8, 0.9]],
    },
    {"step": 1, "epoch": 0, "kind": "train", "loss": 2.0},
]
KINDS = ("reliability", "curve", "histogram", "risk_coverage", "boxes")


def figures_of(summary, scores, log=()):
    view = measurement.view(summary, scores, num_bins=10, edges="right", log=log, title="A title")
    return view.figures


def test_writes_every_figure_as_png_and_svg(tmp_path, run):
    result, scores = run
    summary = {"states": ["before"], "before": {"near": result["before"]["near"]}}
    written = files.write(tmp_path, figures_of(summary, scores, LOG))
    names = {f"{kind}_near" for kind in KINDS}
    names |= {"classwise_near_before", "boxes_training", "training"}
    paths = {f"figures/{name}" for name in names} | {"reliability"}
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    assert names == {f"{path}.{kind}" for path in paths for kind in ("png", "svg")}
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == names
    for path in written:
        if path.suffix == ".png":
            Image.open(path).verify()
        else:
            assert path.read_bytes().lstrip().startswith(b"<?xml")


def test_no_text_of_any_figure_is_cut_off(run):
    result, scores = run
    for name, draw in figures_of(result, scores, LOG).items():
        figure = draw()
        box = figure.get_tightbbox(figure.canvas.get_renderer())
        width, height = figure.get_size_inches()
        assert box.x0 >= -0.01 and box.y0 >= -0.01, name
        assert box.x1 <= width + 0.01 and box.y1 <= height + 0.01, name


def test_many_splits_and_states_are_limited_and_the_page_says_so(run):
    row = run[0]["before"]["near"]
    states = {f"m{i}": {f"s{k}": row for k in range(9)} for i in range(7)}
    kept, notes = pictures.chosen(states)
    assert len(kept) == pictures.MAX_STATES
    first = [f"s{k}" for k in range(pictures.MAX_SPLITS)]
    assert all(list(rows) == first for rows in kept.values())
    assert len(notes) == 2
    assert "6 of 9 splits" in notes[0].text and "4 of 7 columns" in notes[1].text
    few, notes = pictures.chosen({"m": {"s": row}})
    assert few == {"m": {"s": row}} and notes == []


def test_a_function_is_drawn_when_its_turn_comes_and_a_failure_leaves_no_half(tmp_path):
    def fail():
        raise RuntimeError("no figure")

    blank = canvas.drawn(canvas.new_figure)
    with pytest.raises(RuntimeError, match="no figure"):
        files.write(tmp_path, {"one": blank(2, 1), "deep/two": lambda: blank(2, 1), "three": fail})
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"one.png", "one.svg", "deep/two.png", "deep/two.svg"}
    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (300, 150)


def test_names_with_separators_make_one_file_each(run):
    result, scores = run
    summary = {"states": ["before"], "before": {"a/b": result["before"]["near"]}}
    found = figures_of(summary, {"before": {"a/b": scores["before"]["near"]}})
    assert {"reliability", "figures/reliability_a_b", "figures/curve_a_b"} <= set(found)
    assert all(name.count("/") <= 1 for name in found)
