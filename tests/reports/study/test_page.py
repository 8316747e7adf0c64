import re

import pytest

from calib_jax.reports.study import changes, page

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def cells():
    found = {
        "conf_ece": changes.between(0.1, 0.3, (0.15, 0.25)),
        "cw_ece": changes.between(0.2, 0.25, (-0.01, 0.11)),
        "sce_ovr": changes.between(0.4, 0.6, (0.1, 0.3)),
        "accuracy": changes.between(0.5, 0.55, (0.01, 0.1)),
    }
    cell = changes.Cell(found, n=60)
    by_task = {task: {"choice": cell} for task in ("arc_easy", "piqa")}
    return changes.ranked({EVIL: by_task, "two": by_task})


@pytest.fixture(scope="module")
def text(cells, published_cells):
    result = {"compared": {"pairs": {EVIL: f"{EVIL} → b"}}, "wall_time_s": 3.5}
    return page.render(result, cells, published_cells, {"key": EVIL}, "python -m calib_jax.main")


def test_the_page_is_whole_and_takes_nothing_from_outside(text):
    assert "alert" in text and EVIL not in text
    assert not re.search(r"https?:|@import|<(img|link|iframe)", text.replace("github.com", ""))
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    for tag in ("table", "section", "figure", "svg", "td", "tr", "h2"):
        assert len(re.findall(rf"<{tag}[\s>]", text)) == text.count(f"</{tag}>"), tag


def test_the_page_says_what_was_found(text, cells):
    found = cells["two"]["arc_easy"]["choice"].changes["conf_ece"]
    assert f"{found.pt:.3f} → {found.it:.3f}" in text
    low, high = found.interval
    assert f"{found.change:+.3f} [{low:+.3f}, {high:+.3f}]" in text
    for heading in ("What was compared", "Ranking", "Changes", "Figures", "Published figures"):
        assert f">{heading}</h2>" in text
    assert text.count("<svg") == 4
    # Four cells: ECE is surely worse, accuracy surely better, and the SCE may be either.
    assert text.count('<td class="worse">') == text.count('<td class="better">') == 4
    # The published SCE is not the class-wise error, and the page does not mix them.
    assert "fits the one-vs-rest form" in text
    assert "choice: lower after alignment: ECE 20 of 70; SCE, one-vs-rest 0 of 70" in text


def test_published_figures_alone_make_a_page(published_cells):
    text = page.render({"published_files": {"x.csv": "sce_ovr"}}, {}, published_cells)
    assert "<p>Published figures of x.csv (SCE, one-vs-rest), not measured here: lower" in text
    assert "interval" not in text[text.index("<h1>") : text.index("<script>")]
    assert "by choice ECE in 20 of 70 and SCE, one-vs-rest in 0 of 70" in text
    assert ">Changes</h2>" not in text and text.count("<svg") == 2


def test_published_class_wise_figures_are_not_called_one_vs_rest(cells):
    found = {m: c for m, c in cells["two"]["arc_easy"]["choice"].changes.items() if m != "sce_ovr"}
    cell = {"t": {"choice": changes.Cell(found)}}
    text = page.render({"published_files": {"x.csv": "cw_ece"}}, {}, {"a": cell, "b": cell})
    assert "published: choice, SCE" in text and "x.csv (SCE), not measured here" in text
    assert "one-vs-rest" not in text and "sce_ovr" not in text


def test_settings_that_runs_overrule_are_said(cells):
    text = page.render({"not_used": ["Not used: config.seed=1."]}, {"two": cells["two"]})
    assert "Not used: config.seed=1." in text


def test_one_pair_is_not_ranked(cells):
    text = page.render({}, {"two": cells["two"]})
    assert ">Ranking</h2>" not in text and ">Changes</h2>" in text


def test_measured_and_published_changes_of_one_name_stand_together(cells, published_cells):
    ours = {"OLMo-7B": {"arc_easy": cells["two"]["arc_easy"]}}
    text = page.render({}, ours, published_cells)
    part = text[text.index("Measured, and published beneath") :]
    row = part[part.index("<tbody>") : part.index("</tbody>")]
    assert row.count("<tr>") == 1 and ">OLMo-7B<" in row
    change = cells["two"]["arc_easy"]["choice"].changes["sce_ovr"]
    assert f"{change.change:+.3f}" in row and "<small>+0.350, +89.4%</small>" in row
    assert "published beneath" not in page.render({}, {"two": cells["two"]}, published_cells)
