"""report.html: one self-contained file, laid out from a view by the templates in ``templates``."""

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from calib_jax.reports.figures.style import inline_svg, theme_css
from calib_jax.reports.views import Partial, Picture, View
from calib_jax.reports.writers import plain

_COSTS = {
    "wall_time_s": "wall time in s",
    "peak_memory_gib": "peak memory in GiB",
    "versions": "versions",
}


@functools.cache
def _environment() -> jinja2.Environment:
    """Everything is escaped; a name that a template misspells is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("calib_jax.reports.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "kind_of": lambda block: type(block).__name__,
        "inline_svg": _inline_svg,
        "partial": _partial,
    }
    return environment


def _inline_svg(picture: Picture) -> Markup:
    figure = picture.figure() if callable(picture.figure) else picture.figure
    return Markup(inline_svg(figure, picture.name, picture.label))


def _partial(block: Partial) -> Markup:
    return Markup(_environment().get_template(f"{block.name}.html").render(**block.values))


@functools.cache
def _assets() -> tuple[Markup, Markup, str]:
    """The style sheet, the script, and the policy, which lets this script run and no other."""
    sheet = (
        _environment()
        .get_template("style.css")
        .render(figure_colours=theme_css(dark=False), figure_colours_dark=theme_css(dark=True))
    )
    loader = _environment().loader
    assert loader is not None
    script = loader.get_source(_environment(), "script.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
        f"'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return Markup(sheet), Markup(script), policy


def render(
    view: View,
    summary: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    command: str = "",
) -> str:
    """The page as one HTML document that takes nothing from outside.

    Its one script sorts tables; all else works without it. A content security policy in the page
    forbids every other script and every request.

    Args:
      view: what is shown.
      summary: with the run's costs and versions.
      config: the resolved configuration.
      command: the shell command that runs this again.
    """
    css, script, policy = _assets()
    costs = {name: (summary or {}).get(key) for key, name in _COSTS.items()}
    return (
        _environment()
        .get_template("page.html")
        .render(
            view=view,
            sections=list(view.sections),
            css=css,
            script=script,
            policy=policy,
            costs={name: value for name, value in costs.items() if value},
            command=command,
            config=json.dumps(plain(config), indent=2, default=str) if config else "",
        )
    )
