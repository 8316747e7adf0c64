import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

import calib_jax
from calib_jax.errors import UserNotice
from calib_jax.reports.figures import canvas, style

# What a matplotlibrc of a reader may hold, and none of it ours.
STRANGE = {
    "text.usetex": True,
    "font.family": ["NoSuchFont"],
    "font.size": 31,
    "figure.dpi": 20,
    "figure.autolayout": True,
    "savefig.format": "pdf",
    "savefig.bbox": "tight",
    "axes.grid": True,
    "axes.facecolor": "black",
    "lines.linewidth": 9,
    "xtick.direction": "in",
    "svg.fonttype": "path",
    "svg.hashsalt": "theirs",
}


@canvas.drawn
def picture(text="five"):
    figure = canvas.new_figure(3, 2)
    ax = style.place(figure, 0.5, 0.5, 2, 1)
    style.plain_axes(ax)
    ax.plot([1, 2], label=text)
    ax.legend(ax.lines, [text])
    ax.set_title(text)
    style.add_title(figure, text, 0.2)
    return figure


def everything(figure):
    return canvas.png(figure), canvas.svg(figure), style.inline_svg(figure, "name", "label")


def test_a_matplotlibrc_changes_no_picture_and_is_not_changed():
    plain = everything(picture())
    with matplotlib.rc_context(STRANGE):
        theirs = dict(matplotlib.rcParams.copy())
        assert everything(picture()) == plain
        assert dict(matplotlib.rcParams.copy()) == theirs


def test_text_that_was_written_elsewhere_is_found():
    figure = picture()
    figure.text(0.1, 0.1, "$x$")
    with pytest.raises(RuntimeError, match="@drawn"):
        canvas.png(figure)


def test_a_figure_is_drawn_under_our_settings_or_not_at_all():
    with pytest.raises(RuntimeError, match="@drawn"):
        canvas.new_figure(1, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"between $5 and \frac 10$", r"between $5 and \frac 10$"),
        (r"$\frac{", r"$\frac{"),
        ("_x^2 {} % & < #", "_x^2 {} % & < #"),
        ("caf\udce9", r"caf\udce9"),
        ("\ud800", r"\ud800"),
        ("bell \x07, nothing \x00", r"bell \x07, nothing \x00"),
    ],
)
def test_text_is_shown_as_it_stands(text, shown):
    _, _, inline = everything(picture(text))
    root = ElementTree.fromstring(inline)
    said = [element.text for element in root.iter("text")]
    assert said.count(shown) == 3  # title, heading, legend


def test_characters_without_a_glyph_are_told_of_once():
    canvas._tell_of_boxes.cache_clear()
    missing = "\U0001f9ea\ue123"  # of Unicode's private use: no font has it
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            everything(picture(missing))
    assert [w.category for w in caught] == [UserNotice]


def test_other_warnings_pass():
    @canvas.drawn
    def draw():
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
        return canvas.new_figure(1, 1)

    with pytest.warns(RuntimeWarning, match="something else"):
        draw()


@pytest.mark.parametrize("where", ["backend", "matplotlibrc", "cache"])
def test_matplotlib_comes_in_whatever_the_environment_says(where, tmp_path):
    env = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    if where == "backend":
        env["MPLBACKEND"] = "no such backend"
    elif where == "matplotlibrc":
        (tmp_path / "matplotlibrc").write_bytes(b"backend: caf\xe9\n")
    else:
        env["MPLCONFIGDIR"] = "/dev/null/nowhere"
    code = (
        "import os; from calib_jax.reports.stages import figures; "
        "from calib_jax.reports.figures import canvas; print(os.environ['MPLBACKEND']); "
        "canvas.png(canvas.drawn(canvas.new_figure)(1, 1))"
    )
    path = os.pathsep.join([str(Path(calib_jax.__file__).parents[1]), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env | {"PYTHONPATH": path},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == env["MPLBACKEND"]  # for whoever draws besides


def test_matplotlib_is_imported_in_one_place():
    package = Path(calib_jax.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "matplotlib" for name in names):
                found.add(path.relative_to(package).as_posix())
    assert found == {"reports/figures/canvas.py"}
