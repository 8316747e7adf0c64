"""The tasks that come with the package, and users' own: what their files may say."""

import json
import tomllib

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import load
from calib_jax.questions.tasks import FOLDER, get_task, load_task, task_names

ROW = '{"question": "Wet?", "choices": ["yes", "no"], "answer": 1, "context": "It rains."}\n'
OTHER = '{"goal": "Dry a shoe", "sol1": "Paper", "sol2": "Soup", "best": "1"}\n'


def write(folder, text, rows=ROW):
    (folder / "rows.jsonl").write_text(rows)
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


@pytest.mark.parametrize("name", task_names())
def test_a_task_says_all_that_a_table_and_a_prompt_need(name):
    task = get_task(name)
    assert task.name == name and task.title and task.licence and (task.hub or task.offline)
    assert task.harness == "" or task.harness.split()[0] == name
    assert task.eval_split in task.counts
    assert task.shots_split in (*task.counts, None) and task.shots_split != task.eval_split
    assert set(task.offline) <= set(task.counts)
    assert not task.choice[-1].isspace() and not task.continuation[-1].isspace()
    for template in (task.choice, task.continuation):
        assert ("{context}" in template) == bool(task.fields.context)


def test_the_tasks_that_the_pages_name():
    assert set(task_names()) >= {
        *("arc_easy", "arc_challenge", "hellaswag", "piqa", "openbookqa", "mmlu", "medmcqa"),
        *("sciq", "commonsense_qa", "social_iqa", "winogrande", "boolq", "truthfulqa_mc1", "sst2"),
    }
    assert [name for name in task_names() if get_task(name).form == "contexts"] == ["winogrande"]


def test_mmlu_has_57_subjects_in_four_groups():
    groups = get_task("mmlu").groups
    sizes = {group: list(groups.values()).count(group) for group in groups.values()}
    assert sizes == {"stem": 19, "humanities": 13, "social_sciences": 12, "other": 13}
    assert not any(get_task(name).groups for name in task_names() if name != "mmlu")


def test_unknown_names():
    with pytest.raises(UserError, match="no task 'hellaswaag'; did you mean 'hellaswag'.*arc_easy"):
        get_task("hellaswaag")
    with pytest.raises(UserError, match="none.toml: cannot be read"):
        get_task("none.toml")


def test_the_package_ships_every_file():
    with open(FOLDER.parents[2] / "pyproject.toml", "rb") as file:
        tool = tomllib.load(file)["tool"]["setuptools"]
    assert "calib_jax.questions.tasks" in tool["packages"]
    assert tool["package-data"]["calib_jax.questions.tasks"] == ["*.toml"]


def test_a_task_of_one_s_own_needs_one_line(tmp_path):
    task = get_task(write(tmp_path, 'files = { dev = "rows.jsonl" }'))
    assert (task.name, task.title, task.eval_split) == ("mine", "mine", "dev")
    assert (task.native, task.form, task.shots_split) == ("choice", "options", None)
    [question] = load_task(task)
    assert (question.id, question.answer, question.task) == ("row-1", 1, "mine")
    assert question.context == "It rains."
    with pytest.raises(UserError, match="'mine' has no split 'test'; there are: dev"):
        load_task(task, "test")


def test_parts_of_a_split_are_splits_that_share_no_row(tmp_path):
    text = """
    files = { all = "rows.jsonl" }
    eval_split = "held_out"
    [parts.held_out]
    of = "all"
    rows = [4, 1]
    [parts.rest]
    of = "all"
    without = "held_out"
    """
    rows = "".join(ROW.replace("Wet?", f"Wet {i}?") for i in range(5))
    path = write(tmp_path, text, rows)
    task = get_task(path)
    assert set(task.splits) == {"all", "held_out", "rest"}
    assert [q.id for q in load_task(task)] == ["row-2", "row-5"]
    assert [q.id for q in load(f"{path}/rest")] == ["row-1", "row-3", "row-4"]
    assert [q.id for q in load(f"{path}/all")] == [f"row-{i}" for i in range(1, 6)]
    with pytest.raises(UserError, match="part 'held_out' has row 4 of 'all', which has 4 rows"):
        load_task(write(tmp_path, text, "".join(rows.splitlines(True)[:4])))
    with pytest.raises(UserError, match="no row of 'all' is left for 'rest'"):
        load_task(write(tmp_path, text.replace("[4, 1]", "[0]"), ROW), "rest")


def test_rows_of_one_s_own_layout(tmp_path):
    text = """
    name = "shoes"
    title = "Shoes"
    native = "continuation"
    choice = "{question}\\n{options}\\nAnswer:"
    continuation = "{question}:"
    [files]
    test = "rows.jsonl"
    [fields]
    question = "How? {goal}"
    choices = ["{sol1}", "{sol2}", "neither"]
    labels = ["1", "2", "0"]
    answer = "best"
    """
    [question] = load_task(write(tmp_path, text, OTHER))
    assert (question.question, question.task) == ("How? Dry a shoe", "shoes")
    assert question.choices == ("Paper", "Soup", "neither") and question.answer == 0
    with pytest.raises(UserError, match=r"rows.jsonl row 2: column 'best' is '3'; expected one"):
        load_task(write(tmp_path, text, OTHER + OTHER.replace('"1"', '"3"')))


