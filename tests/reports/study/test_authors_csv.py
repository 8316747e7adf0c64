import hashlib
import math

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.reports.study import authors_csv
from calib_jax.reports.study.changes import Cell, between, column, ranked

METHODS = {"choice": "choice", "sum": "continuation_sum", "min": "continuation_min"}


@pytest.mark.parametrize("name", METHODS)
def test_the_authors_files_are_read_and_written_byte_for_byte(published, author_files, name):
    raw = author_files[name].read_bytes()
    # The golden figures are all that the authors' file holds.
    assert hashlib.sha256(raw).hexdigest() == published["sha256"][name]
    cells = authors_csv.read(author_files[name])
    assert authors_csv.text_of(cells, METHODS[name]).encode() == raw


@pytest.mark.parametrize(
    ("method", "counts"),
    # Cells; in how many SCE and ECE fall.
    [("choice", (70, 0, 20)), ("continuation_sum", (70, 2, 4)), ("continuation_min", (50, 7, 2))],
)
def test_what_the_published_figures_say(published_cells, method, counts):
    sce = column(published_cells, method, "sce_ovr")
    ece = column(published_cells, method, "conf_ece")
    found = len(sce), *(sum(c.falls for c in column.values()) for column in (sce, ece))
    assert found == counts and len(ece) == counts[0]


def test_ranks_follow_from_the_ratios_but_for_two_that_are_printed_alike(published_cells):
    odd = [
        (method, metric, key)
        for method in METHODS.values()
        for metric in ("conf_ece", "sce_ovr", "accuracy")
        for key in authors_csv.disagreements(published_cells, method, metric)
    ]
    # Llama-3-70B and Qwen2-72B both rose by 0.15 %; the authors ranked more digits.
    assert odd == [("continuation_sum", "sce_ovr", ("Qwen2-72B", "hellaswag"))]


def test_equal_ratios_share_a_rank_as_the_authors_have_it(published_cells):
    found = column(ranked(published_cells), "continuation_sum", "accuracy")
    ranks = {pair: change.rank for (pair, task), change in found.items() if task == "sciq"}
    assert sorted(ranks.values()) == [1, 2, 2, 2, 5, 6, 7]
    assert {pair for pair, rank in ranks.items() if rank == 2} == {
        "Llama-2-7b", "gemma-7b", "Qwen2-72B"
    }  # fmt: skip


def approximate_sce_ovr(accuracy, confidence, K):
    """The one-vs-rest SCE of a model whose confidences are all near their mean."""
    top = abs(accuracy - confidence) / K
    return top + (1 - 1 / K) * abs(1 - (1 - accuracy) / (K - 1) - (1 - confidence) / (K - 1))


@pytest.mark.parametrize(("side", "error"), [("pt", 0.008), ("it", 0.007)])
def test_recovered_values_fit_the_one_vs_rest_form(published_cells, side, error):
    misses, label_form = [], []
    for by_task in published_cells.values():
        for task, by_method in by_task.items():
            changes = by_method["choice"].changes
            accuracy, ece, sce = (
                getattr(changes[m], side) for m in ("accuracy", "conf_ece", "sce_ovr")
            )
            if math.isnan(accuracy + ece + sce):
                continue
            # ECE does not say on which side of the accuracy the confidence lies.
            guesses = [
                approximate_sce_ovr(accuracy, accuracy + sign * ece, 2 if task == "piqa" else 4)
                for sign in (1, -1)
            ]
            misses.append(min(abs(sce - guess) for guess in guesses))
            label_form.append(abs(sce - ece))
    assert len(misses) == 68
    assert np.mean(misses) == pytest.approx(error, abs=6e-4)
    # An error of calibration would be near the ECE instead.
    assert np.mean(label_form) > 0.2


@pytest.mark.parametrize("pt", [0.02, 0.4, 0.75])
@pytest.mark.parametrize("change", [-0.015, 0.0023, 0.3])
def test_recovered_bounds_hold_the_base_value(pt, change):
    found = authors_csv.recover(round(change, 3), round(change / pt, 4))
    assert found.low <= pt <= found.high
    assert found.low <= found.pt <= found.high
    assert found.high - found.low < 0.6 * pt


def test_figures_that_say_nothing_are_not_a_number():
    assert math.isnan(authors_csv.recover(0.0, 0.0001).pt)
    found = authors_csv.recover(0.0, 0.0)
    assert math.isnan(found.pt) and (found.low, found.high) == (0.0, math.inf)


def test_measured_changes_are_written_in_the_layout(tmp_path):
    cell = Cell(
        {
            "conf_ece": between(0.0, 0.1),
            "cw_ece": between(0.2, 0.1),
            "sce_ovr": between(0.5, 0.49996),
            "accuracy": between(0.25, 0.375),
        },
        n=8,
    )
    cells = ranked({"one": {"arc_easy": {"choice": cell}}, "two": {}})
    paths = authors_csv.write(tmp_path, cells, ["choice"])
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        "sce_ovr/choice.csv", "sce/choice.csv"
    ]  # fmt: skip
    ovr, label = (p.read_bytes().decode().split("\r\n") for p in paths)
    # No ratio and no rank of a base value of 0; no minus before 0.000.
    assert ovr[2] == "one,0.100,,,0.000,-0.01%,1,12.50%,50.00%,1"
    assert label[2] == "one,0.100,,,-0.100,-50.00%,1,12.50%,50.00%,1"
    assert ovr[3] == "two,,,,,,,,,"
    assert set(authors_csv.read(paths[0])) == {"one", "two"}


def test_names_that_the_layout_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'a,b' cannot stand"):
        authors_csv.write(tmp_path, {"a,b": {}}, ["choice"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arc_challenge,choice,,,,,,,,", "", "line 3: expected a line"),
        ("Llama-2-7b,0.208,", "Llama-2-7b,0.2O8,", "line 3: '0.2O8' is not a number"),
        ("Llama-2-7b,0.208,", "Llama-2-7b,0.208,1,", "line 3: 11 fields; expected 10"),
        ("Llama-3-8B,-0.046", "Llama-2-7b,-0.046", "line 4: Llama-2-7b stands twice"),
        ("283.77%,3,", "283.77%,third,", "line 3: the rank 'third' is not"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(author_files, tmp_path, old, new, message):
    text = author_files["choice"].read_bytes().decode()
    assert old in text
    path = tmp_path / "bad.csv"
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(UserError, match=message) as error:
        authors_csv.read(path)
    assert str(path) in str(error.value)


def test_other_files_are_refused(author_files, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        authors_csv.read(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("\n,,,\n")
    with pytest.raises(UserError, match="no block of a task"):
        authors_csv.read(tmp_path / "empty.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff")
    with pytest.raises(UserError, match="not a readable CSV"):
        authors_csv.read(tmp_path / "image.csv")
    cells = authors_csv.read(author_files["choice"])
    with pytest.raises(UserError, match="b.csv: Llama-2-7b, arc_challenge, choice stands in"):
        authors_csv.merged({"a.csv": cells, "b.csv": cells})
