"""README.md and docs/: links that resolve, commands that something has run, Python that prints it.

``docs/commands.md`` lists every command, and says what has run it. Commands of the package are also
parsed here: config and preset exist, and every field that is set is one that the job obeys.
"""

import ast
import contextlib
import datetime
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from calib_jax import command_line, metrics, posthoc
from calib_jax.config import base
from calib_jax.models.families import FAMILIES
from calib_jax.questions.tasks import get_task, load_task, task_names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LIST = ROOT / "docs" / "commands.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A row of the list of commands: | `command` | what has run it | when, and where |
ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| (.*?) \|$", re.MULTILINE)
PYTHON_ROW = re.compile(r"^\| (\w+\.md), `([^`]+)` \| (.+?) \|$", re.MULTILINE)
NAMES = {page: str(page.relative_to(ROOT)) for page in PAGES}


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text()) if language in languages]


def commands(page: Path) -> list[str]:
    """The command lines of a page, continued lines joined, without comments."""
    lines = "\n".join(blocks(page, "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    lines = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in lines]
    return [line for line in lines if line]


def listed() -> dict[str, tuple[str, str]]:
    """command -> (what has run it, when and where)."""
    return {command: (by, where) for command, by, where in ROW.findall(LIST.read_text())}


ALL = {command: page for page in PAGES for command in commands(page)}
OURS = [command for command in ALL if "--config=" in command]


def slug(heading: str) -> str:
    """The anchor that GitHub and mkdocs make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_the_readme_is_one_page():
    text = README.read_text()
    assert len(text.encode()) <= 8192
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert tables and all(table.count("\n") - 2 <= 6 for table in tables)


def test_the_pages_count_families_and_tasks():
    """Whoever adds one finds here what else says how many there are."""
    words = ("eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
             "nineteen twenty").split()  # fmt: skip  # one list
    harness = [name for name in task_names() if get_task(name).harness]
    claims = (
        (README, "{} model families", len(FAMILIES)),
        (README, "on {} tasks", len(task_names())),
        (ROOT / "docs" / "index.md", "on {} tasks", len(task_names())),
        (ROOT / "docs" / "index.md", "{} of them with lm-evaluation-harness's", len(harness)),
    )
    for page, claim, count in claims:
        claim = claim.format(words[count - 8])
        assert claim in " ".join(page.read_text().split()), f"{page.name} should say: {claim}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_links_resolve(page):
    prose = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), f"{page.name}: {target}"
        if page.parent == ROOT / "docs":  # the site holds nothing else
            assert there.resolve().is_relative_to(ROOT / "docs"), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", there.read_text()), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = re.findall(r": ([\w-]+\.md)$", navigation, re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in ROOT.glob("docs/*.md"))


def test_files_that_are_named_exist():
    for page in PAGES:
        paths = r"`((?:calib_jax|configs|benchmarks|tests|tpu_scripts)/[\w./-]*)(?::\w*)?`"
        for path in re.findall(paths, FENCE.sub("", page.read_text())):
            assert "NAME" in path or (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_command_is_listed_and_nothing_else():
    assert set(ALL) == set(listed())


@pytest.mark.parametrize("command", ALL)
def test_something_has_run_it(command):
    """A test that exists, a hand on a day, or a plain statement that nothing has, and why."""
    by, where = listed()[command]
    if by == "by hand":
        day, _, machine = where.partition(", ")
        assert datetime.date.fromisoformat(day) <= datetime.date.today()
        assert "core" in machine or "GPU" in machine or "TPU" in machine
    elif by == "not run as written":
        assert len(where) > 20
    else:
        assert by == "`.ci/run`" or all(
            (ROOT / path).is_file() for path in re.findall("`(tests/[^`]+)`", by)
        )
        assert "`" in by


@pytest.mark.parametrize("command", OURS)
def test_config_preset_and_fields_exist_and_are_obeyed(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    added = re.findall(
        r"^\+\+\+ b/calib_jax/jobs/(\w+)\.py", (ROOT / "docs" / "how-to-add.md").read_text(), re.M
    )
    if any(f"--config.job={job}" in words for job in added):
        pytest.skip("the job is what the page shows how to add")
    start = next(i for i, word in enumerate(words) if word.startswith("--config="))
    config, workdir = command_line.parse(["calib_jax", *words[start:]])
    assert config is not None and not workdir.is_absolute()


def test_help_is_printed(capsys):
    assert command_line.parse(["calib_jax", "--help"])[0] is None
    assert "--config.FIELD" in capsys.readouterr().out


def test_fields_in_the_text_exist():
    for page in PAGES:
        for path in re.findall(
            r"(?:--|`)config\.(?!py\b|json\b)([a-z_0-9]+(?:\.[a-z_0-9]+)*)", page.read_text()
        ):
            value = base()
            for key in path.split("."):
                assert isinstance(value, ml_collections.ConfigDict) and key in value, (
                    f"{page.name}: config.{path}"
                )
                value = value[key]


def test_presets_in_the_text_exist():
    for page in PAGES:
        named = re.findall(r"(configs/\w+\.py):(\w+)`", page.read_text())
        for config, preset in named:
            module = importlib.import_module(config.removesuffix(".py").replace("/", "."))
            assert module.get_config(preset).job  # raises where there is none


def test_flags_of_benchmarks_exist():
    for command in ALL:
        if command.startswith("python benchmarks/"):
            _, script, *flags = shlex.split(command)
            source = (ROOT / script).read_text()
            for flag in flags:
                assert not flag.startswith("--") or f'"{flag}"' in source, command


@pytest.mark.parametrize("command", [line for line in ALL if line.startswith("tpu_scripts/")])
def test_tpu_scripts_take_these_flags(command):
    settings = shlex.split(next(line for line in ALL if line.startswith("export TPU_")))[1:]
    script, *flags = shlex.split(command)
    done = subprocess.run(
        [ROOT / script, "--dry-run", *flags],
        cwd=ROOT,
        env={**os.environ, **dict(item.split("=", 1) for item in settings)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "gcloud" in done.stdout


def test_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for command in ALL:
        for names in re.findall(r'pip install "?\.\[([\w,-]+)\]', command):
            assert set(names.split(",")) <= set(extras["optional-dependencies"])


# --- Python ---------------------------------------------------------------------------------------
PYTHON = [(page, body) for page in PAGES for body in blocks(page, "python")]


def elsewhere(page: Path, body: str) -> bool:
    """Whether the list says where a block is run, if not here."""
    named = {(name, line) for name, line, _ in PYTHON_ROW.findall(LIST.read_text())}
    return (page.name, body.splitlines()[0]) in named


def test_python_that_is_run_elsewhere_exists():
    text = LIST.read_text()
    found = {(page.name, body.splitlines()[0]) for page, body in PYTHON}
    assert {(name, line) for name, line, _ in PYTHON_ROW.findall(text)} <= found


@pytest.mark.parametrize(("page", "body"), PYTHON, ids=lambda x: getattr(x, "name", ""))
def test_python_prints_what_its_comments_say(page, body, tmp_path, monkeypatch):
    """To the digits that stand there: ``print(x)  # 0.268`` or ``# (0.241, 0.296)``."""
    if elsewhere(page, body):
        pytest.skip("docs/commands.md says what runs it")
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(body, str(page), "exec"), {})
    said = re.findall(r"^print\(.*\)(?:  # (.*))?$", body, re.MULTILINE)
    printed = out.getvalue().splitlines()
    assert len(printed) == len(said)
    for line, comment in zip(printed, said, strict=True):
        expected = re.findall(r"-?\d+\.\d+", comment.partition(":")[0])
        got = re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", line)
        assert len(got) == len(expected) or not expected
        for number, digits in zip(got, expected, strict=False):
            places = len(digits.partition(".")[2])
            np.testing.assert_allclose(float(number), float(digits), atol=0.51 * 10**-places)


def test_the_page_of_a_task_is_one_that_is_read(tmp_path):
    (body,) = blocks(ROOT / "docs" / "measuring.md", "toml")
    (tmp_path / "exam.toml").write_text(body)
    row = '{"stem": "1 + 1?", "passage": "Add.", "right": "2", "wrong1": "1", "wrong2": "3"}\n'
    (tmp_path / "exam.jsonl").write_text(row)
    (tmp_path / "worked_examples.jsonl").write_text(row)
    (question,) = load_task(tmp_path / "exam.toml")
    assert question.choices == ("2", "1", "3") and question.answer == 0
    assert question.context == "Add." and question.question == "1 + 1?"


@pytest.mark.parametrize("number", range(len(blocks(ROOT / "docs" / "how-to-add.md", "diff"))))
def test_examples_of_changes_fit_the_code(number):
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    diff = blocks(ROOT / "docs" / "how-to-add.md", "diff")[number]
    done = subprocess.run(
        ["git", "apply", "--check", "--numstat", "-"],
        cwd=ROOT, input=diff, capture_output=True, text=True,
    )  # fmt: skip  # the command apart from how it is run
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():  # there is room for it, see tests/test_habits.py
        added, removed, name = line.split("\t")
        here = (ROOT / name).read_text().splitlines() if (ROOT / name).exists() else []
        assert len(here) + int(added) - int(removed) <= 400, name


# --- The reference --------------------------------------------------------------------------------
def hook():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "package"), [("metrics", metrics), ("calibrators", posthoc)])
def test_every_exported_name_has_a_place_in_the_reference(page, package):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    found = hook().on_page_markdown(text)
    shown = set(re.findall(r"^        - (\w+)$", found, re.MULTILINE))
    classes_and_functions = {
        name
        for name in package.__all__
        if callable(getattr(package, name)) or isinstance(getattr(package, name), int | float)
    }
    assert classes_and_functions <= shown


def test_docstrings_of_what_is_exported_have_one():
    for package in (metrics, posthoc):
        folder = Path(package.__file__).parent
        for module, names in hook().exported(package.__name__).items():
            tree = ast.parse((folder / f"{module.rpartition('.')[2]}.py").read_text())
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
                    assert ast.get_docstring(node), f"{module}.{node.name}"
