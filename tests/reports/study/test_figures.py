import pytest
from matplotlib.colors import to_hex

from calib_jax.reports.figures import style
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
    ece, sce, right = figures.figure1(published_cells).axes
    for ax, metric in ((ece, "conf_ece"), (sce, "sce_ovr")):
        every = changes.column(published_cells, "continuation_sum", metric).values()
        assert sorted(marks(ax)) == pytest.approx(sorted(c.change for c in every))
        assert len(marks(ax)) == 70
    assert len(marks(right)) == 2 * (70 + 70 + 50)
    said = texts(figures.figure1(published_cells))
    for text in ("20/70 fall", "0/70 fall", "4/70 fall", "2/70 fall", "2/50 fall", "7/50 fall"):
        assert text in said


def test_the_decreases_that_the_paper_names_are_in_figure_1_and_its_reading_is_said(
    published_cells,
):
    figure = figures.figure1(published_cells)
    assert figure.axes[0].get_title(loc="left") == "ECE, continuation_sum"
    # ECE falls by continuation_sum on HellaSwag for three models, and on MMLU's humanities for one.
    fallen = sum(x < 0 for x in marks(figure.axes[0]))
    cells = changes.column(published_cells, "continuation_sum", "conf_ece").values()
    assert fallen == sum(c.change < 0 for c in cells) and 0 < fallen <= 4
    letters = {
        p: {t: {"choice": by["choice"]} for t, by in found.items()}
        for p, found in published_cells.items()
    }
    assert figures.figure1(letters).axes[0].get_title(loc="left") == "ECE, choice"
    few = figures.figure1(one_pair(published_cells))
    assert "(continuation_sum)" in few.axes[0].get_xlabel()


def told(figure):
    """(line, mark, x) of every mark in the first panel, by its place and its look."""
    ax, legend = figure.axes[0], figure.legends[1]
    names = [text.get_text() for text in legend.get_texts()]
    look = {}
    for name, handle in zip(names, legend.legend_handles, strict=True):
        look[handle.get_marker(), handle.get_color(), handle.get_markeredgecolor()] = name
    assert len(look) == len(names)
    lines = [text.get_text() for text in ax.get_yticklabels()]
    return {
        (
            lines[round(y)],
            look[drawn.get_marker(), drawn.get_color(), drawn.get_markeredgecolor()],
        ): x
        for drawn in ax.lines
        if drawn.get_linestyle() == "None"
        for x, y in zip(drawn.get_xdata(), drawn.get_ydata(), strict=True)
    }


def test_beyond_30_cells_every_mark_says_its_task_and_its_pair(published_cells):
    found = told(figures.figure1(published_cells))
    asked = changes.column(published_cells, "continuation_sum", "conf_ece")
    assert found == pytest.approx({(t, p): c.change for (p, t), c in asked.items()})
    # More pairs than tasks: the pairs are the lines then.
    few = {
        f"{pair} {i}": {task: published_cells[pair][task] for task in ("piqa", "arc_easy", "sciq")}
        for pair in published_cells
        for i in range(2)
    }
    found = told(figures.figure1(few))
    asked = changes.column(few, "continuation_sum", "conf_ece")
    assert len(found) == 42 and found == pytest.approx({k: c.change for k, c in asked.items()})


def test_figure_1_names_the_tasks_of_few_cells(published_cells):
    few = one_pair(published_cells)
    left, right = figures.figure1(few).axes
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
        for figure in (figures.figure1(cells), figures.figure2(cells)):
            figure.canvas.draw()
            box = figure.bbox
            titles = [
                ax.title if not ax.get_title(loc="left") else ax._left_title for ax in figure.axes
            ]
            extents = [t.get_window_extent() for t in titles if t.get_text()]
            for i, one in enumerate(extents):
                assert not any(one.overlaps(other) for other in extents[:i])
            for ax in figure.axes:
                for text in (*ax.get_yticklabels(), *ax.texts, ax.xaxis.label):
                    if text.get_text():
                        extent = text.get_window_extent()
                        assert extent.x0 >= -1 and extent.x1 <= box.x1 + 1, text.get_text()
            for drawn in figure.legends:
                legend = drawn.get_window_extent()
                assert legend.x0 >= 0 and legend.x1 <= box.x1 + 1
                top = max(t.y1 for t in [figure.axes[0].get_window_extent(), *extents])
                assert legend.y0 > top - 1
                assert not legend.overlaps(figure.texts[0].get_window_extent())
            boxes = [drawn.get_window_extent() for drawn in figure.legends]
            assert len(boxes) == 1 or not boxes[0].overlaps(boxes[1])


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


def test_the_colours_follow_the_theme(published_cells):
    few = one_pair(published_cells)
    known = {to_hex(light) for _, light, _ in style.THEME}
    for figure in (figures.figure1(few), figures.figure2(few)):
        used = {to_hex(line.get_color()) for ax in figure.axes for line in ax.lines}
        assert used <= known
