import io
import re

import numpy as np
import pytest
import rich.console

from calib_jax.reports import progress
from calib_jax.reports.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def plain_console():
    return rich.console.Console(file=io.StringIO(), force_terminal=False)


def test_plain_lines_now_and_then_without_a_terminal(clock):
    console = plain_console()
    with Progress(100, "E-step", console=console) as bar:
        for _ in range(10):
            clock[0] += 4
            bar.update(10, loss=1.5, ece=0.25)
    lines = console.file.getvalue().splitlines()
    # After 12, 24 and 36 s, and at the end.
    assert lines == [
        "E-step: 30/100 questions  loss 1.500  ece 0.250  2.5 questions/s",
        "E-step: 60/100 questions  loss 1.500  ece 0.250  2.5 questions/s  0:16 left",
        "E-step: 90/100 questions  loss 1.500  ece 0.250  2.5 questions/s  0:04 left",
        "E-step: 100/100 questions  loss 1.500  ece 0.250  2.5 questions/s  0:40 taken",
    ]


def batches_of(kind):
    """Seconds of every batch of 8 questions."""
    rng = np.random.default_rng(0)
    if kind == "compiled first":
        return [30.0, *rng.uniform(0.4, 0.6, 80)]
    if kind == "answers later":  # a device that is handed its first batches without waiting
        return [0.01, 0.01, 25.0, *rng.uniform(0.9, 1.1, 60)]
    lengths = np.sort(rng.lognormal(0, 0.6, 120))[::-1]
    buckets = np.ceil(lengths)  # each is compiled when it is first met
    first = np.r_[True, buckets[1:] != buckets[:-1]]
    return list(buckets + 20.0 * first)


@pytest.mark.parametrize("kind", ["compiled first", "answers later", "longest first"])
def test_a_time_left_is_worth_something_or_not_said(clock, kind):
    batches = batches_of(kind)
    console = plain_console()
    told, naive = [], []
    with Progress(8 * len(batches), "E-step", console=console, log_every=0.0) as bar:
        for i, seconds in enumerate(batches, 1):
            clock[0] += seconds
            bar.update(8)
            true = sum(batches[i:])
            if true > 10:
                naive.append(sum(batches[:i]) / i * (len(batches) - i) / true)
                left = re.search(r"([\d:]+) left", console.file.getvalue().splitlines()[-1])
                if left:
                    parts = [int(part) for part in left[1].split(":")]
                    told.append(sum(p * 60**k for k, p in enumerate(reversed(parts))) / true)
    assert len(told) > len(naive) / 3
    assert 1 / 3 < min(told) and max(told) < 3
    assert max(naive) > 5 or min(naive) < 0.2  # what was said before


def test_units_done_before_do_not_count_for_the_rate(clock):
    console = plain_console()
    with Progress(100, "M-step", unit="steps", initial=80, console=console) as bar:
        clock[0] += 10
        bar.update(20)
    assert console.file.getvalue() == "M-step: 100/100 steps  2 steps/s  0:10 taken\n"


def test_a_failed_loop_prints_no_closing_line(clock):
    console = plain_console()
    with pytest.raises(RuntimeError), Progress(10, "E-step", console=console) as bar:
        bar.update(1)
        raise RuntimeError
    assert console.file.getvalue() == ""


def test_disabled_says_nothing_and_still_counts():
    console = plain_console()
    with Progress(10, "E-step", enabled=False, console=console) as bar:
        bar.update(10, loss=1.0)
    assert console.file.getvalue() == "" and bar.completed == 10


def test_only_process_0_speaks(monkeypatch):
    monkeypatch.setattr(progress.jax, "process_index", lambda: 1)
    assert not Progress(1, "E-step", console=plain_console()).enabled
    monkeypatch.setattr(progress.jax, "process_index", lambda: 0)
    assert Progress(1, "E-step", console=plain_console()).enabled


@pytest.mark.parametrize("width", [80, 110])
def test_bar_on_a_terminal_fills_one_line(width):
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=width)
    with Progress(20, "M-step [1/3]", console=console) as bar:
        for _ in range(2):
            bar.update(10, loss=1.25, sft=1.2, ece=1e-5)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    last = [line for line in re.split(r"[\r\n]+", text) if line.strip()][-1]
    terms = ("loss 1.250",) if width == 80 else ("loss 1.250", "sft 1.200", "ece 1.00e-05")
    for expected in ("M-step [1/3]", "20/20", *terms, "questions/s", "taken"):
        assert expected in last
    assert len(last) <= width


def test_a_resumed_bar_shows_rate_of_this_session_only():
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=110)
    with Progress(20, "E-step", initial=20, console=console):
        pass
    assert "20/20" in console.file.getvalue()


@pytest.mark.parametrize("seconds, text", [(7.4, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert progress._duration(seconds) == text
