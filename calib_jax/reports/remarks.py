"""What must be said beside figures: guessers, gold answers, zeros, little probability, fits."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from calib_jax.metrics.zeros import unit_name
from calib_jax.reports.words import LETTERS, cut, interval, number, option_name, plural, share

# Of fewer clusters the page says that they are few.
MIN_CLUSTERS = 20
# Names of classes longer than this are cut; more of them are not all named in a line.
MAX_NAME, MAX_CLASSES = 24, 12


def gold(row: Mapping[str, Any]) -> str:
    """How often each letter, or each class, is the answer."""
    counts, classes = row["answer_counts"], row.get("classes")
    if is_free(row):
        return f"right answers: {counts[0]:,} of {row['n']:,}"
    total, what = sum(counts), "classes" if classes else "letters"
    if len(counts) > (MAX_CLASSES if classes else len(LETTERS)):
        ends = f"{share(min(counts), total)} to {share(max(counts), total)} each of {len(counts)}"
        return f"gold {what}: {ends}"
    names = [cut(name, MAX_NAME) for name in classes or map(option_name, range(len(counts)))]
    parts = [f"{name} {share(n, total)}" for name, n in zip(names, counts, strict=True)]
    return f"gold {what}: {', '.join(parts)}"


def is_free(row: Mapping[str, Any]) -> bool:
    """Whether a ROW is of free answers, each with a confidence of its own."""
    return row.get("num_options") == [1, 1]


def has_letters(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the options of some ROWS are letters: neither classes nor free answers."""
    return not any(row.get("classes") or is_free(row) for row in rows)


def uniform(row: Mapping[str, Any]) -> str:
    """The figures that a uniform guesser would get on the split of this row."""
    low, high = row.get("num_options") or [len(row["answer_counts"])] * 2
    if is_free(row):
        a = row["accuracy"]
        entropy = -sum(p * math.log(p) for p in (a, 1 - a) if p)
        return (
            "free answers, Brier (c − y)²: the share of right answers as the confidence in each "
            f"gets NLL {entropy:.3f}, Brier {a * (1 - a):.3f}"
        )
    if low == high:
        nll, brier, accuracy = math.log(low), (low - 1) / low, 1 / low
        return (
            f"uniform guesser, K = {low}: accuracy {accuracy:.3f}, NLL ln {low} = {nll:.3f}, "
            f"Brier {low - 1}/{low} = {brier:.3f}"
        )
    return (
        f"uniform guesser, K = {low} to {high}: accuracy {number(row.get('uniform_accuracy'))}, "
        f"NLL {number(row.get('uniform_nll'))}, Brier {number(row.get('uniform_brier'))}"
    )


def sample_size(row: Mapping[str, Any]) -> str:
    """How many questions show a conf-ECE of 0.05, beside how many there are; "" if not known.

    >>> sample_size({"n": 200, "questions_needed": 1034})
    'to see a conf-ECE of 0.05, about 1,000 questions like these are needed; here are 200'
    """
    needed = row.get("questions_needed")
    if needed is None:
        return ""
    about = round(needed, 2 - len(str(needed)))  # two digits
    if row.get("n_clusters"):
        return (
            f"to see a conf-ECE of 0.05, about {about:,} independent questions like these are "
            f"needed; here are {size(row)}"
        )
    enough = ", which is enough" if row["n"] >= needed else ""
    return (
        f"to see a conf-ECE of 0.05, about {about:,} questions like these are needed; here "
        f"{'is' if row['n'] == 1 else 'are'} {row['n']:,}{enough}"
    )


