"""The job ``winrate``: what judges said about answers, as win rates with intervals."""

from typing import Any

import jax
import numpy as np

from calib_jax.config import check_config, split_list
from calib_jax.metrics import winrate as metrics
from calib_jax.reports.ingest.judgements import Contest, read_answer_lengths, read_judgements
from calib_jax.reports.result import Measured, Result
from calib_jax.reports.views import winrate
from calib_jax.runs.run import Run

# Of fewer questions neither intervals nor a fit with length are stated.
MIN_QUESTIONS = 5


def main(run: Run) -> None:
    """Reads every file of judgements, then writes winrate.md and summary.json.

    Raises:
      UserError: bad input; nothing is written then.
      Stopped: SIGTERM; the same command begins anew.
    """
    config, asked = run.config, run.config.winrate
    check_config(config)
    files = split_list(asked.judgements)
    lengths: dict[str, dict[str, int]] = {}
    for path in split_list(asked.answers):
        for model, by_question in read_answer_lengths(path).items():
            lengths.setdefault(model, {}).update(by_question)
    contests = [(path, contest) for path in files for contest in read_judgements(path, lengths)]
    if jax.process_index() != 0:
        return
    run.claim()
    rows = []
    for path, contest in contests:
        rows.append({"file": path, **measure(contest)})
        run.stop.check()
    own = {"method": config.method, "contests": rows}
    measured = tuple(
        Measured(row["model"], row["baseline"], row, row["category"] or "") for row in rows
    )
    run.finish(Result(own, measured), winrate.view)


def measure(contest: Contest) -> dict[str, Any]:
    """Every figure of one contest; None where one is not known.

    Returns:
      model, baseline, category, layout; n questions with a verdict, unjudged ones without; won,
      tied, lost (a question of two games is won with more than half of them, by weight); win_rate
      with win_rate_ci, standard_error; discrete_win_rate, of won, tied and lost alone; mean_length,
      baseline_mean_length and their length_ratio; length_controlled_win_rate with its _ci, the
      fit's theta and phi as length_controlled_fit; or no_length_control, the reason.
    """
    wins = np.array([judgement.wins for judgement in contest.judgements])
    games = np.array([judgement.games for judgement in contest.judgements])
    n, shares = len(wins), wins / games
    won, lost = int((shares > 0.5).sum()), int((shares < 0.5).sum())
    enough = n >= MIN_QUESTIONS
    row: dict[str, Any] = {
        "model": contest.model,
        "baseline": contest.baseline,
        "category": contest.category,
        "layout": contest.layout,
        "n": n,
        "unjudged": contest.unjudged,
        "won": won,
        "tied": n - won - lost,
        "lost": lost,
        "win_rate": metrics.win_rate(wins, games),
        "win_rate_ci": [None, None],
        "standard_error": metrics.standard_error(wins, games) if n > 1 else None,
        "discrete_win_rate": (won + (n - won - lost) / 2) / n,
        "mean_length": None,
        "baseline_mean_length": None,
        "length_ratio": None,
        "length_controlled_win_rate": None,
        "length_controlled_win_rate_ci": [None, None],
    }
    if enough:
        row["win_rate_ci"] = list(metrics.win_rate_interval(wins, games))
    known = [judgement.lengths for judgement in contest.judgements if judgement.lengths]
    if len(known) < n:
        row["no_length_control"] = f"{n - len(known)} of {n} judgements come without both answers"
        if contest.layout == "arena_hard":
            row["no_length_control"] += " (config.winrate.answers names answer files)"
        return row
    ours, theirs = np.array(known, np.float64).T
    row["mean_length"], row["baseline_mean_length"] = float(ours.mean()), float(theirs.mean())
    row["length_ratio"] = float(ours.mean() / theirs.mean()) if theirs.mean() else None
    if not enough:
        row["no_length_control"] = f"{n} questions are too few"
        return row
    fit = metrics.length_controlled(wins, ours, theirs, games)
    row["length_controlled_win_rate"] = fit.win_rate
    row["length_controlled_fit"] = {"theta": fit.theta, "phi": fit.phi}
    row["length_controlled_win_rate_ci"] = list(
        metrics.length_controlled_interval(wins, ours, theirs, games)
    )
    return row
