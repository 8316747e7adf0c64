"""Tables of splits: results, subjects, classes, bins."""

from calib_jax.reports.states import states_of
from calib_jax.reports.views import splits


def groups(*rows):
    return [dict(zip(("group", "n", "conf_ece", "conf_ece_ci"), row, strict=True)) for row in rows]


def test_a_change_is_coloured_only_when_its_interval_excludes_0(run):
    change = {}
    for key, bounds in {
        "conf_ece": [-0.2, -0.1],  # lower is better
        "accuracy": [-0.2, -0.1],  # higher is better
        "nll": [-0.1, 0.1],
        "mean_confidence": [-0.2, -0.1],  # neither
    }.items():
        change |= {key: sum(bounds) / 2, f"{key}_ci": bounds}
    table = splits.result("near", {"after": run[0]["after"]["near"]}, change)
    verdicts = {row.cells[0].text: row.cells[-1].verdict for row in table.rows}
    assert verdicts["conf-ECE ↓"] == "better" and verdicts["accuracy ↑"] == "worse"
    assert verdicts["NLL ↓"] == verdicts["mean confidence"] == verdicts["AUROC ↑"] == ""


def test_a_summary_of_an_earlier_version_leaves_its_rows_out(run):
    keys = (
        "domain",
        "n",
        "conf_ece",
        "conf_ece_ci",
        "accuracy",
        "answer_counts",
        "top_letter",
        "top_letter_share",
    )
    old = {"after": {"near": {key: run[0]["after"]["near"][key] for key in keys}}}
    (table,) = splits.results(states_of(old))
    names = [row.cells[0].text for row in table.rows]
    assert names == ["conf-ECE ↓", "accuracy ↑", "most-chosen letter"]


def test_subjects_have_one_row_with_every_state(run):
    row = run[0]["before"]["near"]
    states = {
        "before": {
            "near": row | {"groups": groups(("b", 5, 0.5, [0.25, 0.75]), ("a", 7, 0.1, None))}
        },
        "after": {"near": row | {"groups": groups(("b", 5, None, None), ("a", 7, 0.05, None))}},
    }
    (table,) = splits.subjects(states)
    heads = [column.label for column in table.columns]
    assert heads == ["subject", "questions", "conf-ECE, before", "conf-ECE, after"]
    assert [row.cells[0].text for row in table.rows] == ["a", "b"]
    assert [cell.value for cell in table.rows[1].cells[1:]] == [5, 0.5, None]
    assert table.rows[1].cells[2].interval == "[0.250, 0.750]" and table.sortable


def test_very_many_subjects_are_cut_to_the_largest(run):
    row = run[0]["before"]["near"]
    many = groups(*((f"s{i:04d}", i + 1, 0.1, None) for i in range(splits.MAX_SUBJECTS + 5)))
    (table,) = splits.subjects({"m": {"near": row | {"groups": many}}})
    names = [row.cells[0].text for row in table.rows]
    assert len(names) == splits.MAX_SUBJECTS and "s0000" not in names
    assert "305 subjects" in table.title and "of 305" in table.notes[0]


def test_bins_add_up_to_all_questions(run):
    states = {name: run[0][name] for name in ("before", "after")}
    near, far = splits.bins(states, run[1], 10, "right")
    assert (near.title, far.title) == ("near", "far") and len(near.rows) == 10
    assert near.rows[0].cells[0].text == "[0, 0.1]" and near.rows[9].cells[0].text == "(0.9, 1]"
    counts = [[int(row.cells[i].text) for i in (1, 5)] for row in near.rows]
    assert [sum(column) for column in zip(*counts, strict=True)] == [60, 60]
    assert near.groups == [("", 1), ("before", 4), ("after", 4)]


def test_a_long_course_of_training_is_cut_in_the_middle():
    rows = [[str(i), "0", "near", "0.1"] for i in range(100)]
    table = splits.measurements(["step", "epoch", "questions of", "NLL"], rows, 10)
    assert [row.cells[0].text for row in table.rows] == [*map(str, (*range(5), *range(95, 100)))]
    assert "first and last 5 of 100" in table.notes[0]
