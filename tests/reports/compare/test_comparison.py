"""A comparison as the rows and contrasts of a result."""

import math

from calib_jax.reports.compare.comparison import as_dict, from_dict
from calib_jax.reports.result import Result


def rows_of(comparison):
    result = Result({}, comparison.measured(), comparison.contrasts())
    summary = result.as_summary("compare", {})
    return summary["rows"], summary["contrasts"]


def test_rows_hold_the_mean_and_every_seed(comparison):
    rows, _ = rows_of(comparison)
    found = [
        row
        for row in rows
        if (row["subject"], row["probe"], row["metric"]) == ("before", "in", "nll")
    ]
    estimate = comparison.rows["before"]["in"]["nll"]
    assert [row["seed"] for row in found] == [None, 0, 1, 2]
    assert [row["value"] for row in found] == [estimate.value, *estimate.per_seed]
    assert (found[0]["low"], found[0]["high"]) == estimate.interval and found[1]["low"] is None
    assert {row["n"] for row in found} == {70} and {row["reading"] for row in found} == {"choice"}
    chance = [row for row in rows if row["metric"] == "conf_ece_null_q95" and row["value"]]
    assert [(row["subject"], row["probe"], row["value"]) for row in chance] == [
        ("before", "in", 0.08)
    ]
    assert {(row["subject"], row["probe"]) for row in rows} == {
        (method, part) for method, by_part in comparison.rows.items() for part in by_part
    }


def test_contrasts_hold_the_difference_to_the_reference(comparison):
    _, contrasts = rows_of(comparison)
    assert all(row["a"] == "cft" and row["b"] != "cft" for row in contrasts)
    (found,) = (
        row
        for row in contrasts
        if (row["b"], row["probe"], row["metric"]) == ("temperature", "in", "conf_ece")
    )
    assert (found["difference"], found["low"], found["high"]) == (-0.1, -0.2, -0.05)
    assert found["p"] == 0.002
    assert not [row for row in contrasts if row["metric"].endswith(("_ci", "_p"))]


def test_no_interval_is_no_row(comparison):
    found = as_dict(comparison)
    for row in (
        found["rows"]["before"]["in"]["nll"],
        found["rows"]["before"]["in"]["nll"]["versus"],
    ):
        row["ci"] = None
    found["rows"]["before"]["in"]["nll"]["versus"]["p_value"] = None
    again = from_dict(found)
    assert math.isnan(again.rows["before"]["in"]["nll"].versus.p_value)
    rows, contrasts = rows_of(again)
    assert not [row for row in [*rows, *contrasts] if row["metric"].endswith(("_ci", "_p"))]
    (one,) = (r for r in contrasts if (r["b"], r["probe"], r["metric"]) == ("before", "in", "nll"))
    assert one["low"] is None and math.isnan(one["p"])
