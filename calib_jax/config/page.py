"""The table of fields as text for ``--help`` and as Markdown: docs/config.md.

python -m calib_jax.config.page > docs/config.md
"""

import textwrap
from collections.abc import Collection, Iterator
from typing import Any

from calib_jax.config.check import FIELDS
from calib_jax.config.field import JOBS, Field, Need
from calib_jax.grammar import check_known

TOP = "run"  # what the fields without a section are called
_HEAD = """\
# The config

This page is generated from the table in `calib_jax/config/` by
`python -m calib_jax.config.page > docs/config.md`: change the table, not the page.

Every field can be set in a config file (`configs/*.py`) or on the command line, such as
`--config.train.learning_rate=1e-5`. Its type is that of its default. All errors of a config are
told at once, before anything is loaded. A field that the job does not obey, or that has no effect
beside the others, is refused where it is set.
"""


def sections() -> dict[str, list[Field]]:
    """Section -> its fields, in the table's order."""
    found: dict[str, list[Field]] = {}
    for path, field in FIELDS.items():
        found.setdefault(path.rpartition(".")[0] or TOP, []).append(field)
    return found


def as_text(section: str = "") -> str:
    """What ``--help`` prints of the fields: their names; or all of a section, or of "all".

    Raises:
      UserError: no section has that name.
    """
    every = sections()
    if not section:
        return "".join(
            textwrap.fill(
                f"{name}: {', '.join(field.path.rpartition('.')[2] for field in fields)}",
                width=98,
                initial_indent="  ",
                subsequent_indent="      ",
            )
            + "\n"
            for name, fields in every.items()
        )
    if section != "all":
        check_known(section, "--help", every)
        every = {section: every[section]}
    return "".join(_paragraph(field) for fields in every.values() for field in fields)


def as_markdown() -> str:
    """docs/config.md."""
    return "\n".join([_HEAD, *(line for name in sections() for line in _table(name))])


def _paragraph(field: Field) -> str:
    head = f"--config.{field.path}={_shown(field.default)}  ({_must_be(field)})\n"
    meaning = textwrap.fill(
        field.meaning, width=98, initial_indent="    ", subsequent_indent="    "
    )
    return f"{head}{meaning}\n"


def _table(name: str) -> Iterator[str]:
    yield f"## {name}\n"
    yield "| field | default | must be | meaning | jobs |"
    yield "|---|---|---|---|---|"
    for field in sections()[name]:
        cells = (
            f"`{field.path}`",
            f"`{_shown(field.default)}`",
            _must_be(field),
            " ".join((field.meaning, *map(_need, field.needs))),
            _jobs(field.jobs),
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _must_be(field: Field) -> str:
    if field.choices:
        return f"one of {field.limits}"
    return f"{field.kind}, {field.limits}" if field.limits else field.kind


def _need(need: Need) -> str:
    return f"Has an effect only {need.text} ({_jobs(need.jobs)})."


def _jobs(jobs: Collection[str]) -> str:
    """Jobs, in few words."""
    others = [job for job in JOBS if job not in jobs]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) <= 3 else ", ".join(jobs)


def _shown(value: Any) -> str:
    return repr(value) if not isinstance(value, str) else value or "''"


if __name__ == "__main__":
    print(as_markdown(), end="")
