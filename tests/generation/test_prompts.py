"""Prompts out of files, as tokens; what ends an answer; and the judges' layouts."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_jax.errors import UserError
from calib_jax.generation import encode_prompts, load_prompts, stop_tokens
from calib_jax.generation.answers import check_layout, write_answers
from calib_jax.models.model import open_checkpoint
from calib_jax.questions.chat import Chat
from tests.conftest import write_tiny_model

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model that chats: its turns end in a token that no file names as EOS."""
    folder = write_tiny_model(tmp_path_factory.mktemp("chat") / "m", eos_token_id=5)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|eos|>",
        "additional_special_tokens": ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9, 100_000]}))
    return open_checkpoint(str(folder))


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


USER = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_every_layout(tmp_path, suffix):
    rows = {
        "instruction": {"instruction": "Why?", "output": "theirs", "generator": "them"},
        "prompt": {"uid": "x1", "prompt": "Why?", "category": "hard_prompt"},
        "turns": {"question_id": "x1", "turns": [{"content": "Why?"}]},
        "question": {"id": 3, "question": "Why?"},
        "messages": {"messages": [{"role": "system", "content": "Be brief."}, USER], "prompt": "-"},
    }
    for column, row in rows.items():
        (prompt,) = load_prompts(write(tmp_path / f"{column}{suffix}", [row]))
        assert prompt.text == "Why?" and prompt.column == column
        assert prompt.messages[-1] == USER and prompt.row == row
        assert prompt.id == {"instruction": "row-1", "question": "3", "messages": "row-1"}.get(
            column, "x1"
        )


def test_the_first_so_many(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"prompt": f"{i}"} for i in range(5)])
    assert [p.text for p in load_prompts(path, 2)] == ["0", "1"]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": "Why?"}], "row 1: no prompt"),
        ([{"prompt": "a"}, {"prompt": ""}], "row 2: no prompt"),
        ([{"instruction": "a", "input": "b"}], "'input' is not empty"),
        ([{"id": 1, "prompt": "a"}, {"id": "1", "prompt": "b"}], "row 2: id '1' appears in row 1"),
        ([{"turns": ["a", "b"]}], "2 turns"),
        ([{"messages": [USER, {"role": "assistant", "content": "So."}]}], "ends in a turn of the"),
        ([{"messages": [{"role": "critic", "content": "a"}]}], "message 1 must have a role"),
        ([{"prompt": 7}], "must be a text or a list of messages, not 7"),
        ([{"prompt": "  "}], "blank"),
    ],
)
def test_rows_that_are_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        load_prompts(write(tmp_path / "p.jsonl", rows))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("p.txt", "a", "must end in"),
        ("p.json", "{", "not valid JSON"),
        ("p.json", "{}", "a JSON list"),
        ("p.jsonl", "", "no rows"),
        ("none.json", None, "no such file"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_prompts(str(tmp_path / name))
    with pytest.raises(UserError, match="names no source"):
        load_prompts("")


def test_tokens_of_a_conversation_and_of_a_text(tmp_path, checkpoint):
    tokenizer, chat = checkpoint.tokenizer, Chat(checkpoint.tokenizer)
    turns = [USER, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Oh?"}]
    path = write(tmp_path / "p.jsonl", [{"messages": turns}, {"prompt": "Why?"}])
    prompts = load_prompts(path)
    long, short = encode_prompts(tokenizer, prompts, chat, 100)
    assert tokenizer.decode(short) == "<|user|>Why?<|end|>\n<|assistant|>"
    assert tokenizer.decode(long).endswith("So.<|end|>\n<|user|>Oh?<|end|>\n<|assistant|>")
    assert tokenizer.decode(encode_prompts(tokenizer, prompts[1:], None, 100)[0]) == "Why?"
    with pytest.raises(UserError, match="conversation of 3 messages.*config.prompt.chat"):
        encode_prompts(tokenizer, prompts, None, 100)
    with pytest.raises(UserError, match=f"'row-1' has {len(long)} tokens, and at most 10"):
        encode_prompts(tokenizer, prompts, chat, 10)


def test_what_ends_an_answer(checkpoint, tiny_model):
    tokenizer = checkpoint.tokenizer
    files = {5, 7, 9, tokenizer.convert_tokens_to_ids("<|eos|>")}
    assert set(stop_tokens(checkpoint)) == files  # 100,000 is no token of this model
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    found = stop_tokens(checkpoint, Chat(tokenizer))
    assert set(found) == files | {end} and found[end] == "<|end|>"
    with pytest.raises(UserError, match="which token ends an answer"):
        stop_tokens(open_checkpoint(str(tiny_model)))


def answers(tmp_path, layout, rows):
    prompts = load_prompts(write(tmp_path / "p.json", rows))
    check_layout(layout, prompts, "ours")
    texts = [f"# Answer {i}\n- **b**" for i in range(len(rows))]
    path = write_answers(
        tmp_path, layout, "ours", prompts, texts, [4] * len(rows), [True] * len(rows)
    )
    return path, path.read_text(), texts


def test_alpaca_evals_layout(tmp_path):
    rows = [{"instruction": "Why?", "dataset": "koala", "output": "-"}, {"instruction": "Who?"}]
    path, text, texts = answers(tmp_path, "alpaca_eval", rows)
    assert path.name == "ours.json"
    assert json.loads(text) == [
        {"instruction": "Why?", "output": texts[0], "generator": "ours", "dataset": "koala"},
        {"instruction": "Who?", "output": texts[1], "generator": "ours"},
    ]


def test_arena_hards_two_layouts(tmp_path):
    """What gen_judgment.py of v2.0 and of v0.1 look up in a line."""
    rows = [{"uid": "u1", "prompt": "Why?"}, {"question_id": "q1", "turns": [{"content": "Who?"}]}]
    path, text, texts = answers(tmp_path, "arena_hard", rows)
    assert path == tmp_path / "model_answer" / "ours.jsonl"
    new, old = map(json.loads, text.splitlines())
    assert (new["uid"], new["model"]) == ("u1", "ours") and new["ans_id"]
    assert new["messages"][0] == {"role": "user", "content": "Why?"}
    assert new["messages"][-1]["content"]["answer"] == texts[0]
    assert (old["question_id"], old["model_id"]) == ("q1", "ours") and old["answer_id"]
    assert old["choices"][0]["turns"][0] == {"content": texts[1], "token_len": 4}
    for metadata in (new["metadata"], old["conv_metadata"]):
        assert metadata["token_len"] == 4
        assert metadata["header_count"] == {"h1": 1, "h2": 0, "h3": 0, "h4": 0, "h5": 0, "h6": 0}
        assert metadata["list_count"] == {"ordered": 0, "unordered": 1}
        assert metadata["bold_count"] == {"**": 1, "__": 0}


def test_layouts_that_do_not_fit(tmp_path):
    talk = [USER, {"role": "assistant", "content": "So."}, USER]
    prompts = load_prompts(write(tmp_path / "p.json", [{"messages": talk}]))
    for layout, name, message in (
        ("alpaca_eval", "m", "several turns"),
        ("arena_hard", "m", "several turns"),
        ("yaml", "m", "format is 'yaml'"),
        ("jsonl", "a/b", "hold a slash"),
    ):
        with pytest.raises(UserError, match=message):
            check_layout(layout, prompts, name)
    check_layout("jsonl", prompts, "m")
    with pytest.raises(UserError, match="neither uid"):
        check_layout("arena_hard", load_prompts(write(tmp_path / "q.json", [{"prompt": "a"}])), "m")
