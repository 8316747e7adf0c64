"""From one row of a file or data set, in any of the usual layouts, to a pair or a demonstration."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from calib_jax.errors import UserError
from calib_jax.questions import judges
from calib_jax.questions.dialogue import Message, Prompt, last_user, messages, text, transcript
from calib_jax.questions.record import normalised

ASKED = ("prompt", "instruction", "question", "query")
ANSWERS = ("response", "completion", "output", "answer")
TURNS = ("messages", "conversations")
RATES = ("rate", "preference_rate")
LAYOUTS = (
    "a pair has 'chosen' and 'rejected', as text or messages, after 'prompt', 'instruction' (with "
    "'input'), 'question', 'query' or 'conversations', or as whole dialogues; or 'instruction', "
    "'output_1', 'output_2' and 'preference' (AlpacaEval); or 'instruction' and rated "
    "'completions' (UltraFeedback); or 'context', 'response1', 'response2' and "
    "'individual_preference' (HelpSteer3). A demonstration has 'messages' or 'conversations' that "
    "end in an answer, or one of the former with 'response', 'completion', 'output' or 'answer'; "
    "of a pair the chosen answer is taken. There may be 'system', 'id', 'subject' and "
    "'rate'"
)


@dataclasses.dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which people prefer the first.

    Attributes:
      id: unique within its source.
      prompt: plain text that the answer follows directly, or messages for the chat template.
      chosen, rejected: the answers.
      rate: P(chosen preferred to rejected), the share of people, where it is known.
      subject: a finer topic, where there is one.
      ends: whether nothing follows the answers, so that they end in EOS (or the end of a turn); a
        letter after a question's prompt does not end, as in calibration.
      asked: the question's own text, of pairs that are made of questions.
    """

    id: str
    prompt: Prompt
    chosen: str
    rejected: str
    rate: float | None = None
    subject: str | None = None
    ends: bool = True
    asked: str | None = None

    @property
    def text(self) -> str:
        """What tells its prompt from others: the question, or the last turn of the user."""
        return normalised(self.asked or last_user(self.prompt))


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """A prompt and the answer to learn; fields as of ``Preference``."""

    id: str
    prompt: Prompt
    response: str
    ends: bool = True
    asked: str | None = None

    @property
    def text(self) -> str:
        """As of ``Preference``."""
        return normalised(self.asked or last_user(self.prompt))


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Why a good row gives nothing to learn."""

    reason: str


TIE = Skipped("ties")
EMPTY = Skipped("empty_answers")
IDENTICAL = Skipped("identical_answers")
UNDECIDED = Skipped("without_preference")


def preference_from_row(row: Mapping, default_id: str) -> Preference | Skipped:
    """Reads one row strictly.

    ``preference`` (AlpacaEval's annotations) is 1 or 2, the better output; a number between them
    is 1 + P(the second is better); 0 and 1.5 are ties and null was not judged. Equal values of
    ``score_chosen`` and ``score_rejected`` are a tie, by the means where these hold several
    judges' scores (a list, or judge -> score). Several judges give the rate, unless the row states
    it: see ``judges``.

    Raises:
      UserError: a field is missing, ill-typed or contradicts another; it names the field.
    """
    name, rate = _id(row, default_id), _rate(row)
    prompt: Prompt
    if "preference" in row and "output_1" in row:
        prompt = _asked(row)
        order = _judged(row["preference"])
        if isinstance(order, Skipped):
            return order
        first, known = order
        outputs = [text(row.get(f"output_{i}"), f"output_{i}") for i in (1, 2)]
        chosen, rejected = outputs if first == 1 else outputs[::-1]
        rate = known if rate is None else rate
    elif "completions" in row and "chosen" not in row:
        prompt = _asked(row)
        found = judges.two_of(row["completions"], last_user(prompt))
        if found is None:
            return TIE
        chosen, rejected, known = found
        rate = known if rate is None else rate
    elif "response1" in row and "individual_preference" in row:
        prompt = messages(row.get("context"), "context")
        if not prompt or prompt[-1]["role"] != "user":
            raise UserError("field 'context' must end in a turn of the user")
        second, count = judges.votes(row["individual_preference"])
        if not count or second == 0.5:
            return TIE if count else UNDECIDED
        outputs = [text(row.get(f"response{i}"), f"response{i}") for i in (1, 2)]
        chosen, rejected = outputs[::-1] if second > 0.5 else outputs
        if rate is None and count > 1:
            rate = max(second, 1 - second)
    else:
        prompt, chosen, rejected = _sides(row)
    if not chosen.strip() or not rejected.strip():
        return EMPTY
    if chosen.strip() == rejected.strip():
        return IDENTICAL
    scores = [judges.scores_of(row.get(name), name) for name in ("score_chosen", "score_rejected")]
    if scores[0] and judges.mean(scores[0]) == judges.mean(scores[1]):
        return TIE
    if rate is None:
        rate = judges.rate(*scores)
    return Preference(name, prompt, chosen, rejected, rate, _subject(row))


def demonstration_from_row(row: Mapping, default_id: str) -> Demonstration | Skipped:
    """Reads one row strictly; of several answers in a dialogue the last one is learnt.

    Raises:
      UserError: as ``preference_from_row``.
    """
    name = _id(row, default_id)
    if row.keys() & {"chosen", "output_1", "completions", "individual_preference"}:
        pair = preference_from_row(row, default_id)
        if isinstance(pair, Skipped):
            return pair
        return Demonstration(name, pair.prompt, pair.chosen)
    answers = [key for key in ANSWERS if row.get(key) is not None]
    turns = next((key for key in TURNS if row.get(key) is not None), None)
    if turns and not answers:
        prompt, response = _split(messages(row[turns], turns), turns)
        prompt = _with_system(row, prompt)
    else:
        if len(answers) != 1:
            raise UserError(_unknown(row, "one answer", answers))
        value = row[answers[0]]
        if isinstance(value, str):
            response = text(value, answers[0])
        else:
            before, response = _split(messages(value, answers[0]), answers[0], alone=True)
            if before:
                raise UserError(f"field {answers[0]!r} must be one answer, not a dialogue")
        prompt = _asked(row)
    return Demonstration(name, prompt, response) if response.strip() else EMPTY


def _sides(row: Mapping) -> tuple[Prompt, str, str]:
    """Prompt, chosen and rejected of a row that has these two."""
    missing = [key for key in ("chosen", "rejected") if row.get(key) is None]
    if missing:
        raise UserError(_unknown(row, f"field {missing[0]!r}", ()))
    if isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        sides = text(row["chosen"], "chosen"), text(row["rejected"], "rejected")
        if any(row.get(key) is not None for key in (*ASKED, *TURNS)):
            return _asked(row), *sides
        dialogues = [found for side in sides if (found := transcript(side)) is not None]
        if len(dialogues) < 2:
            raise UserError(_unknown(row, "a prompt", ()))
    else:
        # What is no text is looked at first: it tells which of the two is wrong.
        keys = sorted(("chosen", "rejected"), key=lambda key: isinstance(row[key], str))
        turns = {key: messages(row[key], key) for key in keys}
        dialogues = [turns["chosen"], turns["rejected"]]
    (before, chosen), (also, rejected) = (
        _split(dialogue, key, alone=True)
        for dialogue, key in zip(dialogues, ("chosen", "rejected"), strict=True)
    )
    if before != also:
        raise UserError(
            "fields 'chosen' and 'rejected' hold different prompts; only their last turns may "
            "differ"
        )
    return (_with_system(row, before) if before else _asked(row)), chosen, rejected


def _split(
    dialogue: tuple[Message, ...], field: str, alone: bool = False
) -> tuple[tuple[Message, ...], str]:
    """The turns before the last one, and the last one, which must be the assistant's."""
    if not dialogue or dialogue[-1]["role"] != "assistant":
        last = dialogue[-1]["role"] if dialogue else "nothing"
        raise UserError(f"field {field!r} must end in a turn of the assistant, not of {last}")
    before = dialogue[:-1]
    if (before or not alone) and not any(m["role"] == "user" for m in before):
        raise UserError(f"field {field!r} has no turn of the user before the answer")
    return before, dialogue[-1]["content"]


def _asked(row: Mapping) -> tuple[Message, ...]:
    """The prompt's messages, from whichever fields hold it."""
    names = [key for key in (*ASKED, *TURNS) if row.get(key) is not None]
    if not names:
        raise UserError(_unknown(row, "a prompt", ()))
    if len(names) > 1:
        raise UserError(f"the prompt appears in {' and '.join(names)}: keep one of them")
    field, value = names[0], row[names[0]]
    if not isinstance(value, str):
        prompt = messages(value, field)
        if not prompt or prompt[-1]["role"] == "assistant":
            raise UserError(f"field {field!r} must end in a turn of the user")
        return _with_system(row, prompt)
    asked = text(value, field)
    if extra := row.get("input"):
        asked = f"{asked}\n\n{text(extra, 'input')}"
    if not asked.strip():
        raise UserError(f"field {field!r} is empty")
    # A prompt that is a dialogue in hh-rlhf's form ends in "Assistant:".
    dialogue = transcript(asked) if asked.rstrip().endswith("\n\nAssistant:") else None
    prompt = dialogue[:-1] if dialogue else ({"role": "user", "content": asked},)
    return _with_system(row, prompt)


def _with_system(row: Mapping, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    system = row.get("system")
    if system is None or not text(system, "system").strip():
        return prompt
    if prompt[0]["role"] == "system":
        raise UserError("the system's turn appears in 'system' and in the dialogue: keep one")
    return ({"role": "system", "content": system}, *prompt)


def _judged(value: Any) -> tuple[int, float | None] | Skipped:
    """Which output is better, and P(it is) where a fraction says so."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNDECIDED
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"field 'preference' is {value!r}; expected a number, 1 to 2")
    if value in (0, 1.5):
        return TIE
    if not 1 <= value <= 2:
        raise UserError(f"field 'preference' is {value!r}; expected 1 to 2, or 0 for a tie")
    second = float(value) - 1
    first = 2 if second > 0.5 else 1
    return first, (None if second in (0, 1) else max(second, 1 - second))


def _rate(row: Mapping) -> float | None:
    name = next((key for key in RATES if row.get(key) is not None), None)
    if name is None:
        return None
    rate = row[name]
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
        raise UserError(f"field {name!r} is {rate!r}; expected P(chosen preferred), 0 to 1")
    return float(rate)


def _id(row: Mapping, default: str) -> str:
    value = row.get("id")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).strip():
        raise UserError(f"field 'id' must be text or a number, not {value!r}")
    return str(value)


def _subject(row: Mapping) -> str | None:
    value = row.get("subject")
    return None if value is None else text(value, "subject") or None


def _unknown(row: Mapping, what: str, found: Any) -> str:
    held = f" (found {' and '.join(found)})" if found else ""
    return f"{what} is missing among the columns {', '.join(map(str, row))}{held}: {LAYOUTS}"
