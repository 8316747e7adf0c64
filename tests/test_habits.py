"""What every module keeps to: its size, its name, what it imports, and reasons beside exceptions.

A list of exceptions gives their reasons, and must equal what is found, so that it can only shrink.
"""

import ast
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "calib_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted(
    p
    for d in ("calib_jax", "configs", "tests", "benchmarks")
    for p in ROOT.joinpath(d).rglob("*.py")
)

# --- Size and names -------------------------------------------------------------------------------

GERUNDS = {
    "runs/preference_setting.py": "a setting is what the config of a run comes to",
    "runs/run_setting.py": "a setting is what the config of a run comes to",
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_no_module_is_longer_than_400_lines():
    found = {name_of(path) for path in MODULES if len(path.read_text().splitlines()) > 400}
    assert not found


def test_no_module_or_package_is_named_for_a_gerund():
    assert {name_of(path) for path in MODULES if path.stem.endswith("ing")} == set(GERUNDS)
    # The package training is named for the field's term.
    folders = {path.parent.name for path in MODULES}
    assert {name for name in folders if name.endswith("ing")} == {"training"}


# --- Imports --------------------------------------------------------------------------------------

# From below to above: what stands in a line imports of the package only from lines above it.
LAYERS = (
    ("errors",),
    ("grammar", "characters", "provenance", "atomic"),
    ("config",),
    ("models", "questions"),
    ("metrics", "parallel"),
    ("confidence", "generation", "api"),
    ("training", "posthoc"),
    ("reports", "plan", "presets"),
    ("runs",),
    ("jobs",),
    ("command_line", "harness"),
    ("main",),
)


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it, without "calib_jax."."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *parts = name.split(".")
            if first == "calib_jax" and parts:
                place = PACKAGE.joinpath(*parts)
                if len(parts) > 1 and not (place.is_dir() or place.with_suffix(".py").exists()):
                    parts.pop()  # a name within a module
                yield ".".join(parts)


def test_imports_run_one_way():
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    parts = {
        path.stem if path.parent == PACKAGE else path.relative_to(PACKAGE).parts[0]
        for path in MODULES
    }
    assert parts - {"__init__"} == level.keys()
    upward = set()
    for path in MODULES:
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        home = name.partition(".")[0]
        if home == "__init__":  # looks its modules up by name, when they are first used
            continue
        for other in imported(path):
            there = other.partition(".")[0]
            if there in level and there != home and level[there] >= level[home]:
                upward.add((name, other))
    assert not upward


# --- Exceptions from the tools --------------------------------------------------------------------


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


# What marks an exception, and the exception with its reason.
REASONED = {
    r"# fmt: (skip|off)": r"# fmt: (skip|off)  # \w.*",
    r"# type: ignore": r"# type: ignore\[[a-z-]+\]  # \w.*",
    r"# noqa: B": r"# noqa: B\d+  \(\w.*\)",
}


def test_an_exception_from_a_tool_has_its_reason_beside_it():
    bare = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in SOURCES
        for line, text in comments(path)
        for marked, reasoned in REASONED.items()
        if re.match(marked, text) and not re.fullmatch(reasoned, text)
    ]
    assert not bare


def test_every_file_travels_with_the_package():
    """A folder is listed as a package, also one of data; what is no module is package data."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    homes = {path: ".".join(path.parent.relative_to(ROOT).parts) for path in files}
    assert {*homes.values(), "calib_jax.configs"} == set(tool["packages"])
    left_out = [
        str(path.relative_to(ROOT))
        for path, home in homes.items()
        if path.suffix != ".py" and not any(map(path.match, tool["package-data"].get(home, ())))
    ]
    assert not left_out


def test_the_types_travel_with_the_package():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert (PACKAGE / "py.typed").is_file()
    assert "py.typed" in tool["setuptools"]["package-data"]["calib_jax"]
    assert not any("ignore_errors" in part for part in (tool["mypy"], *tool["mypy"]["overrides"]))
    assert "mypy" in (ROOT / "Makefile").read_text()
