import re

import pytest

from calib_jax.reports.study import changes, page

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def cells(make_scores):
    cell = changes.measure(make_scores(), make_scores(bias=2.0, seed=1), num_resamples=20)
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
    assert text.count("<svg") == 4 and 'class="worse"' in text
    # The published SCE is not the class-wise error, and the page does not mix them.
    assert "fits the one-vs-rest form" in text
    assert "choice: lower after alignment: ECE 20 of 70; SCE, one-vs-rest 0 of 70" in text


def test_published_figures_alone_make_a_page(published_cells):
    text = page.render({}, {}, published_cells)
    assert "by choice ECE in 20 of 70 and SCE, one-vs-rest in 0 of 70" in text
    assert ">Changes</h2>" not in text and text.count("<svg") == 2


def test_one_pair_is_not_ranked(cells):
    text = page.render({}, {"two": cells["two"]})
    assert ">Ranking</h2>" not in text and ">Changes</h2>" in text
