import csv
import io
import re

import pytest
import rich.console

from calib_jax.reports import console
from calib_jax.reports.page.render import render
from calib_jax.reports.study import changes
from calib_jax.reports.views import study
from calib_jax.reports.writers import plain

EVIL = "<script>alert('x')</script>"


def summary_of(cells, published=None, **more):
    """A study's summary.json."""
    own = {"pairs": changes.as_dict(cells), "published": changes.as_dict(published or {})}
    return plain({**own, "published_files": {}, **more})


def printed(summary, width=110):
    target = rich.console.Console(file=io.StringIO(), width=width)
    console.show(study.console(summary), target)
    return target.file.getvalue()


def page(summary, *more):
    return render(study.view(summary), summary, *more)


def tables_of(summary):
    """Text of every table file by its name."""
    return {path.removeprefix("tables/"): t for path, t in study.view(summary).files.items()}


def unfolded(text):
    return " ".join(text.split())


def cell(ece, accuracy=(0.5, 0.55), interval=None, sce=(0.2, 0.3)):
    return changes.Cell(
        {
            "conf_ece": changes.between(*ece, interval),
            "cw_ece": changes.between(*sce, (0.05, 0.15)),
            "sce_ovr": changes.between(0.2, 0.4, (0.1, 0.3)),
            "accuracy": changes.between(*accuracy, (0.01, 0.1)),
        },
        n=1234,
        dropped=7,
    )


@pytest.fixture(scope="module")
def cells():
    return changes.ranked(
        {
            "a_1|x": {"t": {"choice": cell((0.1, 0.3), interval=(0.15, 0.25))}},
            "b": {"t": {"choice": cell((0.0, 0.2), (0.5, 0.4))}},
            "c": {"t": {"choice": cell((0.2, 0.1), interval=(-0.2, 0.01))}},
        }
    )


# --- Console --------------------------------------------------------------------------------------


def test_the_console_shows_every_pair_and_the_ranking(cells):
    text = printed(summary_of(cells))
    for part in (
        "0.100 → 0.300",
        "+200.0%",
        "a_1|x = b = c",
        "By choice lower after alignment: ECE 1 of 3",
        "7 questions are left out",
        "Pairs by the change ratio of SCE, choice; rank 1: the largest",
    ):
        assert part in unfolded(text), part


def test_intervals_need_width_and_values_a_little(cells):
    summary = summary_of(cells)
    assert "+0.200 [+0.150, +0.250]" in printed(summary, 120)
    narrow = printed(summary, 80)
    assert "[+0.150" not in narrow and "0.100 → 0.300" in narrow
    assert "report.html hold them" in unfolded(narrow)


def test_many_rows_show_changes_and_ratios_alone():
    by_task = {f"t{i}": {"choice": cell((0.1, 0.3), interval=(0.15, 0.25))} for i in range(25)}
    text = printed(summary_of({"a": by_task}), 200)
    assert "+0.200 (+200.0%)" in text and "→ 0.300" not in text and "[" not in text
    assert "changes.md and report.html hold its 95% interval" in text


