import hashlib
import math

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.reports.study import authors_csv
from calib_jax.reports.study.authors_csv import Printed
from calib_jax.reports.study.changes import Cell, between, column, ranked

HEADER = (
    ",ece change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
    ",sce change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
    ",acc change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
)
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
    anew = ranked(published_cells)
    odd = [
        (method, metric, key)
        for method in METHODS.values()
        for metric in ("conf_ece", "sce_ovr", "accuracy")
        for printed, computed in [
            [column(cells, method, metric) for cells in (published_cells, anew)]
        ]
        for key in printed
        if printed[key].rank != computed[key].rank
    ]
    # Llama-3-70B and Qwen2-72B both rose by 0.15 %; the authors ranked more digits.
    assert odd == [("continuation_sum", "sce_ovr", ("Qwen2-72B", "hellaswag"))]


def test_equal_ratios_share_a_rank_as_the_authors_have_it(published_cells):
    found = column(ranked(published_cells), "continuation_sum", "accuracy")
    ranks = {pair: change.rank for (pair, task), change in found.items() if task == "sciq"}
    assert sorted(ranks.values()) == [1, 2, 2, 2, 5, 6, 7]
    assert {pair for pair, rank in ranks.items() if rank == 2} == {
        "Llama-2-7b",
        "gemma-7b",
        "Qwen2-72B",
    }


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
            three = [changes[m] for m in ("accuracy", "conf_ece", "sce_ovr")]
            if any(c.change == 0 for c in three):
                continue
            pt = [c.change / c.ratio for c in three]
            accuracy, ece, sce = (
                v + (c.change if side == "it" else 0) for v, c in zip(pt, three, strict=True)
            )
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
@pytest.mark.parametrize("change", [-0.015, 0.0023, 0.25])
def test_recovered_ranges_hold_the_values(pt, change):
    printed = Printed(round(change, 3), 5e-4), Printed(round(change / pt, 4), 5e-5)
    (low, high), (it_low, it_high) = authors_csv.recover(*printed)
    assert low <= pt <= high and it_low <= pt + change <= it_high
    assert high - low < 0.6 * pt


def test_figures_that_say_nothing_leave_every_value():
    nothing = Printed(0.0, 5e-4)
    assert authors_csv.recover(nothing, Printed(0.0, 5e-5)) == ((0.0, 1.0), (0.0, 1.0))
    # A large change says something by itself: both ends lie in [0, 1].
    (low, high), it = authors_csv.recover(Printed(0.7, 5e-4), Printed(math.nan, math.nan))
    assert (low, high) == pytest.approx((0.0, 0.3005)) and it == pytest.approx((0.6995, 1.0))


@pytest.mark.parametrize(
    ("change", "ratio", "message"),
    [
        ("0.100", "-50.00%", "line 3, ECE: change 0.100 with ratio -50.00%: change and ratio have"),
        ("0.300", "10.00%", "the base's value, change / ratio, would be at least 2.99"),
        ("0.300", "40.00%", r"the aligned value would be 1.04\d, above 1"),
        ("-0.300", "-150.00%", "the aligned value would be -0.100, below 0"),
        ("1.200", "", "with ratio empty: the aligned value would be 1.200, above 1"),
    ],
)
def test_figures_that_cannot_be_are_refused_with_their_line(tmp_path, change, ratio, message):
    path = tmp_path / "bad.csv"
    line = f"m,{change},{ratio},1,-0.020,-4.00%,1,1.00%,2.00%,1"
    path.write_text(f"t,choice,,,,,,,,\r\n{HEADER}\r\n{line}")
    with pytest.raises(UserError, match=message) as error:
        authors_csv.read(path)
    assert str(error.value).startswith(f"{path}, line 3, ECE: ")


