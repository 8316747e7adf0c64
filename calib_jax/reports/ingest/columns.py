"""From the rows of any predictions file to Scores: columns recognised by name, nothing guessed."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.metrics.validation import without_rounding
from calib_jax.reports.ingest import clusters, confidences, layout
from calib_jax.reports.ingest.answers import read_answers
from calib_jax.reports.ingest.options import Options, check_order, given_log_scores, options_of
from calib_jax.reports.ingest.places import Place, Reading, Table, as_float32, check, softmax


def read_rows(
    path: str, numbered: Sequence[tuple[int, Mapping]], reading: Reading, dtype: str = "float64"
) -> Table:
    """Reads rows of a table.

    Args:
      path: how messages call the file.
      numbered: (row number from 1, column name -> value), N >= 1 of them.
      reading: the user's choices.
      dtype: the floating-point type that the file stores; sets the tolerance of a row's sum.

    Raises:
      UserError: see ``ingest.load``.
    """
    numbers, rows = zip(*numbered, strict=True)
    given = columns = _columns(rows)
    original, roles = rows, layout.parse(reading.columns)
    cluster_column = clusters.column_of(path, rows, columns, roles.pop("cluster", []), reading)
    taken = {name: role for role, names in roles.items() for name in names}
    if roles:
        rows = layout.applied(path, rows, columns, roles)
        columns = _columns(rows)
    ids, id_text, id_column = _ids(path, numbers, rows, columns)
    splits = _texts(path, numbers, rows, "split")
    # An id may come back in another split.
    names = ids if splits is None else [f"{s}/{i}" for s, i in zip(splits, ids, strict=True)]
    place = Place(path, numbers, names)

    free = confidences.is_of(columns)
    find = confidences.options_of if free else options_of
    options = find(place, rows, columns, reading)
    kind, text, used, values = options.kind, options.text, set(options.columns), options.values
    counts = np.array([len(row) for row in values])
    usual = int(np.bincount(counts).argmax())
    if not reading.ragged:
        place.refuse(
            np.flatnonzero(counts != usual),
            lambda i: f"has {counts[i]} options where most have {usual}",
            "mixed numbers of options are read with --config.report.ragged=True",
        )
    K = int(counts.max())
    mask = np.arange(K) < counts[:, None]
    dense = np.full(mask.shape, 0.0)
    dense[mask] = [x for row in values for x in row]
    about: dict[str, Any] = {"rows": len(rows), "options": _span(counts), "probabilities": text}
    if kind == "scores":
        log_scores = np.where(mask, dense, -np.inf)
        probs = softmax(place, log_scores, mask)
        about["probabilities"] = f"softmax of {text}"
    else:
        probs, log_scores = without_rounding(dense), None
    choices = _choices(place, rows, counts) if "choices" in columns and not free else None
    named = choices or options.names
    if reading.ordered and choices:
        check_order(place, choices, "column 'choices'")
    if free:  # an answer's text may stand in a column "answer"
        answers, answer_column = confidences.answers_of(place, rows, columns)
        answer_text = f"column {answer_column!r}, whether the answer given is right"
    else:
        answer_column = layout.one_of(path, columns, layout.ANSWERS, "answer")
        answers, answer_text = read_answers(place, rows, answer_column, counts, named, reading)
    if options.sorted_from is not None and not answer_text.endswith("names of options"):
        place.refuse(
            [options.sorted_from],
            lambda i: (
                f"states its options in another order than row {numbers[0]}, and answers are "
                f"read as places among them ({answer_text})"
            ),
            "write the options of every row in one order, or the answers as names",
        )
    # The sum of 0.33, 0.33 and 0.33 is 0.01 from 1 but for a rounding error.
    stated = reading.sum_tolerance and reading.sum_tolerance + 1e-9
    tolerance = stated or (2e-3 if dtype == "halffloat" else None)
    check(place, probs, answers, mask, tolerance)
    as_given = probs
    if tolerance and not free:
        off = np.abs(probs.sum(axis=1) - 1) > 1e-6
        probs = np.where(off[:, None], probs / probs.sum(axis=1, keepdims=True), probs)
        about["rows_divided_by_their_sum"] = int(off.sum())
    if free:
        with np.errstate(divide="ignore"):
            log_scores = np.log(probs)
    elif log_scores is None:
        log_scores, also = given_log_scores(place, rows, columns, options, mask, probs, as_given)
        used |= also

    if not roles:  # else they have other names by now
        taken = dict.fromkeys(options.columns, "probs" if kind == "probs" else "log_scores")
    clusters.refuse_outcome(path, cluster_column, {**taken, answer_column: "answer"})
    cluster_names = clusters.read(path, numbers, original, cluster_column)
    texts = {name: _texts(path, numbers, rows, name) for name in ("subject", "task", "question")}
    found = {k: v for k, v in (*texts.items(), ("choices", choices), ("split", splits)) if v}
    about |= {"answers": answer_text, "ids": id_text, "also_read": sorted(found)}
    if cluster_column is None and reading.clusters == "auto":
        cluster_names = clusters.repeats(texts["question"], named)
    if in_words := clusters.said(cluster_names, cluster_column, original):
        about["clusters"] = in_words
    known = (answer_column, id_column, cluster_column, *found)
    used |= {name for name in known if name is not None}
    if reading.columns:
        roles = layout.parse(reading.columns)
        about["columns_as_said"] = [f"{role}: {' and '.join(roles[role])}" for role in roles]
        said = {name for names in roles.values() for name in names}
        used = (used - roles.keys()) | said | {name.partition(".")[0] for name in said}
    if options.names:
        about["options_are"] = "named by the file" if choices is None else "in column 'choices'"
        about["options_order"] = _order(place, options, reading)
    about["columns_not_used"] = sorted(str(name) for name in given if name not in used)
    scores = Scores(
        log_scores=log_scores.astype(np.float32),
        probs=as_float32(np.where(mask, probs, 0)),
        mask=mask,
        answers=answers.astype(np.int32),
        ids=tuple(ids),
        tasks=tuple(texts["task"] or [None] * len(rows)),
        subjects=tuple(texts["subject"] or [None] * len(rows)),
        method=options.method,
        questions=tuple(text or "" for text in texts["question"] or ()),
        choices=_outputs(rows) if free else named or (),
        clusters=cluster_names,
    )
    return Table(scores, tuple(splits or [None] * len(rows)), about)


def _columns(rows: Sequence[Mapping]) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(rows)))


def _span(counts: np.ndarray) -> int | list[int]:
    low, high = int(counts.min()), int(counts.max())
    return low if low == high else [low, high]


def _order(place: Place, options: Options, reading: Reading) -> str:
    """In which order the named options stand."""
    names = options.names or ((),)
    listed = f", lowest first: {', '.join(names[0])}" if reading.ordered else ""
    if options.sorted_from is not None:
        row = place.numbers[options.sorted_from]
        return (
            f"by the alphabet: row {row} states them in another order than row {place.numbers[0]}"
        )
    return f"as the {'header states' if len(options.columns) > 1 else 'rows state'} them{listed}"


def _ids(path, numbers, rows, columns) -> tuple[list[str], str, str | None]:
    present = [name for name in layout.IDS if name in columns]
    if not present:
        return [f"row-{n}" for n in numbers], "none: rows are named by their number", None
    column = present[0]
    ids = []
    for number, row in zip(numbers, rows, strict=True):
        value = row.get(column)
        if isinstance(value, bool) or not isinstance(value, (int, str)) or str(value).strip() == "":
            raise UserError(f"{path} row {number}: column {column!r} holds {value!r}, not an id")
        ids.append(str(value))
    return ids, f"column {column!r}", column


def _texts(path, numbers, rows, column: str) -> list[str | None] | None:
    """A text column; empty cells are None; None where no row has any."""
    cells, values = [row.get(column) for row in rows], []
    if set(map(type, cells)) == {type(None)}:
        return None
    for number, value in zip(numbers, cells, strict=True):
        value = None if value == "" else value
        if isinstance(value, int) and not isinstance(value, bool) and column != "question":
            value = str(value)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{path} row {number}: column {column!r} holds {value!r}, not text")
        values.append(value)
    if column == "split" and None in values and any(values):
        number = numbers[values.index(None)]
        raise UserError(f"{path} row {number}: column 'split' is empty, and other rows name theirs")
    return values if any(values) else None


def _outputs(rows: Sequence[Mapping]) -> tuple[tuple[str, ...], ...]:
    """The free answers' own texts, where every row has one."""
    texts = [row.get("output") for row in rows]
    return tuple((str(text),) for text in texts) if all(texts) else ()


def _choices(place: Place, rows, counts) -> tuple[tuple[str, ...], ...] | None:
    result = []
    for i, row in enumerate(rows):
        value = row.get("choices")
        if isinstance(value, str) and value:
            value = layout.json_of(place, i, "choices", value)
        value = [] if value in (None, "") else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise UserError(f"{place.row(i)}: column 'choices' must hold a list of strings")
        if value and len(value) != counts[i]:
            raise UserError(
                f"{place.row(i)}: {len(value)} choices beside {counts[i]} probabilities"
            )
        result.append(tuple(value))
    return tuple(result) if any(result) else None