@pytest.mark.parametrize("width", [50, 60])
def test_nothing_is_cut_on_a_narrow_console(published_cells, width):
    text = printed(summary_of({}, published_cells), width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    # By letters of OLMo-7B on ARC-Easy, broken at a blank or not.
    for part in ("+0.350", "(+89.4%)", "+51.54", "(+191.7%)"):
        assert part in text, part


def test_published_figures_are_shown_as_such(published_cells):
    few = {"OLMo-7B": {t: published_cells["OLMo-7B"][t] for t in ("arc_easy", "sciq")}}
    summary = summary_of({}, few, published_files={"choice.csv": "sce_ovr"})
    text = printed(summary, 200)
    assert "Published figures of choice.csv (SCE, one-vs-rest), not measured here." in text
    assert "choice: base → aligned, published" in text
    assert "a range is what the rounding leaves open" in text
    # No interval is known.
    assert "changes.md" not in text
    files = tables_of(summary)
    assert "bootstrap" not in files["published/changes.md"]
    assert "a range is what the rounding leaves open" in files["published/changes.tex"]
    # 0.350 / 89.4 %, outwards.
    assert "0.390–0.393 → 0.740–0.743" in text and "+0.350" in text and "+89.4%" in text
    row = list(csv.DictReader(io.StringIO(files["published/changes.csv"])))[1]
    assert (row["metric"], row["pt"], row["low"]) == ("sce_ovr", "", "")
    low, high = float(row["pt_low"]), float(row["pt_high"])
    assert 0.3495 / 0.8945 < low < 0.350 / 0.894 < high < 0.3505 / 0.8935


def test_cells_of_two_forms_of_sce_stand_in_one_table():
    one, other = (
        changes.Cell({m: changes.between(0.2, 0.3) for m in ("conf_ece", sce, "accuracy")})
        for sce in ("cw_ece", "sce_ovr")
    )
    cells = changes.ranked({"a": {"t": {"choice": one}}, "b": {"t": {"continuation_sum": other}}})
    summary = summary_of({}, cells)  # files of the authors hold one form each
    assert "SCE, one-vs-rest 0 of 1" in unfolded(printed(summary))
    assert tables_of(summary)["published/changes.md"].count("0.200 → 0.300") == 6


def test_settings_that_runs_overrule_and_little_mass_are_said(cells):
    said = {"not_used": ["Not used: config.seed=1."], "low_mass": ["the letters hold little"]}
    summary = summary_of(cells, **said)
    for text in (unfolded(printed(summary)), page(summary)):
        assert "Not used: config.seed=1." in text and "The letters hold little." in text


# --- Files ----------------------------------------------------------------------------------------


def test_files_hold_every_cell(cells):
    files = study.view(summary_of(cells)).files
    assert set(files) == {
        *(f"tables/{name}" for name in ("changes.csv", "changes.md", "changes.tex")),
        *(f"tables/{name}" for name in ("table1.md", "table1.tex")),
        "csv/sce/choice.csv",
        "csv/sce_ovr/choice.csv",
    }
    rows = list(csv.DictReader(io.StringIO(files["tables/changes.csv"])))
    assert len(rows) == 3 * 4
    row = next(r for r in rows if (r["pair"], r["metric"]) == ("a_1|x", "conf_ece"))
    assert [float(row[k]) for k in ("pt", "it", "low", "high", "ratio")] == pytest.approx(
        [0.1, 0.3, 0.15, 0.25, 2.0]
    )
    assert row["n"] == "1234" and row["rank"] == "1"
    row = next(r for r in rows if (r["pair"], r["metric"]) == ("b", "conf_ece"))
    assert row["ratio"] == row["rank"] == row["low"] == ""
    markdown = files["tables/changes.md"]
    assert r"a_1\|x" in markdown
    assert "+0.200 [+0.150, +0.250]<br>+200.0%: 0.100 → 0.300" in markdown
    widths = {
        line.replace(r"\|", "").count("|") for line in markdown.splitlines() if line[:1] == "|"
    }
    assert widths == {8}
    latex = files["tables/changes.tex"]
    assert r"a\_1\textbar{}x" in latex and r"0.100 $\to$ 0.300" in latex and "→" not in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    assert "cw" not in files["tables/table1.md"]


def test_the_ranking_stands_in_table_1(cells):
    text = tables_of(summary_of(cells))["table1.md"]
    # ECE: b has no ratio; SCE: all three share the first place.
    assert "| rank | t |\n|---:|---|\n| 1 | a_1\\|x |\n| 2 | c |\n" in text
    assert "| 1 | a_1\\|x = b = c |\n| 2 |  |\n| 3 |  |\n" in text
    assert "share a rank" in text and "1 change has no ratio and no rank" in text


# --- Page -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evil():
    found = {
        "conf_ece": changes.between(0.1, 0.3, (0.15, 0.25)),
        "cw_ece": changes.between(0.2, 0.25, (-0.01, 0.11)),
        "sce_ovr": changes.between(0.4, 0.6, (0.1, 0.3)),
        "accuracy": changes.between(0.5, 0.55, (0.01, 0.1)),
    }
    by_task = {task: {"choice": changes.Cell(found, n=60)} for task in ("arc_easy", "piqa")}
    return changes.ranked({EVIL: by_task, "two": by_task})


@pytest.fixture(scope="module")
def text(evil, published_cells):
    compared = {"pairs": {EVIL: f"{EVIL} → b"}}
    summary = summary_of(evil, published_cells, compared=compared, wall_time_s=3.5)
    return page(summary, {"key": EVIL}, "python -m calib_jax.main")


def test_the_page_is_whole_and_takes_nothing_from_outside(text):
    assert "alert" in text and EVIL not in text
    assert not re.search(r"https?:|@import|<(img|link|iframe)", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    for tag in ("table", "section", "figure", "svg", "td", "tr", "h2"):
        assert len(re.findall(rf"<{tag}[\s>]", text)) == text.count(f"</{tag}>"), tag


def test_the_page_says_what_was_found(text):
    assert ">+0.200 <small>[+0.150, +0.250]</small> <small>+200.0%: 0.100 → 0.300</small>" in text
    for heading in ("What was compared", "Ranking", "Changes", "Figures", "Published figures"):
        assert f">{heading}</h2>" in text
    assert text.count("<svg") == 4
    # ECE is surely worse, accuracy surely better, and the SCE may be either: in four rows here.
    part = text[text.index(">Changes</h2>") : text.index(">Figures</h2>")]
    assert part.count('<td class="worse">') == part.count('<td class="better">') == 4
    # The published SCE is not the class-wise error, and the page does not mix them.
    assert "fits the one-vs-rest form" in text
    assert "By choice lower after alignment: ECE 20 of 70; SCE, one-vs-rest 0 of 70" in text


def test_published_figures_alone_make_a_page(published_cells):
    text = page(summary_of({}, published_cells, published_files={"x.csv": "sce_ovr"}))
    assert "<p>Published figures of x.csv (SCE, one-vs-rest), not measured here: lower" in text
    assert "interval" not in text[text.index("<h1>") : text.index("<script>")]
    assert "by choice ECE in 20 of 70 and SCE, one-vs-rest in 0 of 70" in text
    assert ">Changes</h2>" not in text and text.count("<svg") == 2


def test_published_class_wise_figures_are_not_called_one_vs_rest(evil):
    found = {m: c for m, c in evil["two"]["arc_easy"]["choice"].changes.items() if m != "sce_ovr"}
    by_task = {"t": {"choice": changes.Cell(found)}}
    published = {"a": by_task, "b": by_task}
    text = page(summary_of({}, published, published_files={"x.csv": "cw_ece"}))
    assert "Published: pairs by the change ratio of SCE, choice" in text
    assert "x.csv (SCE), not measured here" in text
    assert "one-vs-rest" not in text and "sce_ovr" not in text


def test_one_pair_is_not_ranked(evil):
    text = page(summary_of({"two": evil["two"]}))
    assert ">Ranking</h2>" not in text and ">Changes</h2>" in text


def test_measured_and_published_changes_of_one_name_stand_together(evil, published_cells):
    ours = {"OLMo-7B": {"arc_easy": evil["two"]["arc_easy"]}}
    text = page(summary_of(ours, published_cells))
    part = text[text.index("Measured, and published beneath") :]
    row = part[part.index("<tbody>") : part.index("</tbody>")]
    assert row.count("<tr>") == 1 and ">OLMo-7B<" in row
    change = ours["OLMo-7B"]["arc_easy"]["choice"].changes["sce_ovr"]
    assert f"{change.change:+.3f}" in row and "<small>+0.350 (+89.4%)</small>" in row
    two = page(summary_of({"two": evil["two"]}, published_cells))
    assert "published beneath" not in two


def test_the_figures_are_files_too(cells, published_cells):
    view = study.view(summary_of(cells, published_cells))
    assert set(view.figures) == {
        f"{folder}/figure{i}" for folder in ("figures", "figures/published") for i in (1, 2)
    }
