"""Per-sample files of lm-evaluation-harness (``--log_samples``): log-likelihoods to Scores."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.reports.ingest import clusters, gold
from calib_jax.reports.ingest.places import Place, Reading, Table, as_float32, check, softmax
from calib_jax.reports.words import option_name

_NAME = re.compile(r"samples_(.+?)(?:_\d{4}-\d\d-\d\dT.*)?")
_FIELDS = ("question", "query", "question_stem", "goal", "stem")


def is_samples(row: Mapping) -> bool:
    """Whether a row is one that the harness logs."""
    return "doc" in row and "arguments" in row and ("filtered_resps" in row or "resps" in row)


def read_samples(path: str, numbered: Sequence[tuple[int, Mapping]], reading: Reading) -> Table:
    """Reads logged samples of a multiple-choice task.

    The log-likelihoods Σ log p of the continuations are the log-scores, and the probabilities their
    softmax over the options ("continuation_sum"), as in the harness's own `acc` and `brier_score`.
    The right option is what `target` names (see ``gold``), and agrees with `acc` where it stands in
    the row. Of several right answers the likeliest counts.

    Args:
      path: how messages call the file; the task is read from "samples_<task>_<time>.jsonl".
      numbered: (row number from 1, row).
      reading: of it, `ragged`.

    Raises:
      UserError: a row is no multiple-choice sample, or fails a check.
    """
    numbers, rows = zip(*numbered, strict=True)
    ids = [str(row.get("doc_id", f"row-{n}")) for n, row in zip(numbers, rows, strict=True)]
    place = Place(path, numbers, ids)
    values = [_log_likelihoods(place, i, row) for i, row in enumerate(rows)]
    filters = sorted({str(row["filter"]) for row in rows if "filter" in row})
    if len(filters) > 1:
        raise UserError(
            f"{path}: holds the filters {', '.join(filters)}, each with a row per question; keep "
            "the rows of one"
        )
    arguments = [_arguments(place, i, row) for i, row in enumerate(rows)]
    halved = 0
    for i, (row_values, pairs) in enumerate(zip(values, arguments, strict=True)):
        if len(row_values) != len(pairs):
            raise UserError(
                f"{place.row(i)}: {len(row_values)} responses beside {len(pairs)} arguments"
            )
        if _asks_again(rows[i], pairs):
            K = len(pairs) // 2
            values[i], arguments[i] = row_values[:K], pairs[:K]
            halved += 1

    counts = np.array([len(row) for row in values])
    usual = int(np.bincount(counts).argmax())
    if not reading.ragged:
        place.refuse(
            np.flatnonzero(counts != usual),
            lambda i: f"has {counts[i]} options where most have {usual}",
            "mixed numbers of options are read with --config.report.ragged=True",
        )
    place.refuse(
        np.flatnonzero(counts < 2),
        lambda i: "has a single continuation",
        "only multiple-choice tasks have a confidence over options",
    )
    mask = np.arange(counts.max()) < counts[:, None]
    softmax(place, _dense(values, mask), mask)
    docs = [row["doc"] if isinstance(row["doc"], Mapping) else {} for row in rows]
    samples = [
        gold.Sample(row, doc, pairs, _choices(doc, pairs), row_values)
        for row, doc, pairs, row_values in zip(rows, docs, arguments, values, strict=True)
    ]
    rights, how = gold.right_options(place, samples)
    answers, values, choices, several = gold.merged(place, samples, rights)
    log_scores = _dense(values, mask)
    probs = softmax(place, log_scores, mask)
    check(place, probs, answers, mask)

    name = _NAME.fullmatch(Path(path).stem)
    task = name[1] if name else Path(path).stem
    subjects = [doc.get("subject") for doc in docs]
    # mmlu_anatomy, whose rows are all of the subject anatomy, is the part of mmlu with that name.
    part = subjects[0] if len(set(map(str, subjects))) == 1 else None
    if isinstance(part, str) and part and task.endswith(f"_{part}"):
        task = task.removesuffix(f"_{part}")
        ids = [f"{part}-{name}" for name in ids]
    else:
        part = None
    own = [row["acc"] for row in rows if isinstance(row.get("acc"), (int, float))]
    about: dict[str, Any] = {
        "rows": len(rows),
        "format": "lm-evaluation-harness samples",
        "options": sorted({int(k) for k in counts}),
        "probabilities": "softmax of the continuations' summed log-likelihoods (continuation_sum)",
        "answers": how,
        **({"acc_in_the_file": float(np.mean(own))} if len(own) == len(rows) else {}),
        "ids": "field 'doc_id'" if all("doc_id" in row for row in rows) else "row numbers",
        "task": task,
        **({"subject": part} if part else {}),
    }
    if several:
        about["rows_with_several_right_answers"] = (
            f"{several} (the likeliest of them counts as the answer)"
        )
    if halved:
        about["rows_with_unconditional_requests_set_aside"] = halved
    names, in_words = clusters.of_docs(path, docs, reading)
    scores = Scores(
        log_scores=log_scores.astype(np.float32),
        probs=as_float32(probs),
        mask=mask,
        answers=answers.astype(np.int32),
        ids=tuple(ids),
        tasks=(task,) * len(rows),
        subjects=tuple(s if isinstance(s, str) and s else None for s in subjects),
        method="continuation_sum",
        questions=tuple(_question(doc, pairs) for doc, pairs in zip(docs, arguments, strict=True)),
        choices=tuple(map(tuple, choices)),
        clusters=names,
    )
    if in_words:
        about["clusters"] = in_words
    return Table(scores, (None,) * len(rows), about, part)


def _asks_again(row: Mapping, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the second half asks for the options without their context: acc_mutual_info."""
    K = len(pairs) // 2
    if not K or len(pairs) != 2 * K or any(context for context, _ in pairs[K:]):
        return False
    again = [("", continuation) for _, continuation in pairs[:K]] == pairs[K:]
    return "acc_mutual_info" in row or (again and any(context for context, _ in pairs[:K]))


