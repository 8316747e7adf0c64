"""What the result table says, as text cells; the console, Markdown and HTML only lay it out."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from calib_jax.errors import UserError
from calib_jax.metrics.zeros import unit_name

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Names of classes longer than this are cut; more of them are not all named in a line.
MAX_NAME, MAX_CLASSES = 24, 12

# (key in ROW, label, which way is better: -1 lower, +1 higher, 0 neither)
METRICS = (
    ("conf_ece", "conf-ECE", -1),
    ("conf_ece_debiased", "  debiased", -1),
    ("conf_ece_null_q95", "  by chance (95%)", 0),
    ("cw_ece", "cw-ECE", -1),
    ("smooth_ece", "smooth ECE", -1),
    ("accuracy", "accuracy", +1),
    ("mean_confidence", "mean confidence", 0),
    ("nll", "NLL", -1),
    ("brier", "Brier", -1),
    ("auroc", "AUROC", +1),
)
TOP_LETTER, TOP_CLASS = "most-chosen letter", "most-chosen class"

# Dictionaries of a summary that are no measurement ("change" looks like one).
_NOT_COLUMNS = frozenset(
    {"change", "data", "prompt", "training", "posthoc", "quantization", "wall_time_s", "versions"}
)
DOMAINS = {"in": "in-domain", "out": "out-of-domain"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure and its interval as text; `verdict` "better", "worse" or "" colours a change."""

    value: str
    interval: str = ""
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".strip()


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric: its label, which way is better (-1 lower, +1 higher, 0 neither), its cells."""

    label: str
    direction: int
    cells: tuple[Cell, ...]

    @property
    def arrow(self) -> str:
        """The label with an arrow that points to the better side."""
        return self.label + {-1: " ↓", 1: " ↑", 0: ""}[self.direction]


@dataclasses.dataclass(frozen=True)
class Section:
    """One split's part of the table: a title, a header, rows and notes."""

    split: str
    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals; "-" for what could not be computed (null in summary.json)."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    # Rounding first: -0.0001 must not read -0.000.
    value = round(float(value), 3) + 0.0
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def interval(bounds: list[float | None] | None, signed: bool = False) -> str:
    """ "[low, high]", or nothing where there is no interval."""
    if bounds is None or None in bounds:
        return ""
    return f"[{number(bounds[0], signed)}, {number(bounds[1], signed)}]"


def columns(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The measured states of a summary, in order: {"before": {split: ROW}, "after": ...}.

    A summary of an evaluation holds its rows under "measured"; any name will do. Where several
    methods read the confidence, {"measured": {split: {method: ROW}}}, these are the columns.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, splits in summary.items():
        if name in _NOT_COLUMNS or not isinstance(splits, Mapping) or not splits:
            continue
        if all(map(_is_row, splits.values())):
            found[name] = splits
        elif all(
            isinstance(m, Mapping) and m and all(map(_is_row, m.values())) for m in splits.values()
        ):
            found |= _transposed(splits)
    if not found:
        raise UserError("the summary holds no measurement: no 'before', 'after' or model's rows")
    return found


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) and "conf_ece" in value


