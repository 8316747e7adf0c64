import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax import metrics
from calib_jax.errors import UserError
from calib_jax.reports import predictions


def assert_same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and x.shape == y.shape, field.name
            assert x.tobytes() == y.tobytes(), field.name
        else:
            assert x == y, field.name


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 30), num_options=st.integers(2, 26), seed=st.integers(0, 99))
def test_round_trip_is_exact(tmp_path_factory, make_scores, n, num_options, seed):
    scores = make_scores(n, num_options, seed=seed, ragged=True)
    path = tmp_path_factory.mktemp("p") / "s.parquet"
    predictions.write(path, scores)
    assert_same(predictions.read(path), scores)


def test_states_are_kept_beside_the_rows(tmp_path, make_scores):
    scores = make_scores(6, 3)
    states = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    path = tmp_path / "before-a.b.parquet"
    predictions.write(path, dataclasses.replace(scores, states=states))
    beside = tmp_path / "before-a.b.states.npy"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, beside.name])
    assert_same(predictions.read(path), scores)  # only where they are asked for
    assert predictions.read(path, states=True).states.tobytes() == states.tobytes()
    np.save(beside, states[:5])
    with pytest.raises(
        UserError, match=r"a\.b\.states\.npy: expected float32 \[6, D\], .*\(5, 5\)"
    ):
        predictions.read(path, states=True)
    beside.write_bytes(b"nothing")
    with pytest.raises(UserError, match="states.npy: not a readable array"):
        predictions.read(path, states=True)
    beside.unlink()
    with pytest.raises(UserError, match="scored without their hidden states; delete"):
        predictions.read(path, states=True)


def test_texts_of_questions_and_options_are_kept_where_known(tmp_path, make_scores):
    scores = make_scores(4, 3, ragged=True)
    texts = tuple(tuple(f"{i}-{k}" for k in range(int(m.sum()))) for i, m in enumerate(scores.mask))
    scores = dataclasses.replace(scores, questions=("Why?", "Ünï?", "", "d"), choices=texts)
    predictions.write(tmp_path / "s.parquet", scores)
    assert_same(predictions.read(tmp_path / "s.parquet"), scores)


def test_mass_is_kept_for_the_methods_that_have_it(tmp_path, make_scores):
    scores = make_scores(4, 3, ragged=True)
    mass = np.array([0.5, 1e-20, 1.0, 0.25], np.float32)
    choice = dataclasses.replace(scores, mass=mass)
    shortest = dataclasses.replace(scores, method="continuation_min")
    predictions.write(tmp_path / "s.parquet", shortest, choice)
    assert_same(predictions.read(tmp_path / "s.parquet", "choice"), choice)
    assert_same(predictions.read(tmp_path / "s.parquet"), shortest)
    assert predictions.methods_of(tmp_path / "s.parquet") == ["continuation_min", "choice"]
    names = pq.read_schema(tmp_path / "s.parquet").names
    assert [name for name in names if name.startswith("mass")] == ["mass_choice"]


def test_only_own_files_carry_the_mark(tmp_path, make_scores):
    predictions.write(tmp_path / "s.parquet", make_scores(3))
    assert predictions.is_ours(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet").replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_text("PAR1")
    for name in ("other", "torn", "none"):
        assert not predictions.is_ours(tmp_path / f"{name}.parquet")


def test_width_is_kept_when_no_question_fills_it(tmp_path, make_scores):
    wide = make_scores(5, 3)
    pad = ((0, 0), (0, 2))
    wide = dataclasses.replace(
        wide,
        log_scores=np.pad(wide.log_scores, pad, constant_values=-np.inf),
        probs=np.pad(wide.probs, pad),
        mask=np.pad(wide.mask, pad),
    )
    predictions.write(tmp_path / "s.parquet", wide)
    assert_same(predictions.read(tmp_path / "s.parquet"), wide)


def test_columns_hold_only_the_questions_own_options(tmp_path, make_scores):
    scores = make_scores(20, 5, ragged=True)
    predictions.write(tmp_path / "s.parquet", scores)
    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert list(rows[0]) == [
        "id",
        "task",
        "subject",
        "answer",
        "prediction",
        "confidence",
        "log_scores_choice",
        "probs_choice",
    ]
    for i, row in enumerate(rows):
        assert len(row["probs_choice"]) == len(row["log_scores_choice"]) == scores.mask[i].sum()
        assert row["prediction"] == int(np.argmax(row["probs_choice"]))
        assert np.float32(row["confidence"]) == np.float32(max(row["probs_choice"]))
        assert row["id"] == f"q-{i}" and row["subject"] == (None if i % 3 else "physics")


def test_metrics_from_the_file_equal_those_from_memory(tmp_path, make_scores):
    scores = make_scores(40, 5, bias=1.0, ragged=True)
    predictions.write(tmp_path / "s.parquet", scores)
    back = predictions.read(tmp_path / "s.parquet")
    for name in ("conf_ece", "cw_ece", "nll", "brier", "auroc"):
        function = getattr(metrics, name)
        assert float(function(back.probs, back.answers, back.mask)) == float(
            function(scores.probs, scores.answers, scores.mask)
        )


def test_several_methods_share_a_file(tmp_path, make_scores):
    first = make_scores(10, seed=1)
    second = dataclasses.replace(make_scores(10, seed=2), method="continuation_sum")
    predictions.write(tmp_path / "s.parquet", first, second)
    assert_same(predictions.read(tmp_path / "s.parquet"), first)
    assert_same(predictions.read(tmp_path / "s.parquet", "continuation_sum"), second)
    with pytest.raises(UserError, match="choice, continuation_sum"):
        predictions.read(tmp_path / "s.parquet", "other")
    with pytest.raises(ValueError, match="twice"):
        predictions.write(tmp_path / "t.parquet", first, first)
    with pytest.raises(ValueError, match="other questions"):
        predictions.write(tmp_path / "t.parquet", first, make_scores(11))


def test_no_file_when_writing_fails_half_way(tmp_path, make_scores, monkeypatch):
    def fail(table, handle, **_):
        handle.write(b"PAR1 half")
        raise OSError("disk full")

    monkeypatch.setattr(predictions.parquet.pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        predictions.write(tmp_path / "s.parquet", make_scores(3))
    assert list(tmp_path.iterdir()) == []


def test_a_masked_option_before_a_valid_one_is_refused(tmp_path, make_scores):
    scores = make_scores(3)
    scores.mask[1, 0] = False
    with pytest.raises(ValueError, match="q-1"):
        predictions.write(tmp_path / "s.parquet", scores)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        predictions.read(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="bad.parquet"):
        predictions.read(tmp_path / "bad.parquet")
