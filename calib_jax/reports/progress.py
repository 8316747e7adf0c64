"""A progress bar on a terminal, and an occasional plain line where there is none."""

import sys
import time
from typing import Any

import jax
import rich.console
import rich.progress
import rich.table
import rich.text


def _duration(seconds: float) -> str:
    """`seconds` as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return "-"
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _terms(terms: dict[str, float]) -> str:
    """{"loss": 1.5} as "loss 1.500"; very small or large numbers in scientific notation."""
    texts = []
    for name, value in terms.items():
        value = float(value)
        small_or_large = value != 0 and not 1e-3 <= abs(value) < 1e4
        texts.append(f"{name} {value:.2e}" if small_or_large else f"{name} {value:.3f}")
    return "  ".join(texts)


class _Pace:
    """How long a unit takes, once that is worth saying.

    The first batches compile, every new length does so again, the longest come first, and a device
    that is handed its work answers later. What tells is two stretches of the latest half of the
    updates that agree.
    """

    LEAST = 6  # updates
    AGREEMENT = 1.5

    def __init__(self, total: int, done: int):
        self._total = total
        self._marks = [(time.monotonic(), done)]

    def update(self, done: int) -> None:
        """Notes that so many units are done."""
        self._marks.append((time.monotonic(), done))

    def left(self) -> float | None:
        """Seconds to the end; None as long as nobody knows."""
        marks = self._marks
        count = len(marks) - 1
        if count < self.LEAST:
            return None
        first = count // 2
        between = first + (count - first) // 2
        paces = []
        for start, end in ((first, between), (between, count)):
            units = marks[end][1] - marks[start][1]
            if not units:
                return None
            paces.append((marks[end][0] - marks[start][0]) / units)
        if not 0 < max(paces) <= self.AGREEMENT * min(paces):
            return None
        at, done = marks[-1]
        pace = (at - marks[first][0]) / (done - marks[first][1])
        return max(0.0, pace * (self._total - done) - (time.monotonic() - at))


class _Speed(rich.progress.ProgressColumn):
    """Units per second and the time left, once known; the time taken once the task is done."""

    def __init__(self, unit: str, pace: _Pace, table_column: rich.table.Column):
        super().__init__(table_column)
        self.unit, self.pace = unit, pace

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        if task.finished:
            taken = task.finished_time or 0.0
            done = task.completed - task.fields["initial"]
            rate = _rate(done / taken if taken else None)
            return rich.text.Text(f"{rate} {self.unit}/s  {_duration(taken)} taken", "cyan")
        left = self.pace.left()
        text = f"{_rate(task.speed)} {self.unit}/s"
        return rich.text.Text(text if left is None else f"{text}  {_duration(left)} left", "cyan")


class Progress:
    """Shows how far a loop over questions or steps has come. Use as a context manager.

    On a terminal: a bar with description, count, loss terms, rate and, once it is known, the time
    left, which stays on the screen when done. Elsewhere (a file, a pipe): a plain line about every
    `log_every` seconds and one at the end. On other processes than 0, or disabled: nothing.

        with Progress(len(questions), "E-step") as bar:
            for batch in batches:
                bar.update(len(batch), loss=1.23, sft=1.1, ece=0.13)

    Args:
      total: units in all.
      description: what is going on, e.g. "M-step 2/3".
      unit: plural name of what is counted.
      initial: units done before (a resumed run); they do not count for the rate.
      enabled: False switches off; None: on process 0 of a multi-host run only.
      log_every: seconds between plain lines.
      console: a rich console; None: standard output.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str = "questions",
        initial: int = 0,
        enabled: bool | None = None,
        log_every: float = 10.0,
        console: rich.console.Console | None = None,
    ):
        self.total = int(total)
        self.description = description
        self.unit = unit
        self.initial = int(initial)
        self.completed = self.initial
        self.terms: dict[str, Any] = {}
        self.enabled = jax.process_index() == 0 if enabled is None else enabled
        self.log_every = log_every
        self._console = console or rich.console.Console(file=sys.stdout)
        self._bar: rich.progress.Progress | None = None
        self._task: Any = None  # of ``_bar``
        self._start = self._last_time = time.monotonic()
        self._last_count = self.initial
        self._pace = _Pace(self.total, self.initial)

    def __enter__(self) -> "Progress":
        self._start = self._last_time = time.monotonic()
        self._pace = _Pace(self.total, self.initial)
        if self.enabled and self._console.is_terminal:

            def one_line(**options) -> rich.table.Column:
                return rich.table.Column(no_wrap=True, **options)

            def text(field: str, style: str = "none") -> rich.progress.TextColumn:
                return rich.progress.TextColumn(
                    f"{{task.{field}}}", style=style, markup=False, table_column=one_line()
                )

            self._bar = rich.progress.Progress(
                text("description", "bold"),
                rich.progress.BarColumn(None, table_column=one_line(ratio=1, min_width=8)),
                rich.progress.MofNCompleteColumn(table_column=one_line()),
                text("fields[terms]"),
                _Speed(self.unit, self._pace, table_column=one_line()),
                console=self._console,
                expand=True,
                # A batch can take many seconds on a CPU: remember enough of them for a rate.
                speed_estimate_period=120.0,
            )
            self._task = self._bar.add_task(
                self.description,
                total=self.total,
                completed=self.initial,
                terms="",
                initial=self.initial,
            )
            self._bar.start()
        return self

    def update(self, n: int, **terms: float) -> None:
        """Counts `n` more units as done and shows the latest terms.

        Args:
          n: units done since the last update.
          **terms: numbers to show, e.g. loss=, sft=, ece=. Values on a device are fetched, and
            waited for, here.
        """
        self.completed += int(n)
        if not self.enabled:
            return
        self.terms |= terms
        self._pace.update(self.completed)
        if self._bar is not None:
            self._bar.update(self._task, advance=int(n), terms=self._fitting_terms())
        elif time.monotonic() - self._last_time >= self.log_every and self.completed < self.total:
            self._log(final=False)

    def _fitting_terms(self) -> str:
        """As many of the terms as the console's width leaves room for."""
        others = len(self.description) + 2 * len(str(self.total)) + len(f"99.9 {self.unit}/s")
        room = self._console.width - others - len("  1:23:45 taken") - 16  # bar and gaps
        terms = dict(self.terms)
        while terms and len(_terms(terms)) > room:
            terms.popitem()
        return _terms(terms)

    def _log(self, final: bool) -> None:
        now = time.monotonic()
        since, count = (self._start, self.initial) if final else (self._last_time, self._last_count)
        done, seconds = self.completed - count, now - since
        rate = done / seconds if done and seconds > 0 else None
        left = self._pace.left()
        timing = "" if left is None else f"{_duration(left)} left"
        if final:
            timing = f"{_duration(now - self._start)} taken"
        parts = [
            f"{self.description}: {self.completed}/{self.total} {self.unit}",
            _terms(self.terms),
            f"{_rate(rate)} {self.unit}/s",
            timing,
        ]
        line = "  ".join(part for part in parts if part)
        print(line, file=self._console.file, flush=True)
        self._last_time, self._last_count = now, self.completed

    def __exit__(self, exc_type, exc, traceback) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.enabled and exc_type is None:
            self._log(final=True)
