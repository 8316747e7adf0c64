"""The one table layer: console, Markdown, LaTeX, CSV."""

import io
import math
import re

import pytest
import rich.console

from calib_jax.reports import catalogue, console, tables
from calib_jax.reports.tables import Cell, Column, Row, Table
from calib_jax.reports.words import interval, number

FIGURES = {
    "before": {"conf_ece": 0.3, "conf_ece_ci": [0.2, 0.4], "squared_ece": 0.05},
    "after": {"conf_ece": None, "conf_ece_ci": [None, None]},
}


def shown(some, width):
    file = io.StringIO()
    console.show_tables(some, rich.console.Console(file=file, width=width, highlight=False))
    return file.getvalue()


@pytest.fixture
def table():
    columns = (Column("", text=True), Column("ID", "conf-ECE", -1), Column("OOD", "conf-ECE", -1))
    rows = (
        Row((Cell("cft"), Cell("0.1", "[0.0, 0.2]", "± 0.01", "p = 0.04", "best", 0.1), Cell("–"))),
        Row((Cell("debiased"), Cell("0.05"), Cell("")), kind="inset"),
    )
    return Table("t", columns, rows, "A title", ("A note.",))


@pytest.mark.parametrize("width", [40, 60, 120])
def test_console_fits_and_gives_up_intervals_last(table, width):
    text = shown([table], width)
    assert max(map(len, text.splitlines())) <= width
    for said in ("A title", "A note.", "cft", "0.1", "± 0.01", "  debiased"):
        assert said in text
    narrow = Table("n", table.columns, table.rows[:1] * 1, notes=())
    assert ("[0.0, 0.2]" in shown([narrow], width)) == (width >= 40)


def test_console_says_when_it_leaves_intervals_out():
    cells = tuple(Cell("0.123456", "[0.123456, 0.234567]") for _ in range(4))
    wide = Table(
        "w",
        (Column("", text=True), *[Column(f"c{i}") for i in range(4)]),
        (Row((Cell("row"), *cells)),),
    )
    text = shown([wide], 60)
    assert "[0.12" not in text and "need a wider console" in " ".join(text.split())
    assert "[0.12" in shown([wide], 160) and "wider" not in shown([wide], 160)


def test_tables_with_as_many_columns_line_up(table):
    other = Table("o", table.columns, (Row((Cell("a much longer name"), Cell("1"), Cell("2"))),))
    lines = [line for line in shown([table, other], 100).splitlines() if "──" in line]
    assert len({len(line) for line in lines}) == 1


def test_names_are_no_markup(capsys):
    """What rich would take for a style, an end of one, or a picture."""
    rows = (Row((Cell("[red]a :smile:"), Cell("[/x]"))),)
    console.show_tables([Table("t", (Column("[/x]", text=True), Column("b")), rows)])
    said = capsys.readouterr().out
    assert "[/x]" in said and "[red]a :smile:" in said and "\x1b" not in said


def test_the_narrower_the_console_the_less_stands_beside_a_figure():
    cell = Cell("+0.100\n(+50.0%)", "[+0.010, +0.200]", note="0.200 → 0.300")
    table = Table("t", (Column("", text=True), Column("change")), (Row((Cell("name"), cell)),))
    wide = shown([table], 80)
    assert "+0.100 [+0.010, +0.200]" in wide and "0.200 → 0.300" in wide
    stacked = shown([table], 30).split("\n")
    assert [line.strip() for line in stacked if "name" not in line and "0" in line] == [
        "[+0.010, +0.200]",
        "(+50.0%)",
        "0.200 → 0.300",
    ]
    noted = shown([table], 24)
    assert "0.200 → 0.300" in noted and "[+0.010" not in noted and "need a" in noted
    plain = shown([table], 18)
    assert "→" not in plain and "(+50.0%)" in plain
    long = Table("t", table.columns, (Row((Cell("name"), Cell("+0.100 (+50.0%)"))),))
    folded = shown([long], 18)
    assert "+0.100" in folded and "(+50.0%)" in folded and max(map(len, folded.split("\n"))) <= 18


def test_markdown_escapes_and_lines_up(table):
    text = tables.markdown([table], "a|b <i>")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "|  | conf-ECE ID ↓ | conf-ECE OOD ↓ |" and lines[1] == "|---|---:|---:|"
    assert "| cft | **0.1** ± 0.01 [0.0, 0.2]<br>p = 0.04 | – |" in lines
    assert text.endswith("a\\|b &lt;i>\n") and "A note." in text


def test_latex_is_balanced_and_names_its_groups(table):
    text = tables.latex([table], "50% [sic]")
    assert r"\multicolumn{2}{c}{conf-ECE}" in text and r"\cmidrule(lr){2-3}" in text
    assert r"\textbf{0.1} {\scriptsize $\pm$ 0.01 {[}0.0, 0.2{]}}" in text
    assert r"{\scriptsize p = 0.04}" in text and r"50\% {[}sic{]}" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{")


def test_sections_have_a_row_of_their_own(table):
    rows = tuple(Row((Cell(m), Cell("1"), Cell("2")), section=s) for s in "AB" for m in "xy")
    table = Table("t", table.columns, rows)
    assert [(s, len(r)) for s, r in table.by_section] == [("A", 2), ("B", 2)]
    assert tables.markdown([table]).count("| *A* | | |") == 1
    assert tables.latex([table]).count(r"\midrule") == 2
    assert shown([table], 80).count(" A ") == 1


def test_transposed_keeps_the_order_of_the_catalogue_and_leaves_out_what_nobody_has():
    change = {"change": {"conf_ece": -0.2, "conf_ece_ci": [-0.3, -0.1]}}
    table = tables.transposed("t", FIGURES, catalogue.at(catalogue.RESULTS), change)
    assert [row.cells[0].text for row in table.rows] == ["conf-ECE ↓", "unbiased square ↓"]
    assert [row.kind for row in table.rows] == ["", "inset"]
    first = table.rows[0].cells
    assert [str(cell) for cell in first[1:]] == [
        "0.300 [0.200, 0.400]",
        "–",
        "-0.200 [-0.300, -0.100]",
    ]
    assert first[3].verdict == "better" and first[2].value is None
    assert str(table.rows[1].cells[2]) == "", "not measured is empty, not computable a dash"


@pytest.mark.parametrize(
    ("ends", "direction", "null", "expected"),
    [
        ([-0.2, -0.1], -1, 0, "better"),
        ([-0.2, -0.1], 1, 0, "worse"),
        ([-0.2, 0.1], 1, 0, ""),
        ([-0.2, -0.1], 0, 0, ""),
        ([1.01, 1.2], -1, 1, "worse"),
        ([None, None], -1, 0, ""),
        ([math.nan, 0.1], -1, 0, ""),
        (None, -1, 0, ""),
    ],
)
def test_verdicts(ends, direction, null, expected):
    assert tables.verdict(ends, direction, null) == expected


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (-0.0001, True, "+0.000"),
        (-0.0001, False, "0.000"),
        (math.inf, False, "∞"),
        (-math.inf, False, "-∞"),
        (math.nan, False, "–"),
        (None, True, "–"),
    ],
)
def test_numbers(value, signed, text):
    assert number(value, signed) == text


def test_an_interval_without_an_end_is_none():
    assert interval([None, 0.1]) == interval(None) == interval([math.nan, 1.0]) == ""


def test_csv_leaves_what_is_not_known_empty():
    text = tables.as_csv(["a", "b"], [[None, math.nan], [0.1, "x,y"]])
    assert text == 'a,b\n,\n0.1,"x,y"\n'
