import csv
import io

import pytest
import rich.console

from calib_jax.reports.study import changes, table

# Table 1 of the paper: the order of the models under each task, by letters.
MODELS = {
    "O": "OLMo-7B", "2": "Llama-2-7b", "g": "gemma-7b", "8": "Llama-3-8B", "M": "Mistral-7B",
    "7": "Llama-3-70B", "Q": "Qwen2-72B",
}  # fmt: skip
PAPER = {
    "arc_easy": "O2g8M7Q",
    "arc_challenge": "O2g8M7Q",
    "mmlu_stem": "O2g8M7Q",
    "mmlu_humanities": "O2g8M7Q",
    "piqa": "O2g8M7Q",
    "hellaswag": "O2g87MQ",
    "medmcqa": "Og278MQ",
    "mmlu_other": "O2gM87Q",
    "mmlu_social_sciences": "O2g8MQ7",
}


def test_the_papers_table_1(published_cells):
    """From ratios alone: the ranks are computed anew."""
    found = table.ranking(changes.ranked(published_cells), "choice", "sce_ovr")
    orders = {
        task: order
        for tasks, order in zip(found.columns, found.orders, strict=True)
        for task in tasks
    }
    for task, letters in PAPER.items():
        assert orders[task] == tuple(MODELS[c] for c in letters), task
    # The five tasks that the paper has in one column are one here.
    assert found.columns[0] == (
        "arc_challenge", "arc_easy", "mmlu_humanities", "mmlu_stem", "piqa"
    )  # fmt: skip
    assert not found.ties


@pytest.fixture(scope="module")
def cells():
    def cell(ece, accuracy, interval=None):
        return changes.Cell(
            {
                "conf_ece": changes.between(*ece, interval),
                "cw_ece": changes.between(0.2, 0.3, (0.05, 0.15)),
                "sce_ovr": changes.between(0.2, 0.4, (0.1, 0.3)),
                "accuracy": changes.between(*accuracy, (0.01, 0.1)),
            },
            n=1234,
            dropped=7,
        )

    return changes.ranked(
        {
            "a_1|x": {"t": {"choice": cell((0.1, 0.3), (0.5, 0.55), (0.15, 0.25))}},
            "b": {"t": {"choice": cell((0.0, 0.2), (0.5, 0.4))}},
            "c": {"t": {"choice": cell((0.2, 0.1), (0.5, 0.55), (-0.2, 0.01))}},
        }
    )


def test_ties_and_missing_ratios_are_said(cells):
    found = table.ranking(cells, "choice", "cw_ece")
    assert found.ties and found.orders == (("a_1|x = b = c", "", ""),)
    assert table.ranking(cells, "choice", "conf_ece").orders == (("a_1|x", "c"),)
    notes = " ".join(table.notes(cells))
    assert "share a rank" in notes and "1 change(s) have no ratio" in notes
    assert "t, choice: 7 question(s) left out" in notes
    plain = changes.Cell({"conf_ece": changes.between(0.1, 0.2)})
    assert table.notes({"a": {"t": {"choice": plain}}}) == []


def test_the_console_shows_every_pair_and_the_ranking(cells):
    console = rich.console.Console(file=io.StringIO(), width=110)
    table.show(cells, console)
    text = console.file.getvalue()
    for part in (
        "0.100 → 0.300",
        "+0.200, +200.0%",
        "a_1|x = b = c",
        "ECE 1 of 3",
        "7 question(s)",
        "Pairs by the change ratio of SCE, choice; rank 1: the largest",
        "changes.md and report.html hold its 95% interval",
    ):
        assert part in text, part


def test_nothing_is_cut_on_a_narrow_console(published_cells):
    console = rich.console.Console(file=io.StringIO(), width=60)
    table.show(published_cells, console)
    assert "…" not in console.file.getvalue()


def test_published_figures_are_shown_as_such(published_cells):
    few = {"OLMo-7B": {t: published_cells["OLMo-7B"][t] for t in ("arc_easy", "sciq")}}
    console = rich.console.Console(file=io.StringIO(), width=200)
    table.show(few, console, {"choice.csv": "sce_ovr"})
    text = console.file.getvalue()
    assert "Published figures of choice.csv (SCE, one-vs-rest), not measured here." in text
    assert "choice: base → aligned, published" in text
    assert "a range is what the rounding leaves open" in text
    # None of these is there.
    assert "changes.md" not in text and "bootstrap" not in table.changes_markdown(few)
    assert "a range is what the rounding leaves open" in table.changes_latex(few)
    # 0.350 / 89.4 %, outwards.
    assert "0.390–0.393 → 0.740–0.743" in text and "+0.350, +89.4%" in text
    row = list(csv.DictReader(io.StringIO(table.changes_csv(few))))[1]
    assert (row["metric"], row["pt"], row["low"]) == ("sce_ovr", "", "")
    low, high = float(row["pt_low"]), float(row["pt_high"])
    assert 0.3495 / 0.8945 < low < 0.350 / 0.894 < high < 0.3505 / 0.8935


def test_cells_of_two_forms_of_sce_stand_in_one_table():
    one, other = (
        changes.Cell({m: changes.between(0.2, 0.3) for m in ("conf_ece", sce, "accuracy")})
        for sce in ("cw_ece", "sce_ovr")
    )
    cells = changes.ranked({"a": {"t": {"choice": one}}, "b": {"t": {"continuation_sum": other}}})
    console = rich.console.Console(file=io.StringIO(), width=110)
    table.show(cells, console)
    assert "SCE, one-vs-rest 0 of 1" in console.file.getvalue()
    assert table.changes_markdown(cells).count("0.200 → 0.300") == 6


def test_files_hold_every_cell(cells, tmp_path):
    table.write(tmp_path, cells)
    assert {p.name for p in tmp_path.iterdir()} == {
        "changes.csv", "changes.md", "changes.tex", "table1.md", "table1.tex"
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "changes.csv").open(encoding="utf-8")))
    assert len(rows) == 3 * 4
    row = next(r for r in rows if (r["pair"], r["metric"]) == ("a_1|x", "conf_ece"))
    assert [float(row[k]) for k in ("pt", "it", "low", "high", "ratio")] == pytest.approx(
        [0.1, 0.3, 0.15, 0.25, 2.0]
    )
    assert row["n"] == "1234" and row["rank"] == "1"
    row = next(r for r in rows if (r["pair"], r["metric"]) == ("b", "conf_ece"))
    assert row["ratio"] == row["rank"] == row["low"] == ""
    markdown = (tmp_path / "changes.md").read_text(encoding="utf-8")
    assert r"a_1\|x" in markdown and "+0.200 [+0.150, +0.250], +200.0%" in markdown
    widths = {
        line.replace(r"\|", "").count("|") for line in markdown.splitlines() if line[:1] == "|"
    }
    assert widths == {8}
    latex = (tmp_path / "changes.tex").read_text(encoding="utf-8")
    assert r"a\_1\textbar{}x" in latex and r"0.100 $\to$ 0.300" in latex and "→" not in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    assert "cw" not in (tmp_path / "table1.md").read_text(encoding="utf-8")