def _transposed(nested: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for outer, values in nested.items():
        for inner, value in values.items():
            result.setdefault(inner, {})[outer] = value
    return result


def nested(states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A summary's part for several methods: {"measured": {split: {method: ROW}}}."""
    return {"measured": _transposed(states)}


def side_by_side(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The columns that compare several runs: the common "before" and each run's "after".

    Raises:
      UserError: two runs evaluated other questions, so that their figures cannot be compared.
    """
    merged: dict[str, Mapping[str, Any]] = {}
    reference: tuple[str, Mapping[str, Any]] | None = None
    for name, summary in summaries.items():
        states = columns(summary)
        for state, splits in states.items():
            if reference is None:
                reference = (name, splits)
            for split, row in splits.items():
                other = reference[1].get(split)
                for key in ("n", "answer_counts"):
                    if other is not None and other.get(key) != row.get(key):
                        raise UserError(
                            f"runs {reference[0]!r} and {name!r} were measured on other questions: "
                            f"{split} has {key} {other.get(key)} and {row.get(key)}"
                        )
            if state == "before":
                merged.setdefault("before", splits)
            elif state == "after" or len(states) == 1:
                merged[name] = splits
            else:
                merged[f"{name} {state}"] = splits
    return merged


def ordered_splits(states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every split of any column, in-domain first, otherwise as they stand."""
    names = list(dict.fromkeys(split for splits in states.values() for split in splits))

    def is_out(split: str) -> bool:
        row = next(splits[split] for splits in states.values() if split in splits)
        return row.get("domain") != "in"

    return sorted(names, key=is_out)


def verdict(change: float | None, bounds: list[float] | None, direction: int) -> str:
    """Whether the whole interval lies on the good or the bad side of 0."""
    if not direction or change is None or not bounds or None in bounds:
        return ""
    if bounds[0] * direction > 0 and bounds[1] * direction > 0:
        return "better"
    if bounds[0] * direction < 0 and bounds[1] * direction < 0:
        return "worse"
    return ""


def share(count: float, total: float) -> str:
    """`count` of `total` in whole percent."""
    return f"{100 * count / total:.0f}%" if total else "-"


def _gold(row: Mapping[str, Any]) -> str:
    """How often each letter, or each class, is the answer."""
    counts, classes = row["answer_counts"], row.get("classes")
    total, what = sum(counts), "classes" if classes else "letters"
    if len(counts) > (MAX_CLASSES if classes else len(LETTERS)):
        ends = f"{share(min(counts), total)} to {share(max(counts), total)} each of {len(counts)}"
        return f"gold {what}: {ends}"
    names = [cut(name, MAX_NAME) for name in classes or map(option_name, range(len(counts)))]
    parts = [f"{name} {share(n, total)}" for name, n in zip(names, counts, strict=True)]
    return f"gold {what}: {', '.join(parts)}"


def cut(text: str, limit: int) -> str:
    """A text on one line, of at most `limit` characters; "…" stands for what is left out."""
    text = " ".join(str(text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def option_name(k: int) -> str:
    """A, B, ... Z for the first 26 options, then their 0-based index."""
    return LETTERS[k] if k < len(LETTERS) else str(k)


def uniform(row: Mapping[str, Any]) -> str:
    """The figures that a uniform guesser would get on the split of this row."""
    low, high = row.get("num_options") or [len(row["answer_counts"])] * 2
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


def zero_notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is to be said of probabilities of exactly 0 in some of the rows (name -> ROW)."""
    notes = []
    for name, row in rows.items():
        if zeros := row.get("zero_probability_answers"):
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
                "made 0"
            )
    return notes


def calibrator_notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the fits of calibrators (name -> figures) warned of."""
    return [
        f"{name.replace('_', ' ')}: {text}"
        for name, row in rows.items()
        for text in row.get("warnings", ())
    ]


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


def sections(
    states: Mapping[str, Mapping[str, Any]],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Section]:
    """The table's content, one section per split.

    Args:
      states: column name -> split -> ROW.
      changes: split -> paired differences, shown as a last column.
    """
    result = []
    for split in ordered_splits(states):
        found = {name: splits[split] for name, splits in states.items() if split in splits}
        first = next(iter(found.values()))
        change = (changes or {}).get(split)
        rows = []
        for key, label, direction in METRICS:
            # Summaries of earlier versions hold fewer figures.
            if not any(key in row for row in found.values()):
                continue
            cells = [
                Cell(number(row.get(key)), interval(row.get(f"{key}_ci")))
                if (row := found.get(name))
                else Cell("")
                for name in states
            ]
            if change is not None:
                bounds = change.get(f"{key}_ci")
                cells.append(
                    Cell(
                        number(change.get(key), signed=True),
                        interval(bounds, signed=True),
                        verdict(change.get(key), bounds, direction),
                    )
                    if key in change
                    else Cell("")
                )
            rows.append(Row(label, direction, tuple(cells)))
        cells = [
            Cell(f"{share(row['top_letter_share'], 1)} {cut(row['top_letter'], MAX_NAME)}")
            if (row := found.get(name)) and row.get("top_letter")
            else Cell("")
            for name in states
        ]
        top = TOP_CLASS if first.get("classes") else TOP_LETTER
        rows.append(Row(top, 0, (*cells, *[Cell("")] * (change is not None))))

        notes = [uniform(first), _gold(first)]
        notes += zero_notes(found) + low_mass(found)
        about = [DOMAINS.get(first.get("domain"), ""), f"{first['n']:,} questions"]
        title = f"{split} ({', '.join(filter(None, about))})"
        header = (*states, *(["change"] if change is not None else []))
        result.append(Section(split, title, header, tuple(rows), tuple(notes)))
    return result


INTERVALS = (
    "Brackets: 95% bootstrap intervals over questions; those of calibration errors allow for their "
    "bias, and hold 0 where chance alone would explain the error (accuracy: Wilson's). By chance: "
    "the conf-ECE that a perfectly calibrated model exceeds in one sample of 20."
)
PAIRED = "Change: paired over the same questions."


def caption(changed: bool) -> str:
    """What brackets mean, and how a change was taken where there is one."""
    return f"{INTERVALS} {PAIRED}" if changed else INTERVALS


def is_part(split: str, splits: Iterable[str]) -> bool:
    """Whether a split is a group of another one's questions, as mmlu_stem is of mmlu."""
    return any(split.startswith(f"{other}_") for other in splits)
