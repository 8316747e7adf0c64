"""Preference pairs and demonstrations: layouts, what is left out, encoding."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

from calib_jax.errors import UserError
from calib_jax.questions import preferences
from calib_jax.questions.preferences import (
    Demonstration,
    Preference,
    encode_demonstrations,
    encode_preference,
    encode_preferences,
    hold_out,
    load_demonstrations,
    load_preferences,
    remove_overlap,
)
from calib_jax.questions.record import normalised
from tests.conftest import make_questions, tiny_tokenizer, write_questions


def user(text):
    return {"role": "user", "content": text}


def reply(text):
    return {"role": "assistant", "content": text}


def said(who, text):
    return {"from": who, "value": text}


def write(folder, *rows, name="data.jsonl"):
    path = folder / name
    if name.endswith(".json"):
        path.write_text(json.dumps(list(rows)))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ASKED = (user("Why?"),)
SYSTEM = {"role": "system", "content": "Be brief."}
LONG = (user("Hi"), reply("Hello."), user("Why?"))
HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:"
LAYOUTS = {
    "strings": ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, ASKED),
    "messages (Tulu)": (
        {"id": "t1", "source": "x", "chosen": [*LONG, reply("So.")],
         "rejected": [*LONG, reply("No.")]}, LONG),
    "messages and prompt (UltraFeedback)": (
        {"prompt": "Why?", "prompt_id": "9", "chosen": [*ASKED, reply("So.")],
         "rejected": [*ASKED, reply("No.")], "score_chosen": 8.0, "score_rejected": 7.5}, ASKED),
    "one message each": (
        {"prompt": list(LONG), "chosen": [reply("So.")], "rejected": [reply("No.")]}, LONG),
    "hh-rlhf": ({"chosen": HH + " So.", "rejected": HH + " No."}, LONG),
    "hh-rlhf with a prompt": ({"prompt": HH, "chosen": "So.", "rejected": "No."}, LONG),
    "ShareGPT": (
        {"conversations": [said("system", "Be brief."), said("human", "Why?")],
         "chosen": said("gpt", "So."), "rejected": said("gpt", "No.")}, (SYSTEM, *ASKED)),
    "system, question": (
        {"system": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "No."},
        (SYSTEM, *ASKED)),
    "instruction, input": (
        {"instruction": "Explain.", "input": "Why?", "chosen": "So.", "rejected": "No."},
        (user("Explain.\n\nWhy?"),)),
    "AlpacaEval": (
        {"instruction": "Why?", "output_1": "No.", "output_2": "So.", "preference": 2}, ASKED),
    "HelpSteer3, one person": (
        {"context": list(LONG), "response1": "No.", "response2": "So.", "overall_preference": 1,
         "individual_preference": [{"score": 1, "reasoning": "r"}]}, LONG),
}  # fmt: skip  # a table: a row and what it becomes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.parquet"])
def test_layouts(tmp_path, layout, name):
    row, prompt = LAYOUTS[layout]
    loaded = load_preferences(write(tmp_path, row, name=name))
    (item,) = loaded.items
    assert (item.prompt, item.chosen.strip(), item.rejected.strip()) == (prompt, "So.", "No.")
    assert item.ends and item.rate is None and item.text == normalised(prompt[-1]["content"])
    assert loaded.report["n"] == loaded.report["rows"] == 1 and not loaded.report["left_out"]
    (learnt,) = load_demonstrations(write(tmp_path, row, name=name)).items
    assert (learnt.prompt, learnt.response.strip()) == (prompt, "So.")


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"messages": [SYSTEM, *LONG, reply("So.")]}, (SYSTEM, *LONG)),
        ({"conversations": [said("human", "Why?"), said("gpt", "So.")]}, ASKED),
        ({"instruction": "Why?", "input": "", "output": "So."}, ASKED),
        ({"prompt": "Why?", "completion": "So."}, ASKED),
        ({"prompt": [*ASKED], "completion": [reply("So.")]}, ASKED),
        ({"question": "Why?", "response": "So."}, ASKED),
    ],
)
def test_demonstrations(tmp_path, row, prompt):
    (item,) = load_demonstrations(write(tmp_path, row)).items
    assert (item.prompt, item.response) == (prompt, "So.")


@pytest.mark.parametrize(
    ("preference", "chosen", "rate"), [(1, "one", None), (2.0, "two", None), (1.25, "one", 0.75)]
)
def test_annotations(tmp_path, preference, chosen, rate):
    row = {"instruction": "Why?", "output_1": "one", "output_2": "two", "preference": preference}
    (item,) = load_preferences(write(tmp_path, row)).items
    assert (item.chosen, item.rate) == (chosen, rate)


def test_what_is_left_out_is_counted(tmp_path):
    def row(chosen="a", rejected="b", **more):
        return {"prompt": "Why?", "chosen": chosen, "rejected": rejected, **more}

    judged = {"instruction": "Why?", "output_1": "x", "output_2": "y"}
    rows = [
        row(rate=0.7),
        row(rate=0.7),
        row("b", "a"),
        row(" "),
        row("b ", "b"),
        row("c", score_chosen=1, score_rejected=1),
        {**judged, "preference": 1.5},
        {**judged, "preference": 0},
        {**judged, "preference": None},
    ]
    loaded = load_preferences(write(tmp_path, *rows))
    assert [(i.chosen, i.rate) for i in loaded.items] == [("a", 0.7), ("b", None)]
    assert loaded.report["left_out"] == {
        "duplicates": 1,
        "empty_answers": 1,
        "identical_answers": 1,
        "ties": 3,
        "without_preference": 1,
    }
    with pytest.raises(UserError, match=r"nothing to learn.*1 ties"):
        load_preferences(write(tmp_path, rows[-2]))


BAD = {
    "no rejected": ({"prompt": "Why?", "chosen": "a"}, "row 2: field 'rejected' is missing"),
    "no prompt": ({"chosen": "a", "rejected": "b"}, "row 2: a prompt is missing"),
    "two prompts": (
        {"prompt": "x", "question": "y", "chosen": "a", "rejected": "b"},
        "prompt and question",
    ),
    "other prompts": (
        {"chosen": [*ASKED, reply("a")], "rejected": [*LONG, reply("b")]},
        "row 2: fields 'chosen' and 'rejected' hold different prompts",
    ),
    "role": (
        {"prompt": [{"role": "robot", "content": "x"}], "chosen": "a", "rejected": "b"},
        "field 'prompt': role 'robot'; expected one of system, user",
    ),
    "ends in a question": (
        {"chosen": [*ASKED], "rejected": [*ASKED]},
        "field 'chosen' must end in a turn of the ass",
    ),
    "number": ({"prompt": "x", "chosen": "a", "rejected": 3}, "field 'rejected' must be a list of"),
    "surrogate": ({"prompt": "x", "chosen": "\ud800", "rejected": "b"}, "'chosen' is not valid U"),
    "rate": ({"prompt": "x", "chosen": "a", "rejected": "b", "rate": 2}, "field 'rate' is 2"),
    "preference": (
        {"instruction": "x", "output_1": "a", "output_2": "b", "preference": "m"},
        "field 'preference' is 'm'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named(tmp_path, case):
    row, message = BAD[case]
    path = write(tmp_path, LAYOUTS["strings"][0], row)
    with pytest.raises(UserError) as caught:
        load_preferences(path)
    assert str(caught.value).startswith(f"{path} row 2: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.json", b'[\n{"prompt": "\xff"}]', "line 2: not UTF-8"),
        ("data.json", b'{"prompt": "x"}', "expected a list of objects, not dict"),
        ("data.json", b'{"a": 1}\n{"a": 2}', "Extra data.*one object a line is a .jsonl"),
        ("data.json", b"[3]", "row 1: expected an object, not int"),
        ("data.jsonl", b'{"prompt": "\xff"}\n', "row 1: not UTF-8"),
        ("data.txt", b"x", "names no source; write"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_preferences(str(tmp_path / name))
    with pytest.raises(UserError, match="no such file"):
        load_preferences(str(tmp_path / "other.jsonl"))


def test_pairs_of_one_file_of_questions_for_training_and_for_measuring(tmp_path):
    path = write_questions(tmp_path / "q.jsonl", make_questions(100))
    spec = f"questions:{path}%70:30@0.8"
    learnt = load_preferences(spec, seed=3, role="train").items
    held_out = load_preferences(spec, seed=3).items
    assert (len(learnt), len(held_out)) == (70, 30)
    assert not {item.id for item in learnt} & {item.id for item in held_out}


def test_pairs_of_questions(tmp_path):
    path = write_questions(tmp_path / "q.jsonl", questions := make_questions(400))
    items = load_preferences(f"questions:{path}@0.8", seed=3).items
    again = load_preferences(f"questions:{path}@0.8", seed=3).items
    assert items == again != load_preferences(f"questions:{path}@0.8", seed=4).items
    assert {round(item.rate, 6) for item in items} == {0.8, 0.2}
    agrees = np.array([item.rate > 0.5 for item in items])
    assert abs(agrees.mean() - 0.8) < 0.06
    asked = {q.question: q for q in questions}
    for item, right in zip(items, agrees, strict=True):
        lines = dict(line.split(". ", 1) for line in item.prompt.splitlines() if ". " in line)
        question = asked[item.asked]
        assert set(lines.values()) == set(question.choices)
        letter, other = item.chosen[1:], item.rejected[1:]
        wins, loses = (letter, other) if right else (other, letter)
        assert lines[wins] == question.choices[question.answer] != lines[loses]
        assert not item.ends and item.prompt.endswith("Answer:")
    always = load_preferences(f"questions:{path}").items
    assert {item.rate for item in always} == {1.0}
    (first, *_) = load_demonstrations(f"questions:{path}").items
    assert first.response == always[0].chosen and not first.ends
    with pytest.raises(UserError, match="rate '2' behind the @"):
        load_preferences(f"questions:{path}@2")


def test_draws_overlaps_and_held_out_prompts(tmp_path):
    rows = [{"prompt": f"Question {i // 2}", "chosen": f"a{i}", "rejected": "b"} for i in range(40)]
    path = write(tmp_path, *rows)
    items = load_preferences(path).items
    few, more = (load_preferences(path, size=n, seed=1) for n in (5, 10))
    names = [{item.id for item in some} for some in (few.items, more.items, items)]
    assert names[0] < names[1] < names[2] and len(names[1]) == 10
    assert few.report["left_out"] == {"not_drawn": 35}
    rest, held = hold_out(items, 7, seed=0)
    assert len(held) == 8 and len(rest) == 32
    assert not {item.text for item in rest} & {item.text for item in held}
    kept, removed = remove_overlap(items, {item.text for item in held} | {"question 19"})
    assert removed == 40 - len(kept) and removed in (8, 10)
    with pytest.raises(UserError, match="cannot hold out 40"):
        hold_out(items, 40, seed=0)


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(template=TEMPLATE, eos="<eos>"):
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer())
    fast.add_special_tokens({"eos_token": eos, "additional_special_tokens": ["<end>"]})
    fast.chat_template = template
    return fast


def parts(tok, pair):
    place = len(pair.tokens) - pair.num_targets
    return tok.decode(pair.tokens[:place]), tok.decode(pair.tokens[place:])


def test_encoding_in_a_chat_template():
    tok, item = tokenizer(), Preference("p", LONG, "So.", "No, it is not.")
    chosen, rejected = encode_preference(tok, item)
    before = "<user>Hi<end>\n<assistant>Hello.<end>\n<user>Why?<end>\n<assistant>"
    # The template's end of turn stands once, without the line break that no model writes.
    assert parts(tok, chosen) == (before, "So.<end>")
    assert parts(tok, rejected) == (before, "No, it is not.<end>")
    assert chosen.tokens.dtype == np.int32


def test_encoding_without_a_template_or_without_its_end():
    tok = tokenizer(template=None)
    item = Preference("p", (SYSTEM, *ASKED), "So.", "No.")
    plain = "System: Be brief.\n\nUser: Why?\n\nAssistant:", " So.<eos>"
    assert parts(tok, encode_preference(tok, item)[0]) == plain
    assert parts(tokenizer(), encode_preference(tokenizer(), item, chat=None)[0]) == plain
    tok = tokenizer("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    assert parts(tok, encode_preference(tok, item)[0]) == ("[Be brief.][Why?]", "[So.]<eos>")


def test_plain_prompts_and_letters():
    tok = tokenizer()
    item = Preference("p", "Which?\nAnswer:", " A", " B", ends=False)
    chosen, rejected = encode_preference(tok, item)
    assert parts(tok, chosen) == ("Which?\nAnswer:", " A")
    assert chosen.num_targets == rejected.num_targets == 1
    ending = encode_preference(tok, Preference("p", "Which?", " A", " B"))[0]
    assert parts(tok, ending) == ("Which?", " A<eos>")


def test_a_token_across_the_join_is_a_target():
    """ " A" is one token: after a prompt that ends in a space it spans the join."""
    tok = tokenizer()
    chosen, _ = encode_preference(tok, Preference("p", "Answer: ", "A", "B", ends=False))
    assert parts(tok, chosen) == ("Answer:", " A")


def test_long_items_are_counted_not_cut():
    tok = tokenizer()
    items = [Preference(str(n), ASKED, "x" * n, "y") for n in (3, 50, 4)]
    limit = len(encode_preference(tok, items[2])[0].tokens)
    kept, pairs, skipped = encode_preferences(tok, items, limit)
    assert [item.id for item in kept] == ["3", "4"] and skipped == 1
    assert max(len(side.tokens) for pair in pairs for side in pair) == limit
    learnt = [Demonstration("d", ASKED, "x" * n) for n in (3, 50)]
    kept, groups, skipped = encode_demonstrations(tok, learnt, limit)
    assert len(kept) == len(groups) == skipped == 1 and len(groups[0]) == 1


def test_a_template_that_refuses_the_turns():
    tok = tokenizer("{{ raise_exception('no system turn') }}")
    with pytest.raises(UserError, match="'p'.*chat template does not take the turns user"):
        encode_preference(tok, Preference("p", ASKED, "a", "b"))


def test_rows_of_a_json_file(tmp_path):
    path = write(tmp_path, {"a": 1}, {"a": 2}, name="data.json")
    assert list(preferences.read_rows(path)) == [(1, {"a": 1}), (2, {"a": 2})]
