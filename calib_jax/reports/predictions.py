"""predictions/*.parquet: one row per question, from which every metric can be recomputed."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from calib_jax.atomic import atomic_path
from calib_jax.characters import encodable
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.reports import parquet

_LOG_SCORES, _PROBS, _MASS = "log_scores_", "probs_", "mass_"
_WIDTH = b"calib_jax.num_options"


def _num_options(scores: Scores) -> np.ndarray:
    """Options per question [N]; valid options must come first in every row."""
    mask = np.asarray(scores.mask, bool)
    counts = mask.sum(axis=1)
    holes = mask != (np.arange(mask.shape[1]) < counts[:, None])
    if holes.any():
        row = int(np.argmax(holes.any(axis=1)))
        raise ValueError(f"row {row} ({scores.ids[row]!r}): a masked option before a valid one")
    return counts


def _ragged(values: np.ndarray, counts: np.ndarray) -> pa.Array:
    """[N, K] float32 as lists of each row's first `counts` values."""
    valid = np.arange(values.shape[1]) < counts[:, None]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    flat = np.asarray(values, np.float32)[valid]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.float32()))


def states_path(path: str | os.PathLike) -> Path:
    """Where the hidden states beside a predictions file are kept."""
    return Path(path).with_suffix(".states.npy")


def _write_states(path: Path, states: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.asarray(states, np.float32), allow_pickle=False)


def _read_states(path: Path, num_rows: int) -> np.ndarray:
    remedy = "delete the folder of this run's predictions to score again"
    if not path.exists():
        raise UserError(
            f"{path}: no such file: the questions were scored without their hidden states; {remedy}"
        )
    reads(path)
    try:
        states = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a readable array ({error}); {remedy}") from None
    if states.ndim != 2 or len(states) != num_rows or states.dtype != np.float32:
        raise UserError(
            f"{path}: expected float32 [{num_rows}, D], one row for each prediction, and found "
            f"{states.dtype} {states.shape}; {remedy}"
        )
    return states


def write(path: str | os.PathLike, *scores: Scores) -> None:
    """Writes the scores of one split, atomically.

    Columns: id, task, subject, cluster, question and choices (where known), answer (0-based),
    prediction (0-based), confidence, then for each extraction method `log_scores_<method>` and
    `probs_<method>`, float32 lists over the question's own options in the order given, and where
    it is known `mass_<method>`, float32. Hidden states, where the first scores hold them, go to
    `states_path` before, float32 [N, D], rows in the same order.

    Args:
      path: the parquet file; its folder is created.
      *scores: one per extraction method, all of the same questions. Prediction and confidence are
        the first one's.

    Raises:
      ValueError: no scores, different questions, a method twice, or a masked option before a valid
        one.
    """
    if not scores:
        raise ValueError("no scores to write")
    first = scores[0]
    counts = _num_options(first)
    for other in scores[1:]:
        same = (
            other.ids == first.ids
            and np.array_equal(other.answers, first.answers)
            and np.array_equal(other.mask, first.mask)
        )
        if not same:
            raise ValueError(f"methods {first.method} and {other.method} scored other questions")
    methods = [s.method for s in scores]
    if len(set(methods)) < len(methods):
        raise ValueError(f"a method appears twice: {', '.join(methods)}")

    columns = {
        "id": parquet.strings(first.ids),
        "task": parquet.strings(first.tasks),
        "subject": parquet.strings(first.subjects),
    }
    if first.clusters:
        columns["cluster"] = parquet.strings(first.clusters)
    if first.questions:
        columns["question"] = parquet.strings(first.questions)
    if first.choices:
        columns["choices"] = pa.array(
            [list(map(encodable, c)) for c in first.choices], pa.list_(pa.string())
        )
    columns |= {
        "answer": pa.array(np.asarray(first.answers), pa.int32()),
        "prediction": pa.array(np.asarray(first.predictions).astype(np.int32), pa.int32()),
        "confidence": pa.array(np.asarray(first.confidences, np.float32), pa.float32()),
    }
    for s in scores:
        columns[_LOG_SCORES + s.method] = _ragged(s.log_scores, counts)
        columns[_PROBS + s.method] = _ragged(s.probs, counts)
        if s.mass is not None:
            columns[_MASS + s.method] = pa.array(np.asarray(s.mass, np.float32), pa.float32())
    if first.states is not None:
        _write_states(states_path(path), first.states)
    metadata = {_WIDTH: str(first.mask.shape[1]).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    parquet.write_table(path, table)


def _padded(column: pa.ChunkedArray, width: int, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """A list column as [N, width] float32 filled up with `fill`, and its mask."""
    array = column.combine_chunks()
    counts = array.value_lengths().to_numpy(zero_copy_only=False)
    mask = np.arange(width) < counts[:, None]
    values = np.full(mask.shape, fill, np.float32)
    values[mask] = array.flatten().to_numpy(zero_copy_only=False)
    return values, mask


def is_ours(path: str | os.PathLike) -> bool:
    """Whether a parquet file carries the mark of `write`: its rows may differ in options."""
    try:
        return _WIDTH in (parquet.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def methods_of(path: str | os.PathLike) -> list[str]:
    """The extraction methods that a file of `write` holds, in order."""
    names = parquet.read_schema(path).names
    return [name[len(_PROBS) :] for name in names if name.startswith(_PROBS)]


def read(path: str | os.PathLike, method: str | None = None, states: bool = False) -> Scores:
    """Reads back what `write` wrote, bit for bit; masked places hold log-score -inf, probability 0.

    Args:
      path: the parquet file.
      method: which extraction method; None: the first.
      states: whether the hidden states are read, too; without, the scores hold none.

    Raises:
      UserError: no such file, not a parquet file, a missing column, an unknown method, or states
        that are not there or are of other rows.
    """
    table = parquet.read_table(path)
    prefix, names = len(_PROBS), table.column_names
    methods = [name[prefix:] for name in names if name.startswith(_PROBS)]
    if not methods:
        raise UserError(f"{path}: no column probs_<method>; is this a predictions file?")
    method = methods[0] if method is None else method
    needed = ["id", "task", "subject", "answer", _LOG_SCORES + method, _PROBS + method]
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; it holds the method(s) {', '.join(methods)}"
        )

    lengths = table[_PROBS + method].combine_chunks().value_lengths()
    longest = max(lengths.to_pylist(), default=0)
    width = max(longest, int((table.schema.metadata or {}).get(_WIDTH, longest)))
    probs, mask = _padded(table[_PROBS + method], width, 0.0)
    log_scores, _ = _padded(table[_LOG_SCORES + method], width, -np.inf)
    mass = table[_MASS + method].to_numpy() if _MASS + method in names else None
    return Scores(
        log_scores=log_scores,
        probs=probs,
        mask=mask,
        answers=table["answer"].to_numpy().astype(np.int32),
        ids=tuple(table["id"].to_pylist()),
        tasks=tuple(table["task"].to_pylist()),
        subjects=tuple(table["subject"].to_pylist()),
        method=method,
        questions=tuple(table["question"].to_pylist()) if "question" in names else (),
        choices=tuple(map(tuple, table["choices"].to_pylist())) if "choices" in names else (),
        clusters=tuple(table["cluster"].to_pylist()) if "cluster" in names else (),
        mass=mass,
        states=_read_states(states_path(path), len(mask)) if states else None,
    )
