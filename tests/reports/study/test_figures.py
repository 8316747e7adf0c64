import pytest
from matplotlib.colors import to_hex

from calib_jax.reports.figures import drawing
from calib_jax.reports.study import changes, figures


def marks(ax):
    """The x of every mark in the axes."""
    return [x for line in ax.lines if line.get_linestyle() == "None" for x in line.get_xdata()]


def one_pair(cells, name="OLMo-7B", tasks=("arc_easy", "piqa")):
    return {name: {task: cells[name][task] for task in tasks}}


def texts(figure):
    found = [t.get_text() for ax in figure.axes for t in (*ax.texts, *ax.get_yticklabels())]
    return found + [ax.get_title(loc="left") for ax in figure.axes]


def test_figure_1_shows_every_cell(published_cells):
    left, right = figures.figure1(published_cells).axes
    every = [
        change.change
        for metric in ("conf_ece", "sce_ovr")
        for change in changes.column(published_cells, "choice", metric).values()
    ]
    assert sorted(marks(left)) == pytest.approx(sorted(every)) and len(every) == 140
    assert len(marks(right)) == 2 * (70 + 70 + 50)
    said = texts(figures.figure1(published_cells))
    for text in ("20/70 fall", "0/70 fall", "4/70 fall", "2/70 fall", "2/50 fall", "7/50 fall"):
        assert text in said
    assert "Qwen2-72B" in said  # a line a model, where cells are many


def test_figure_1_names_the_tasks_of_few_cells(published_cells):
    few = one_pair(published_cells)
    left, right = figures.figure1(few, "continuation_sum").axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["arc_easy", "piqa"]
    assert sorted(marks(left)) == pytest.approx([0.021, 0.028, 0.047, 0.088])


def test_figure_2_has_a_panel_for_each_metric_and_method(published_cells):
    figure = figures.figure2(published_cells)
    assert len(figure.axes) == 6
    ratios = changes.column(published_cells, "choice", "sce_ovr").values()
    panel = next(
        ax for ax in figure.axes if ax.get_title(loc="left").startswith("SCE (ovr), choice")
    )
    assert sorted(marks(panel)) == pytest.approx(sorted(100 * c.ratio for c in ratios))
    for ax in figure.axes:
        low, high = ax.get_xlim()
        assert all(low < x < high for x in marks(ax))


def test_no_two_pairs_look_alike():
    styles = [tuple(sorted(figures._style(p).items())) for p in range(18)]
    assert len(set(styles)) == 18


def test_no_text_overlaps_or_leaves_the_figure(published_cells):
    for cells in (published_cells, one_pair(published_cells)):
        for _, figure in figures.draw_all(cells):
            figure.canvas.draw()
            box = figure.bbox
            titles = [ax.title if not ax.get_title(loc="left") else ax._left_title
                      for ax in figure.axes]  # fmt: skip
            extents = [t.get_window_extent() for t in titles if t.get_text()]
            for i, one in enumerate(extents):
                assert not any(one.overlaps(other) for other in extents[:i])
            for ax in figure.axes:
                for text in (*ax.get_yticklabels(), *ax.texts, ax.xaxis.label):
                    if text.get_text():
                        extent = text.get_window_extent()
                        assert extent.x0 >= -1 and extent.x1 <= box.x1 + 1, text.get_text()
            legend = figure.legends[0].get_window_extent()
            assert legend.x0 >= 0 and legend.x1 <= box.x1 + 1
            top = figure.axes[0].get_window_extent().y1
            assert legend.y0 > top
            assert not legend.overlaps(figure.texts[0].get_window_extent())


def test_a_single_cell_makes_both_figures():
    cell = changes.Cell({name: changes.between(0.2, 0.1) for name in changes.METRICS})
    cells = changes.ranked({"a": {"t": {"choice": cell}}})
    left, right = figures.figure1(cells).axes
    assert marks(left) == pytest.approx([-0.1] * 2) and marks(right) == pytest.approx([-50] * 2)
    assert [len(marks(ax)) for ax in figures.figure2(cells).axes] == [1, 1]


def test_measured_cells_show_the_label_form_and_ratios_that_are_missing_are_left_out():
    cell = changes.Cell(
        {name: changes.between(0.0, 0.1, (0.0, 0.2)) for name in changes.METRICS}, n=5
    )
    cells = changes.ranked({"a": {"t": {"choice": cell}}})
    assert figures.sce_of(cells) == "cw_ece"
    left, right = figures.figure1(cells).axes
    assert len(marks(left)) == 2 and marks(right) == []
    assert len(figures.figure2(cells).axes) == 2


def test_files_and_colours(published_cells, tmp_path):
    few = one_pair(published_cells)
    paths = figures.write(tmp_path, few)
    assert {p.name for p in paths} == {
        "figure1.png", "figure1.svg", "figure2.png", "figure2.svg"
    }  # fmt: skip
    assert all(p.stat().st_size > 5000 for p in paths)
    known = {to_hex(light) for _, light, _ in drawing.THEME}
    for _, figure in figures.draw_all(few):
        used = {to_hex(line.get_color()) for ax in figure.axes for line in ax.lines}
        assert used <= known
