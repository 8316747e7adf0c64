"""The states of summaries, of this schema and of the first."""

import pytest

from calib_jax.errors import UserError
from calib_jax.reports import states


def test_states_are_read_back_by_their_names(run):
    result, _ = run
    assert list(states.states_of(result)) == ["before", "after"]
    nested = states.by_reading({"choice": result["before"], "sum": result["after"]})
    assert list(nested["measured"]["near"]) == ["choice", "sum"] and states.is_by_reading(nested)
    assert states.states_of(nested) == {"choice": result["before"], "sum": result["after"]}
    assert not states.is_by_reading({"measured": result["before"]})


def test_schema_1_named_no_states(run):
    result, _ = run
    old = {key: value for key, value in result.items() if key not in ("states", "schema")}
    assert states.states_of(old) == states.states_of(result)
    nested = {"measured": {"near": {"choice": result["before"]["near"]}}, "data": {}}
    assert states.states_of(nested) == {"choice": {"near": result["before"]["near"]}}
    with pytest.raises(UserError, match="no measurement"):
        states.states_of({"config": "x", "data": {}, "change": {"near": {"conf_ece": 0.1}}})


def test_runs_side_by_side_share_what_they_started_from(run):
    result, _ = run
    found = states.side_by_side({"sft": result, "cft": result})
    assert found == {"before": result["before"], "sft": result["after"], "cft": result["after"]}
    other = {**result, "after": {"near": {**result["after"]["near"], "n": 61}}}
    with pytest.raises(UserError, match="other questions"):
        states.side_by_side({"sft": result, "cft": other})


def test_splits_in_domain_come_first_and_parts_are_known():
    rows = {"far": {"domain": "out"}, "near": {"domain": "in"}, "mmlu_stem": {"domain": ""}}
    assert states.ordered_splits({"m": rows}) == ["near", "far", "mmlu_stem"]
    assert states.is_part("mmlu_stem", ["mmlu", "mmlu_stem"]) and not states.is_part("a", ["a"])