def zero_notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is to be said of probabilities of exactly 0 in some of the rows (name -> ROW)."""
    notes = []
    for name, row in rows.items():
        zeros = row.get("zero_probability_answers")
        if zeros and is_free(row):
            notes.append(
                f"{name}: NLL is infinite, {zeros:,} of {row['n']:,} answers are wrong at a "
                "confidence of 1, or right at 0"
            )
        elif zeros:
            notes.append(
                f"{name}: NLL is infinite, {zeros:,} of {row['n']:,} right answers have "
                "probability 0"
            )
        if (unit := row.get("rounding_unit")) == 1:
            notes.append(
                f"{name}: every probability is 0 or 1, whether rounded or given so, and "
                f"{row['zero_probability_rows']:,} of {row['n']:,} rows hold an option at 0"
            )
        elif unit:
            notes.append(
                f"{name}: the probabilities are rounded to {unit_name(unit)}, and "
                f"{row['zero_probability_rows']:,} of {row['n']:,} rows hold an option that this "
                f"made 0{_read_as(row)}"
            )
    return notes


def _read_as(row: Mapping[str, Any]) -> str:
    if (read_as := row.get("zero_read_as")) is None:
        return ""
    return f"; NLL reads it as its most likely probability up to half of the unit, {read_as:.2g}"


def calibrator_notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the fits of calibrators (name -> figures) warned of."""
    return [
        f"{name.replace('_', ' ')}: {text}"
        for name, row in rows.items()
        for text in row.get("warnings", ())
    ]


def fitted_notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The parameters of calibrators (name -> figures) fitted to all rows, where they are few."""
    found = []
    for name, row in rows.items():
        if values := row.get("parameters"):
            shown = [
                " ".join([key, number(value), interval(values.get(f"{key}_ci"))]).strip()
                for key, value in values.items()
                if not key.endswith("_ci")
            ]
            # "temperature 1.8", not "temperature temperature 1.8".
            own = name.replace("_", " ").removesuffix(next(iter(values))).rstrip()
            found.append(f"{own} {', '.join(shown)}".strip())
    return [f"fitted to all questions: {'; '.join(found)}"] if found else []


# Below it, other words than the letters are the likelier answer.
LOW_MASS = 0.5
_MASS_SHOWN = 4  # measurements that the sentence names
MASS_REMEDY = (
    "the model would rather say something else, and the confidence is what remains of the letters' "
    "small shares. Try the other setting of --config.prompt.chat (where the tokenizer has a chat "
    "template), a --config.prompt.template that asks for the letter alone, or "
    "--config.confidence.methods=continuation_sum"
)


def low_mass(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence where the letters hold less than half of the probability; [] where none do.

    Args:
      rows: what the sentence calls a measurement -> ROW of summary.json.
    """
    found = [
        f"{row['candidate_mass']:.3f} ({name})"
        for name, row in rows.items()
        if str(row.get("method", "")).startswith("choice")
        and (mass := row.get("candidate_mass")) is not None
        and mass < LOW_MASS
    ]
    if not found:
        return []
    more = f" and {len(found) - _MASS_SHOWN} more" if len(found) > _MASS_SHOWN else ""
    shown = ", ".join(found[:_MASS_SHOWN]) + more
    return [f"the letters hold less than half of the probability, {shown}: {MASS_REMEDY}"]


def size(row: Mapping[str, Any]) -> str:
    """ "320 questions in 64 clusters", or only the first half where questions are independent."""
    questions = plural(row["n"], "question")
    clusters = row.get("n_clusters")
    return f"{questions} in {plural(clusters, 'cluster')}" if clusters else questions


def clustered(row: Mapping[str, Any]) -> list[str]:
    """What intervals are over where questions come in clusters; [] where they do not."""
    if not (clusters := row.get("n_clusters")):
        return []
    said = (
        f"{plural(clusters, 'cluster')}: questions of one passage, or answers to one question, "
        "depend on each other, so intervals and what chance would show are over clusters "
        "(accuracy: Wilson's at the number of independent questions that they are worth)"
    )
    if clusters < MIN_CLUSTERS:
        said += f"; fewer than {MIN_CLUSTERS} clusters say little of how the figures vary"
    return [said]


INTERVALS = (
    "Brackets: 95% bootstrap intervals over questions, or clusters where there are any; those of "
    "calibration errors allow for their bias, and include 0 exactly where p is above 0.05 "
    "(accuracy: Wilson's). By chance: the "
    "conf-ECE that a perfectly calibrated model exceeds in one sample of 20. p: how often a "
    "perfectly calibrated model shows as much; Kuiper's test often sees more than the conf-ECE. "
    "Unbiased square: of the conf-ECE; a calibrated model's is about 0, on either side. "
    "Variational: how much closer to the answers a cross-fitted recalibration brings the "
    "confidence; by chance either of its parts may be slightly negative."
)
PAIRED = (
    "Change: paired over the same questions; the intervals of calibration errors allow for the "
    "biases of both sides. Errors have none where fewer than 5 answers are right, or wrong."
)
