import base64
import dataclasses
import hashlib
import html
import html.parser
import re

import markupsafe
import pytest

from calib_jax.reports import headline
from calib_jax.reports.page import render as report
from calib_jax.reports.states import by_reading
from calib_jax.reports.views import measurement

VOID = {"meta", "img", "br", "hr", "link", "input"}
EVIL = "<script>alert('x')</script>"


class Checker(html.parser.HTMLParser):
    """Collects tags, attributes and text, and fails on wrong nesting."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.ids, self.labels = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
            if tag == "svg" and name == "aria-label":
                self.labels.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


LOG = [
    {"step": 0, "epoch": 0, "kind": "estep", "conf_ece": 0.4, "accuracy": 0.25},
    {"step": 1, "epoch": 0, "kind": "train", "loss": 2.0, "sft": 1.9, "ece": 0.1},
    {"step": 2, "epoch": 0, "kind": "train", "loss": None, "sft": 1.8, "ece": 0.1},
    {"step": 2, "epoch": 0, "kind": "eval", "split": "near", "conf_ece": 0.0625, "auroc": None},
]


def render(summary, scores, log=(), config=None, command=""):
    view = measurement.view(summary, scores, num_bins=10, edges="right", log=log)
    return report.render(view, summary, config, command)


@pytest.fixture(scope="module")
def page(run):
    result, scores = run
    extra = {
        "data": {"train": {"questions": 1234, "removed": 7, "base_rates": [0.25, 0.5]}},
        "training": {"lora": False, "note": None},
        "wall_time_s": {"total": 12.5},
        "peak_memory_gib": 3.25,
        "versions": {"jax": "9.9.9"},
    }
    config = {"learning_rate": 2e-5, "path": "<script>alert(3)</script>"}
    command = "python -m calib_jax.main --config=configs/cft.py && echo 'done'"
    return render(result | extra, scores, LOG, config, command)


def test_parses_and_needs_nothing_from_outside(page):
    checked = Checker(page)
    # Every address is a place in the page itself.
    assert checked.addresses and all(a.startswith("#") for a in checked.addresses)
    assert {a[1:] for a in checked.addresses} <= set(checked.ids)
    assert len(checked.ids) == len(set(checked.ids))
    assert not {"img", "link", "iframe", "object", "base"} & set(checked.tags)
    assert checked.tags.count("script") == 1
    rest = re.sub(r"sha256-[\w/+=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", rest)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(checked.ids)
    assert len(checked.labels) == checked.tags.count("svg") > 20
    assert all(len(label) > 20 for label in checked.labels)


def test_every_colour_of_a_figure_has_a_dark_twin(page):
    figures = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert not re.search(r"#[0-9a-f]{6}\b|rgb\(|white|black", figures)
    names = set(re.findall(r"var\(--f-(\w+)\)", page))
    defined = re.findall(r"--f-(\w+): #", page)
    assert len(names) > 10 and all(defined.count(name) == 2 for name in names)


def test_only_the_page_s_own_script_may_run(page):
    code = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}';" in policy


def test_states_the_result(page, run):
    result, _ = run
    text = Checker(page).text
    states = {name: result[name] for name in ("before", "after")}
    for said in headline.of_states(states, result["change"]):
        assert f"{said}." in text and "than chance explains" in said
    lead = re.search(r"<p><strong>(On 60 questions of near: before, .*?)</strong>", page)[1]
    assert f"{result['after']['near']['mean_confidence']:.0%} sure" in lead and "ECE" not in lead
    low, high = result["change"]["near"]["brier_ci"]
    assert f"[{low:+.3f}, {high:+.3f}]" in text
    for expected in (
        "ln 4 = 1.386",
        "1,234",
        "0.25, 0.5",
        "9.9.9",
        "12.5",
        "3.25",
        "training set (E-step)",
        "0.062",
        "2e-05",
        "echo 'done'",
    ):
        assert expected in text, expected


def section(page, title):
    """The page from the section's title to the next section's."""
    start = re.search(rf'<h2 id="s\d+">{title}', page).end()
    return page[start : page.find("<h2", start)]


def test_escapes_everything(run):
    row = run[0]["before"]["near"]
    scores = run[1]["before"]["near"]
    n = len(scores)
    scores = dataclasses.replace(
        scores,
        ids=(EVIL,) * n,
        subjects=(EVIL,) * n,
        questions=(EVIL,) * n,
        choices=((EVIL,) * 4,) * n,
    )
    row = row | {"groups": [{"group": EVIL, "n": 3, "conf_ece": 0.5}]}
    page = render(
        {
            "model": EVIL,
            "method": EVIL,
            "states": [EVIL],
            EVIL: {EVIL: row},
            "data": {EVIL: EVIL},
            "versions": {EVIL: [EVIL]},
            "posthoc": {EVIL: {EVIL: row}},
        },
        {EVIL: {EVIL: scores}},
        [{"step": 1, "epoch": 0, "kind": "eval", "split": EVIL, "conf_ece": 0.1}],
        {EVIL: EVIL},
        EVIL,
    )
    assert page.count("<script") == Checker(page).tags.count("script") == 1
    assert "alert" not in section(page, "Subjects").replace(str(markupsafe.escape(EVIL)), "")
    assert EVIL in Checker(page).text


def test_one_measured_model_without_training(run):
    page = render({"Tiny": run[0]["before"]}, {"Tiny": run[1]["before"]})
    checked = Checker(page)
    assert "Course of the training" not in checked.text and "change" not in checked.text.lower()


def test_a_name_that_a_template_misspells_is_an_error():
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        report._environment().from_string("{{ misspelt }}").render()


def test_several_methods_are_one_table_with_the_details_folded(run):
    states = {"choice": run[0]["before"], "continuation_sum": run[0]["after"]}
    scores = {"choice": run[1]["before"], "continuation_sum": run[1]["after"]}
    page = render(by_reading(states), scores)
    Checker(page)
    part = section(page, "Results")
    table = part[: part.index("<details")]
    assert table.count('<tr><th scope="row">') == 4 and "Gold letters" not in table
    for rows in states.values():
        assert f"{rows['far']['sce_ovr']:.3f}" in table
    assert "Gold letters" in part and "→" not in page[: page.index("<h2")]
    assert 'class="cards"' not in page
