"""The frame of a page: head, title, contents, sections, in one file that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports.page import render
from calib_jax.reports.page.layout import escape, facts
from calib_jax.reports.writers import plain


def document(
    title: str,
    kicker: str,
    said: Sequence[str],
    sections: Sequence[tuple[str, str]],
    cards: str = "",
) -> str:
    """An HTML document whose one script sorts tables; its policy forbids every other request.

    Args:
      title: what the page is of, as text.
      kicker: a grey line beneath it, as text.
      said: the result in sentences without their full stops, as text.
      sections: (title, body as HTML) in order.
      cards: HTML between those and the contents.
    """
    CSS, SCRIPT, POLICY = render._assets()  # until every page is a view
    title = escape(title)
    links = "".join(f'<li><a href="#s{i}">{name}</a></li>' for i, (name, _) in enumerate(sections))
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>\n{CSS}\n</style>\n</head>\n<body>\n<main>",
        f'<h1>{title}</h1>\n<p class="kicker">{escape(kicker)}</p>',
        *(f"<p>{escape(text)}.</p>" for text in said),
        cards,
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>',
        *(
            f'<section>\n<h2 id="s{i}">{name}</h2>\n{body}\n</section>'
            for i, (name, body) in enumerate(sections)
        ),
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def again(summary: Mapping[str, Any], config: Mapping[str, Any] | None, command: str | None) -> str:
    """The section that says how to get this again: command, costs, versions and configuration."""
    parts = [f"<pre>{escape(command)}</pre>"] if command else []
    keys = {
        "wall_time_s": "wall time in s",
        "peak_memory_gib": "peak memory in GiB",
        "versions": "versions",
    }
    parts.append(facts({name: summary[key] for key, name in keys.items() if summary.get(key)}))
    if config is not None:
        text = escape(json.dumps(plain(config), indent=2, default=str))
        parts.append(f"<details><summary>Configuration</summary><pre>{text}</pre></details>")
    return "\n".join(parts)