def test_what_is_written_is_never_refused(tmp_path):
    rng = np.random.default_rng(0)
    sides = rng.random((400, 2, 3)) ** rng.choice([0.05, 1, 8], (400, 2, 3))
    sides[:20] = sides[:20].round()
    names = ("conf_ece", "sce_ovr", "accuracy")
    cells = {
        f"m{i}": {
            "t": {"choice": Cell({n: between(*v) for n, v in zip(names, row.T, strict=True)})}
        }
        for i, row in enumerate(sides)
    }
    (tmp_path / "x.csv").write_text(authors_csv.text_of(ranked(cells), "choice"))
    read = authors_csv.read(tmp_path / "x.csv")
    for i, row in enumerate(sides):
        for name, values in zip(names, row.T, strict=True):
            change = read[f"m{i}"]["t"]["choice"].changes[name]
            for (low, high), value in zip((change.pt_range, change.it_range), values, strict=True):
                assert low - 1e-9 <= value <= high + 1e-9


def test_rounding_alone_is_no_error(tmp_path):
    """As in the authors' own files, where PT = 0.17 % / 0.17 % is 1 and IT would be above it."""
    path = tmp_path / "p.csv"
    path.write_text("t,choice,,,,,,,,\r\nm,-0.001,-0.07%,1,0.000,-0.03%,1,0.17%,0.17%,1")
    found = authors_csv.read(path)["m"]["t"]["choice"].changes
    assert found["conf_ece"].pt_range == pytest.approx((2 / 3, 1.0), abs=1e-3)
    assert found["accuracy"].pt_range == pytest.approx((0.943, 0.998), abs=1e-3)
    assert math.isnan(found["accuracy"].pt)


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
    files = authors_csv.files("csv", cells)
    assert list(files) == ["csv/sce_ovr/choice.csv", "csv/sce/choice.csv"]
    paths = [tmp_path / name.replace("/", "-") for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_bytes(text.encode())
    ovr, label = (p.read_bytes().decode().split("\r\n") for p in paths)
    # No ratio and no rank of a base value of 0; no minus before 0.000.
    assert ovr[2] == "one,0.100,,,0.000,-0.01%,1,12.50%,50.00%,1"
    assert label[2] == "one,0.100,,,-0.100,-50.00%,1,12.50%,50.00%,1"
    assert ovr[3] == "two,,,,,,,,,"
    assert set(authors_csv.read(paths[0])) == {"one", "two"}

    # Each file says which SCE it holds, wherever it lies, and is read as that.
    moved = paths[1].rename(tmp_path / "x.csv")
    for path, sce, change in ((paths[0], "sce_ovr", 0.0), (moved, "cw_ece", -0.1)):
        read, kinds = authors_csv.read_all(str(path))
        assert kinds == {str(path): sce}
        assert list(read["one"]["arc_easy"]["choice"].changes) == ["conf_ece", sce, "accuracy"]
        assert read["one"]["arc_easy"]["choice"].changes[sce].change == change
    # Both together are cells with both.
    both, _ = authors_csv.read_all(f"{paths[0]},{moved}")
    assert list(both["one"]["arc_easy"]["choice"].changes) == list(cell.changes)
    with pytest.raises(UserError, match="line 2: 'class-wise sce .*named as sce_ovr="):
        authors_csv.read_all(f"sce_ovr={moved}")
    with pytest.raises(UserError, match="x.csv appears twice"):
        authors_csv.read_all(f"{moved},sce={moved}")


def test_the_kind_of_a_file_can_be_said(author_files):
    path = author_files["choice"]
    assert authors_csv.read_all(str(path))[1] == {str(path): "sce_ovr"}
    cells, kinds = authors_csv.read_all(f"sce={path}")
    assert kinds == {str(path): "cw_ece"}
    assert not column(cells, "choice", "sce_ovr") and len(column(cells, "choice", "cw_ece")) == 70


def test_names_that_the_layout_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="'a,b' cannot be written"):
        authors_csv.files("csv", {"a,b": {}})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arc_challenge,choice,,,,,,,,", "", "line 3: expected a line"),
        ("Llama-2-7b,0.208,", "Llama-2-7b,0.2O8,", "line 3: '0.2O8' is not a number"),
        ("Llama-2-7b,0.208,", "Llama-2-7b,0.208,1,", "line 3: 11 fields; expected 10"),
        ("Llama-3-8B,-0.046", "Llama-2-7b,-0.046", "line 4: Llama-2-7b appears twice"),
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
    with pytest.raises(UserError, match="b.csv: Llama-2-7b, arc_challenge, choice appears in"):
        authors_csv.merged({"a.csv": cells, "b.csv": cells})
