"""summary.json: its rows and contrasts, the keys of schema 1, the file."""

import importlib.resources
import json
import math

import pytest

from calib_jax.errors import UserError
from calib_jax.reports import result
from calib_jax.reports.result import Contrast, Measured, Result

FIGURES = {
    "n": 5,
    "method": "choice",
    "nll": math.inf,
    "nll_ci": [1.0, 2.0],
    "auroc": None,
    "letter_counts": [1, 2],
    "rounded": True,
}


@pytest.fixture
def found():
    measured = Measured("before", "exam", FIGURES, "choice", 0)
    contrast = Contrast("before", "after", "exam", {"nll": -0.5, "nll_ci": [-1, 0], "nll_p": 0.04})
    return Result({"before": {"exam": FIGURES}}, (measured,), (contrast,))


def test_rows_and_contrasts_hold_every_number_once(found):
    summary = found.as_summary("finetune", {"wall_time_s": 1.5})
    where = {"subject": "before", "probe": "exam", "reading": "choice", "seed": 0, "n": 5}
    assert summary["rows"] == [
        {**where, "metric": "nll", "value": math.inf, "low": 1.0, "high": 2.0},
        {**where, "metric": "auroc", "value": None, "low": None, "high": None},
    ]
    (row,) = summary["contrasts"]
    assert row == {
        "a": "before", "b": "after", "probe": "exam", "reading": "", "seed": None,
        "metric": "nll", "difference": -0.5, "low": -1, "high": 0, "p": 0.04,
    }  # fmt: skip  # a row on a line
    assert summary["schema"] == 2 and summary["job"] == "finetune"
    assert summary["before"]["exam"] is FIGURES and summary["wall_time_s"] == 1.5


def test_the_file_is_of_the_schema_that_stands_beside_the_module(tmp_path, found):
    jsonschema = pytest.importorskip("jsonschema")
    file = importlib.resources.files("calib_jax.reports") / "summary.schema.json"
    schema = json.loads(file.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    costs = {
        "wall_time_s": 1.0,
        "peak_memory_gib": 0.5,
        "peak_device_memory_gib": None,
        "versions": {"jax": "0"},
    }
    result.write(tmp_path / "s.json", found.as_summary("finetune", costs))
    written = json.loads((tmp_path / "s.json").read_text())
    jsonschema.validate(written, schema)
    for key in ("rows", "contrasts", "schema"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in written.items() if k != key}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"rows": [{"value": "0.5"}]}, schema)


def test_a_row_is_a_line_of_the_file(tmp_path, found):
    result.write(tmp_path / "s.json", found.as_summary("finetune", {}))
    lines = (tmp_path / "s.json").read_text().splitlines()
    rows = [json.loads(line.strip().rstrip(",")) for line in lines if '"subject"' in line]
    assert [row["metric"] for row in rows] == ["nll", "auroc"]
    empty = Result({"x": 1}).as_summary("plan", {})
    result.write(tmp_path / "e.json", empty)
    assert result.read(tmp_path / "e.json") == empty


def test_a_later_schema_is_refused_by_name(tmp_path):
    (tmp_path / "s.json").write_text('{"schema": 3}')
    with pytest.raises(UserError, match="schema 3, and this version reads 1 to 2"):
        result.read(tmp_path / "s.json")
    (tmp_path / "s.json").write_text('{"before": {}}')
    assert result.read(tmp_path / "s.json") == {"before": {}}  # schema 1 named none


def test_file_round_trip_and_layout(tmp_path, run):
    tricky = {"text": "[\n1,\n 2]", "mixed": [1, "a\n", None], "empty": [], "nested": [[1], [2.5]]}
    content = run[0] | {"data": tricky}
    result.write(tmp_path / "s.json", content)
    assert result.read(tmp_path / "s.json") == content
    text = (tmp_path / "s.json").read_text()
    counts = ", ".join(map(str, content["before"]["near"]["letter_counts"]))
    assert f'"letter_counts": [{counts}]' in text


def test_nothing_is_written_when_a_value_is_no_json(tmp_path):
    with pytest.raises(TypeError):
        result.write(tmp_path / "s.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_read_names_the_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        result.read(tmp_path / "none.json")
    for text in ('{"a": ', "[1]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="bad.json"):
            result.read(tmp_path / "bad.json")