@pytest.mark.parametrize("fields", [False, True], ids=["usual", "own layout"])
def test_a_task_says_from_where_its_numbers_count(tmp_path, fields):
    rows = "".join(
        json.dumps({"question": f"Is {i}?", "choices": ["no", "yes", "both"], "answer": answer})
        + "\n"
        for i, answer in enumerate([1.0, "2", "no", "C"] * 15)
    )
    text = 'files = { test = "rows.jsonl" }\n'
    if fields:
        text += 'fields = { question = "{question}", choices = "choices", answer = "answer" }\n'
    with pytest.raises(UserError, match=r"rows.jsonl: the 30 .*answer_base = 0 in .* or .* = 1 in"):
        load_task(write(tmp_path, text, rows))
    for base in (0, 1):
        loaded = load_task(write(tmp_path, f"answer_base = {base}\n{text}", rows))
        assert [q.answer for q in loaded] == [1 - base, 2 - base, 0, 2] * 15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no questions: give \[files\]"),
        ("title = 3", "'title' must be text, not 3"),
        ("a = ", "mine.toml: not valid TOML"),
        ('liscence = "x"', "no such key: 'liscence'; did you mean 'licence'"),
        ('zzz = "x"', "no such key: 'zzz'; there are: name, title"),
        ('files = { test = "rows.jsn" }', "'files.test' must end in .jsonl, .csv, .parquet"),
        ('files = "rows.jsonl"', "'files' must be a table"),
        ('FILES\nform = "context"', "'form' is 'context'; expected options or contexts"),
        ('FILES\nnative = "letters"', "'native' is 'letters'; expected choice or continuation"),
        ('FILES\nshots_pick = "last"', "'shots_pick' is 'last'"),
        ('FILES\nshots_split = "train"', "'shots_split' is 'train', a split that is not there"),
        ('FILES\neval_split = "dev"', "'eval_split' is 'dev'.*there are: test"),
        ('FILES\nchoice = "{question} {option}"', "'choice' has the field {option}; did you mean"),
        (
            'FILES\nchoice = "{question}"',
            "key 'choice': the prompt template .* lacks the field {options}",
        ),
        ('FILES\ncontinuation = "{context}"', "key 'continuation': .* lacks the field {question}"),
        ("FILES\nanswer_base = 2", "'answer_base' must be 0 or 1, not 2"),
        ("FILES\ncounts = { test = 0 }", "'counts.test' must be a number of questions"),
        ('FILES\ngroups = { a = ["x"], b = ["x"] }', "subject 'x' is in the groups a, b"),
        ('FILES\ngroups = { a = "x" }', "'groups.a' must be a list of subjects"),
        ('hub = { path = "o/n" }', "'fields' is missing"),
        ('hub = { id = "o/n" }', "no such key: 'hub.id'"),
        ("hub = { path = 3 }", "'hub.path' must be text"),
        ('offline = { test = { package = "x", folder = "y" } }', "'offline.test.package' must be"),
        ('FILES\nfields = { question = "{q}" }', "'fields.choices' is missing"),
        ('FILES\nparts = { a = "test" }', "'parts.a' must be a table with of, and rows or without"),
        ('FILES\nparts.a = { of = "test", row = [1] }', "no such key: 'parts.a.row'; did you mean"),
        (
            'FILES\nparts.a = { of = "test" }',
            "'parts.a' must have one of the keys rows and without",
        ),
        ('FILES\nparts.a = { of = "test", rows = [] }', "'parts.a.rows' is empty"),
        ('FILES\nparts.a = { of = "test", rows = [-1] }', "'parts.a.rows' must be a list of row"),
        ('FILES\nparts.a = { of = "test", rows = [2, 2] }', "'parts.a.rows': row 2 appears twice"),
        ("FILES\nparts.a = { rows = [0] }", "'parts.a.of' is missing"),
        ('FILES\nparts.a = { of = "dev", rows = [0] }', "'parts.a.of' is 'dev'; there are: test"),
        ('FILES\nparts.test = { of = "test", rows = [0] }', "has the name of a whole split"),
        ('FILES\nparts.a = { of = "test", without = "b" }', "'parts.a.without' is 'b'; expected"),
        ('FIELDS, answr = "a" }', "no such key: 'fields.answr'; did you mean 'answer'"),
        ("FIELDS, answer = true }", "'fields.answer' has the wrong type"),
        ('FIELDS, answer = "a", clean = "x" }', "'fields.clean' must be one of wikihow"),
        ('FIELDS, answer = "a", context = "c" }', "'fields.context' names no column: write {c}"),
        ('FIELDS, answer = "a", id = 3 }', "'fields.id' has the wrong type"),
        ('FIELDS, answer = "a", labels = [1] }', "'fields.labels' must be text or a list"),
        ('FIELDS, answer = "a", context = "{c|stripp}" }', "filter 'stripp'; did you mean 'strip'"),
        ('FIELDS, answer = "a", parse = { c = "{a b}" } }', "'fields.parse.c' has the slot {a b}"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    text = text.replace("FILES", 'files = { test = "rows.jsonl" }')
    fields = 'files = { test = "rows.jsonl" }\nfields = { question = "{q}", choices = "c"'
    with pytest.raises(UserError, match="mine.toml: ") as error:
        get_task(write(tmp_path, text.replace("FIELDS", fields)))
    assert error.match(message), str(error.value)
