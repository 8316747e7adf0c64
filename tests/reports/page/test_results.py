import re

from calib_jax.reports.page import results


def groups(*rows):
    return [dict(zip(("group", "n", "conf_ece", "conf_ece_ci"), row, strict=True)) for row in rows]


def test_subjects_stand_in_one_row_with_every_state(run):
    row = run[0]["before"]["near"]
    states = {
        "before": {
            "near": row | {"groups": groups(("b", 5, 0.5, [0.25, 0.75]), ("a", 7, 0.1, None))}
        },
        "after": {"near": row | {"groups": groups(("b", 5, None, None), ("a", 7, 0.05, None))}},
    }
    assert results.has_subjects(states)
    text = results.subjects(states)
    heads = re.findall(r'<th scope="col" data-type="\w+">([^<]*)', text)
    assert heads == ["subject", "questions", "conf-ECE, before", "conf-ECE, after"]
    rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', text)
    assert [r[0] for r in rows] == ["a", "b"]
    assert re.findall(r'data-v="([^"]*)"', rows[1]) == ["5", "0.5", ""]
    assert "[0.250, 0.750]" in rows[1]


def test_very_many_subjects_are_cut_to_the_largest(run):
    row = run[0]["before"]["near"]
    many = groups(*((f"s{i:04d}", i + 1, 0.1, None) for i in range(results.MAX_SUBJECTS + 5)))
    text = results.subjects({"m": {"near": row | {"groups": many}}})
    assert text.count('scope="row"') == results.MAX_SUBJECTS
    assert "305 subjects" in text and "s0000" not in text
    assert f"The {results.MAX_SUBJECTS} subjects with the most questions, of 305." in text


def test_calibrators_stand_beneath_the_scores_as_they_are(run):
    result, _ = run
    states = {"before": result["before"], "after": result["after"]}
    rows = {"near": {"conf_ece": 0.015625, "nll": 1.25, "accuracy": 0.5}}
    text = results.posthoc({"vector_scaling": rows}, states)
    names = re.findall(r'scope="row">([^<]*)', text)
    assert names == ["before, as measured", "after, as measured", "vector scaling"]
    heads = re.findall(r'scope="col">([^<]*)', text)
    # The proper score beside the error; no column that no calibrator fills.
    assert heads == ["method", "conf-ECE ↓", "NLL ↓", "accuracy ↑"]
    assert "0.016" in text and "1.250" in text and "<h3>far" not in text


def test_an_old_summary_without_the_newer_figures_is_shown(run):
    old = ("domain", "n", "conf_ece", "cw_ece", "accuracy", "mean_confidence", "nll", "brier",
           "auroc", "letter_counts", "answer_counts", "top_letter", "top_letter_share")  # fmt: skip
    row = {key: run[0]["before"]["near"][key] for key in old}
    text = results.results({"before": {"near": row}}, None)
    assert "conf-ECE" in text and "debiased" not in text and "(95%)" not in text
