"""Figures as text: numbers, intervals, shares, and names cut to a length."""

import math
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DOMAINS = {"in": "in-domain", "out": "out-of-domain"}
UNKNOWN = "–"


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """A figure in fixed digits; "–" for what could not be computed (null in summary.json).

    >>> number(0.05), number(float("inf")), number(None), number(-0.00001, True)
    ('0.050', '∞', '–', '+0.000')
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    # Rounding first: -0.0001 must not read -0.000.
    value = round(float(value), digits) + 0.0
    return f"{value:{'+' if signed else ''}.{digits}f}"


def p_value(value: float | None) -> str:
    """A p-value as text.

    >>> p_value(0.0304), p_value(2e-9), p_value(None)
    ('0.030', '<0.001', '–')
    """
    return "<0.001" if value is not None and value < 0.0005 else number(value)


def interval(bounds: Sequence[float | None] | None, signed: bool = False, digits: int = 3) -> str:
    """ "[low, high]", or nothing where there is no interval."""
    if bounds is None or any(end is None or math.isnan(end) for end in bounds):
        return ""
    return f"[{number(bounds[0], signed, digits)}, {number(bounds[1], signed, digits)}]"


def share(count: float, total: float) -> str:
    """`count` of `total` in whole percent."""
    return f"{100 * count / total:.0f}%" if total else UNKNOWN


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a figure in percent, without the sign: 0.123 is "12.3"."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f}"


def cut(text: str, limit: int) -> str:
    """A text on one line, of at most `limit` characters; "…" stands for what is left out."""
    text = " ".join(str(text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def option_name(k: int) -> str:
    """A, B, ... Z for the first 26 options, then their 0-based index."""
    return LETTERS[k] if k < len(LETTERS) else str(k)


def listed(items: Sequence[str], last: str = "and") -> str:
    """ "a, b and c".

    >>> listed(["a"]), listed(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def plural(count: int, word: str, words: str = "") -> str:
    """ "1 question", "2 questions".

    >>> plural(1, "question"), plural(1200, "reply", "replies")
    ('1 question', '1,200 replies')
    """
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def sentence(text: str) -> str:
    """A text with a capital at its beginning and a full stop at its end.

    >>> sentence("gold letters: A 50%"), sentence("Is it so?")
    ('Gold letters: A 50%.', 'Is it so?')
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
