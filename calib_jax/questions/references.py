"""Options that refer to positions or to other options, which a shuffle must not displace.

Two kinds. A *summary* ("all of the above", "both of these", "neither") speaks of the options as a
group: it keeps its place, and no option may cross it, or "the above" would change. A *naming*
("both A and C", "all but B", "the first two options") keeps the order of the whole question.
"""

import re
import unicodedata
from collections.abc import Sequence

from calib_jax.questions.record import LETTERS

_QUANTITY = r"(?:all|none|both|neither|nither|either|any|each|two|2|one|only)"
_OPTIONS = r"(?:options?|answers?|choices?|alternatives?|responses?)"
_VERDICT = r"(?:are|is|were|was|may be|can be|could be|might be)"
_TRUTH = (
    r"(?:equally |all |both |each |not |also )*"
    r"(?:correct|incorrect|true|false|right|wrong|valid|possible|acceptable|likely)"
)

_SUMMARIES = [
    re.compile(pattern)
    for pattern in (
        # "all of the above", "any 2 of the above values", "all the above", "none of above"
        r"\b(?:of|all|none|both|neither|any|either) (?:the |those |these )?above\b(?!-)",
        rf"\b{_QUANTITY} (?:of )?(?:the )?below$",
        # "none of these", "both of these are correct", "each of these makes it heavier"
        rf"^(?:it is |they are )?{_QUANTITY} (?:of )?(?:these|those)\b",
        r"\b(?:all|none|both|neither|either|any) of (?:these|those)$",
        rf"^{_QUANTITY} of (?:them|the others?)(?: {_VERDICT} {_TRUTH})?$",
        r"^(?:these|those|they) are (?:all|both) (?:correct|incorrect|right|wrong|true|false)$",
        # "all of the options given are correct", "none of the other answers"
        rf"^{_QUANTITY} (?:of )?(?:the |these |those )?"
        rf"(?:other |given |listed |mentioned |stated )?{_OPTIONS}\b",
        rf"\b{_QUANTITY} (?:of )?(?:the )?(?:\w+ )?(?:listed|mentioned|given|stated|described)"
        r"(?: above| below| here)?$",
        r"\b(?:listed|mentioned|given|stated|described) above$",
        r"^(?:the )?same as (?:the )?above$",
        # "both", "neither is true", "all are correct"
        rf"^(?:all|none|both|neither|either|any)(?: {_VERDICT} {_TRUTH})?$",
    )
]

_POSITIONS = re.compile(
    r"\b(?:first|second|third|fourth|last|previous|preceding|next|former|latter|two|other two)"
    rf" (?:two |three |one )?{_OPTIONS}\b"
)

_LABEL = r"[(\[]?(?:[a-z]|[ivx]{1,4}|\d{1,2})(?:[)\]]|\.(?!\d))?"
_AND = r"(?:\s*[,;&]\s*(?:(?:and|or|nor)\s+)?|\s+(?:and|or|nor|and/or)\.?\s+)"
_LIST = rf"{_LABEL}(?:(?:{_AND}|\s+){_LABEL})*{_AND}{_LABEL}"  # "a, b and c", "a b and c"
_NAMING = re.compile(
    r"(?P<lead>(?:(?:both|either|neither|only|all|any|none|not|just)\s+(?:of\s+)?)*)"
    r"(?P<except>(?:of\s+)?(?:the\s+)?(?:above\s+)?(?:,\s*)?(?:but|except)(?:\s+for)?\s+)?"
    rf"(?P<noun>(?:the\s+)?(?:same\s+as\s+)?{_OPTIONS}\s+)?"
    rf"(?P<labels>{_LIST}|{_LABEL})"
    r"(?P<tail>(?:\s+(?:only|alone|together|above|combined))*)"
    rf"(?:,?\s+(?:but|and)\s+not\s+(?P<without>{_LIST}|{_LABEL}))?"
    rf"(?P<verdict>\s+(?:both|{_VERDICT}|can|could|will|would|do|does|have|has)\b.*)?"
)
_LABEL_ALONE, _BARE_LIST, _WITH_WORDS = range(3)
_ROMAN = {"i": 0, "ii": 1, "iii": 2, "iv": 3, "v": 4, "vi": 5, "vii": 6, "viii": 7}


def summaries(choices: Sequence[str]) -> tuple[int, ...]:
    """Indices of the options that speak of the others as a group.

    >>> summaries(["ice", "rain", "both of these", "none of the above"])
    (2, 3)
    """
    return tuple(i for i, choice in enumerate(choices) if _is_summary(_plain(choice)))


def names_options(question: str, choices: Sequence[str]) -> bool:
    """Whether an option names others by letter, number or position.

    Letters name options only where such options exist and one of them is not a list of letters
    too; a bare list ("A and C") that holds its own letter counts only as the last option. So
    vitamins "A and D", "B6 and C", "C and K" name no options. Numbers and Roman numerals mostly
    name statements: they count only with a word such as "both" or "options", and where the
    question's text does not number anything itself. In doubt the order is kept.

    >>> names_options("Which falls?", ["ice", "rain", "both A and B", "wood"])
    True
    """
    plain = [_plain(choice) for choice in choices]
    if any(_POSITIONS.search(text) for text in plain):
        return True
    lists = [_list(text, len(choices), question) for text in plain]
    for i, (labels, strength) in enumerate(lists):
        itself = i in labels and i < len(choices) - 1
        if strength == _LABEL_ALONE or (strength == _BARE_LIST and itself):
            continue
        if any(not lists[j][0] for j in labels if j != i):
            return True
    return False


def _plain(choice: str) -> str:
    """Folded, white space collapsed, without closing punctuation, quotes or a leading dash."""
    text = " ".join(unicodedata.normalize("NFKC", choice).casefold().split())
    return text.strip(" .!?;:,\"'*-")


def _is_summary(text: str) -> bool:
    return any(pattern.search(text) for pattern in _SUMMARIES)


def _list(text: str, K: int, question: str) -> tuple[frozenset[int], int]:
    """The options that ``text`` lists by letter or number, none if it is no list, and how far its
    form says that options are meant: ``_LABEL_ALONE``, ``_BARE_LIST`` or ``_WITH_WORDS``."""
    nothing: tuple[frozenset[int], int] = frozenset(), _LABEL_ALONE
    match = _NAMING.fullmatch(text)
    if match is None:
        return nothing
    listed = [*_labels(match["labels"]), *_labels(match["without"] or "")]
    strength = _BARE_LIST
    if match["noun"] or match["except"] or (match["lead"] and len(listed) > 1):
        strength = _WITH_WORDS  # "options A and B", "all but A", "both A and B"
    elif len(listed) == 1:
        strength = _BARE_LIST if match["tail"] or match["lead"] else _LABEL_ALONE
    if match["verdict"] and strength < _WITH_WORDS and not re.search(r"[(\[]", match["labels"]):
        return nothing
    letters = LETTERS[:K].casefold()
    if all(label in letters for label in listed):
        return frozenset(letters.index(label) for label in listed), strength
    numbers = [_ROMAN.get(label, int(label) - 1 if label.isdigit() else K) for label in listed]
    if strength < _WITH_WORDS or not all(0 <= number < K for number in numbers):
        return nothing
    if re.search(r"(?<![\w.])(?:1|i|I)(?!\w)", question):
        return nothing
    return frozenset(numbers), strength


def _labels(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+|\d+", text) if word not in ("and", "or", "nor")]
