"""predictions/text.parquet and facts.parquet."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_jax.errors import UserError
from calib_jax.reports.lifecycle import predictions


def test_what_is_written_comes_back_bit_for_bit(make_tokens, tmp_path):
    tokens = make_tokens(relations=("P1", ""))
    path = tmp_path / "new" / "text.parquet"
    predictions.write(path, tokens)
    found = predictions.read(path)
    for field in dataclasses.fields(tokens):
        ours, theirs = (getattr(t, field.name) for t in (tokens, found))
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), field.name
        else:
            assert ours == theirs, field.name


def test_other_files_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name, message in (
        ("other", "not a file of next-token predictions"),
        ("broken", "not a readable parquet file"),
        ("none", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            predictions.read(tmp_path / f"{name}.parquet")