def _dense(values: Sequence[Sequence[float]], mask: np.ndarray) -> np.ndarray:
    """Rows of several lengths as [N, K] float64, -inf where masked."""
    result = np.full(mask.shape, -np.inf)
    result[mask] = [value for row in values for value in row]
    return result


def _log_likelihoods(place: Place, i: int, row: Mapping) -> list[float]:
    """Of every continuation; the harness writes [value, is_greedy], values as text."""
    responses = row.get("filtered_resps")
    if responses is None:
        # One request may have been asked several times: [[response, ...], ...].
        responses = [r[0] if isinstance(r, list) and r else r for r in row["resps"]]
    values = []
    for response in responses if isinstance(responses, list) else [responses]:
        try:
            value, greedy = response
            if str(greedy) not in ("True", "False", "0", "1"):
                raise ValueError
            values.append(float(value))
        except (TypeError, ValueError):
            raise UserError(
                f"{place.row(i)}: the response {str(response)[:60]!r} is not [log-likelihood, "
                "is_greedy]; only tasks of output_type multiple_choice can be read"
            ) from None
    return values


def _arguments(place: Place, i: int, row: Mapping) -> list[tuple[str, str]]:
    """(context, continuation) of every request, from the file's dictionary or a list of pairs."""
    found = row["arguments"]
    if isinstance(found, Mapping):
        requests = sorted(found.items(), key=lambda item: int(item[0].rsplit("_", 1)[-1]))
        found = [
            [request.get("arg_0"), request.get("arg_1")]
            if isinstance(request, Mapping)
            else request
            for _, request in requests
        ]
    try:
        # Beside the two may stand an image.
        pairs = [(context, continuation) for context, continuation, *_ in found]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise UserError(f"{place.row(i)}: 'arguments' holds no pairs of context and continuation")
    return pairs


def _lists_of_texts(doc: Mapping) -> Iterator[list]:
    """Where data sets keep the texts of lettered options."""
    for name in ("choices", "options", "endings"):
        found = doc.get(name)
        if isinstance(found, Mapping):
            yield from (v for v in (found.get("text"), list(found.values())) if isinstance(v, list))
        elif isinstance(found, list):
            yield found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _choices(doc: Mapping, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The options' texts: the continuations; what the letters stand for, where these are letters;
    or the contexts where all continue alike (WinoGrande)."""
    continuations = [continuation.strip() for _, continuation in pairs]
    letters = [option_name(k) for k in range(len(pairs))]
    if [text.strip("(). ") for text in continuations] == letters:
        for texts in _lists_of_texts(doc):
            if len(texts) == len(pairs) and all(map(_is_text, texts)) and texts != letters:
                return texts
    if len(set(continuations)) == 1:
        return [context.strip() for context, _ in pairs]
    return continuations


def _question(doc: Mapping, pairs: Sequence[tuple[str, str]]) -> str:
    for name in _FIELDS:
        if isinstance(doc.get(name), str) and doc[name]:
            return doc[name]
    return pairs[0][0]
