"""A hook of mkdocs: the pages of metrics and calibrators, from the package's own docstrings.

A line ``<!-- reference: calib_jax.metrics -->`` becomes a section for each module that the package
exports from, titled by the first words of the module's docstring, with the exported names in it.
The sources are parsed and not imported: neither JAX nor a model's libraries are needed.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"^<!-- reference: ([\w.]+) -->$", re.MULTILINE)


def exported(package: str) -> dict[str, list[str]]:
    """module -> the names that the package's ``__init__`` imports from it and lists in __all__."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text("utf-8"))
    listed = next(
        set(ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    modules: dict[str, list[str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if alias.name not in listed:
                continue
            if node.module == package:  # a module that is exported itself
                modules[f"{package}.{alias.name}"] = []
            else:
                modules.setdefault(node.module, []).append(alias.name)
    return modules


def _section(module: str, names: list[str]) -> str:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    title = re.split(r"[:;]", ast.get_docstring(tree).splitlines()[0])[0].rstrip(".")
    lines = [f"## {title}", "", f"::: {module}", "    options:", "      members:"]
    if not names:
        names = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
    return "\n".join([*lines, *(f"        - {name}" for name in names)])


def on_page_markdown(markdown: str, **_) -> str:
    """Called by mkdocs with the text of every page."""
    return MARK.sub(
        lambda match: "\n\n".join(_section(*item) for item in exported(match[1]).items()), markdown
    )
