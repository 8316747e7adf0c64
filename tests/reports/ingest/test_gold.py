"""Every way in which lm-evaluation-harness 0.4.13 writes the right option of a sample."""

import json

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.reports.ingest import files
from calib_jax.reports.ingest.places import Reading

K = 4
RNG = np.random.default_rng(5)
VALUES = RNG.normal(-3, 1, size=(24, K)).round(3)
GOLD = [i * 7 % K for i in range(len(VALUES))]
TEXTS = [[f"thing {i} {k}" for k in range(K)] for i in range(len(VALUES))]


def sample(i, right, target, pairs=None, doc=None, values=None, **more):
    """A row as the harness logs it: values and target as text, and its own verdict."""
    values = list(VALUES[i] if values is None else values)
    pairs = pairs or [(f"Q{i}", f" {text}") for text in TEXTS[i]]
    row = {
        "doc_id": i,
        "doc": doc or {"id": i},
        "target": str(target),
        "arguments": {f"gen_args_{k}": {"arg_0": c, "arg_1": t} for k, (c, t) in enumerate(pairs)},
        "resps": [[[str(v), "False"]] for v in values],
        "filtered_resps": [[str(v), "False"] for v in values],
        "filter": "none",
    }
    own = float(int(np.argmax(values[: len(pairs)])) in right)
    return {k: v for k, v in (row | {"acc": own} | more).items() if v is not None}


def load(tmp_path, rows, name="samples_kind_2026-01-02T03-04-05.678.jsonl", **reading):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = files.load(str(path), Reading(**reading))
    ((_, splits),) = found.states.items()
    ((_, scores),) = splits.items()
    return scores, found.about[str(path)]


def letters(shape="{}"):
    return [("Q", " " + shape.format(letter)) for letter in "ABCD"]


def labelled(i):
    return [(f"Q{i}", f" {'ABCD'[k]}. {text}") for k, text in enumerate(TEXTS[i])]


KINDS = {
    "index": lambda i, g: sample(i, {g}, g),
    "text": lambda i, g: sample(i, {g}, TEXTS[i][g]),
    "letter of letters, texts beside them": lambda i, g: sample(
        i, {g}, "ABCD"[g], letters(), {"choices": TEXTS[i]}
    ),
    "letter of (A), texts as options": lambda i, g: sample(
        i, {g}, f"({'ABCD'[g]})", letters("({})"), {"options": TEXTS[i]}
    ),
    "letter of texts": lambda i, g: sample(i, {g}, "ABCD"[g]),
    "lettered text": lambda i, g: sample(i, {g}, f"{'ABCD'[g]}. {TEXTS[i][g]}", labelled(i)),
    "letter of lettered texts": lambda i, g: sample(i, {g}, "ABCD"[g], labelled(i)),
    "what a letter stands for": lambda i, g: sample(
        i, {g}, TEXTS[i][g], letters(), {"choices": {"text": TEXTS[i], "label": list("ABCD")}}
    ),
    "list of one as text": lambda i, g: sample(i, {g}, [g]),
    "list of one text": lambda i, g: sample(i, {g}, [TEXTS[i][g]]),
    "digits that are texts": lambda i, g: sample(
        i, {g}, ["1", "2", "3", "0"][g], [("Q", f" {t}") for t in ("1", "2", "3", "0")]
    ),
    "digits that are indices": lambda i, g: sample(
        i, {g}, g, [("Q", f" {t}") for t in ("1", "2", "3", "0")]
    ),
    "float": lambda i, g: sample(i, {g}, float(g)),
    "without acc": lambda i, g: sample(i, {g}, g, acc=None),
    "shared, answer in f1": lambda i, g: sample(
        i, {g}, "ran.", [(f"{t} {i}", " ran.") for t in ("ant", "bee", "cat", "dog")], f1=[g, 0]
    ),
    "shared, label in doc": lambda i, g: sample(
        i, {g}, "ran.", [(f"{t} {i}", " ran.") for t in ("ant", "bee", "cat", "dog")], {"label": g}
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_option_and_the_harness_s_own_accuracy(tmp_path, kind):
    rows = [KINDS[kind](i, g) for i, g in enumerate(GOLD)]
    scores, about = load(tmp_path, rows)
    assert scores.answers.tolist() == GOLD
    assert np.mean(scores.predictions == scores.answers) == np.mean(VALUES.argmax(1) == GOLD)
    if "acc" in rows[0]:
        own = np.mean([row["acc"] for row in rows])
        assert about["acc_in_the_file"] == own == np.mean(scores.predictions == scores.answers)


def test_letters_show_the_texts_that_they_stand_for(tmp_path):
    for kind in list(KINDS)[2:4]:
        scores, _ = load(tmp_path, [KINDS[kind](i, g) for i, g in enumerate(GOLD)])
        assert scores.choices == tuple(map(tuple, TEXTS))


def test_a_bool_is_an_index_as_the_harness_takes_it(tmp_path):
    pairs = [("Q", " True"), ("Q", " False")]
    rows = [
        sample(i, {i % 2}, bool(i % 2), pairs, values=VALUES[i][:2]) for i in range(len(VALUES))
    ]
    assert load(tmp_path, rows)[0].answers.tolist() == [i % 2 for i in range(len(VALUES))]


def winogrande(i, right, **more):
    pairs = [(f"Ann {i} asked Mary because {name}", " knew.") for name in ("Ann", "Mary")]
    return sample(i, {right}, "knew.", pairs, values=VALUES[i][:2], **more)


def test_the_shared_continuation_is_told_apart_by_the_verdict_or_the_data_s_answer(tmp_path):
    gold = [i // 2 % 2 for i in range(len(VALUES))]
    scores, about = load(tmp_path, [winogrande(i, g) for i, g in enumerate(gold)])
    assert scores.answers.tolist() == gold and "continuation of every option" in about["answers"]
    assert scores.choices[3][1] == "Ann 3 asked Mary because Mary"
    # WinoGrande's own answer is "1" or "2".
    rows = [winogrande(i, g, acc=None, doc={"answer": str(g + 1)}) for i, g in enumerate(gold)]
    assert load(tmp_path, rows)[0].answers.tolist() == gold
    rows = [winogrande(i, g, acc=None) for i, g in enumerate(gold)]
    with pytest.raises(UserError, match="the continuation of all 2 contexts, and neither 'acc'"):
        load(tmp_path, rows)


def with_unconditional(row, values, pairs):
    n = len(row["arguments"])
    more = {f"gen_args_{n + k}": {"arg_0": "", "arg_1": t} for k, (_, t) in enumerate(pairs)}
    extra = [[str(v), "False"] for v in values]
    return row | {
        "arguments": row["arguments"] | more,
        "filtered_resps": row["filtered_resps"] + extra,
        "acc_mutual_info": 0.0,
    }


def test_requests_of_acc_mutual_info_are_set_aside(tmp_path):
    """Also where the options are contexts, or have none: the second half is of other texts."""
    contexts = [[(f"{t} {i}", " ran.") for t in ("ant", "bee")] for i in range(24)]
    halves = {
        "contexts": (contexts, [[("", f" {c}") for c, _ in pairs] for pairs in contexts]),
        "no context": ([[("", f" {t}") for t in TEXTS[i][:2]] for i in range(24)],) * 2,
    }
    for name, (pairs, again) in halves.items():
        rows = [
            with_unconditional(
                sample(
                    i,
                    {i % 2},
                    "ran." if name == "contexts" else i % 2,
                    pairs[i],
                    values=VALUES[i][:2],
                ),
                VALUES[i][2:],
                again[i],
            )
            for i in range(24)
        ]
        scores, about = load(tmp_path, rows)
        assert about["rows_with_unconditional_requests_set_aside"] == 24
        np.testing.assert_array_equal(scores.log_scores, np.float32(VALUES[:, :2]))
        assert scores.answers.tolist() == [i % 2 for i in range(24)]


def test_of_several_right_answers_the_likeliest_counts(tmp_path):
    right = [{g, (g + 2) % K} if i % 3 else {g} for i, g in enumerate(GOLD)]
    rows = [sample(i, r, sorted(r)) for i, r in enumerate(right)]
    scores, about = load(tmp_path, rows)
    own = [row["acc"] for row in rows]
    assert (scores.predictions == scores.answers).tolist() == [bool(v) for v in own]
    assert about["rows_with_several_right_answers"].startswith("16 ")
    assert scores.answers.tolist() == [min(r) for r in right]
    for i, r in enumerate(right):
        assert scores.log_scores[i, min(r)] == np.float32(max(VALUES[i][list(r)]))
        assert sorted(scores.log_scores[i]) == sorted(np.float32(VALUES[i]))
        assert scores.choices[i][min(r)] == " / ".join(TEXTS[i][k] for k in sorted(r))
    # Another model's file of the same questions pairs with it, whichever answer it prefers.
    other = [sample(i, r, sorted(r), values=VALUES[i][::-1]) for i, r in enumerate(right)]
    for name, content in (("a.jsonl", rows), ("b.jsonl", other)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    found = files.load(f"before:x={tmp_path / 'a.jsonl'},after:x={tmp_path / 'b.jsonl'}")
    assert list(found.states) == ["before", "after"]


def mc2(i, labels):
    probs = np.exp(VALUES[i]) / np.exp(VALUES[i]).sum()
    doc = {"mc1_targets": {"labels": [1, 0, 0, 0]}, "mc2_targets": {"labels": labels}}
    return sample(i, {0}, 0, doc=doc, acc=float(probs[np.array(labels) == 1].sum()))


def test_mc2_s_probability_of_all_right_answers_finds_them(tmp_path):
    labels = [[1, 1, 0, 0] if i % 2 else [1, 1, 0, 1] for i in range(len(VALUES))]
    rows = [mc2(i, marks) for i, marks in enumerate(labels)]
    scores, about = load(tmp_path, rows)
    expected = [labels[i][k] == 1 for i, k in enumerate(VALUES.argmax(axis=1))]
    assert (scores.predictions == scores.answers).tolist() == expected
    assert "zeros and ones" in about["answers"]
    rows[3]["doc"] = {"question": "no labels"}
    with pytest.raises(UserError, match=r"row 4 .*probability of several right answers.*mc1"):
        load(tmp_path, rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # bbq logs one of the answers that it accepts.
        ({"acc": 1.0}, "accepts more answers than its target names"),
        ({"target": "all", "acc": 0.0}, "'target' is 'all', neither the index nor the text nor"),
        ({"target": "[0, 1, 2, 3]", "acc": 1.0}, "counts all of its 4 options as right"),
    ],
)
def test_rows_without_one_right_answer_say_why(tmp_path, change, message):
    rows = [sample(i, {g}, g) for i, g in enumerate(GOLD)]
    wrong = next(i for i, row in enumerate(rows) if not row["acc"])
    rows[wrong] |= change
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, rows)
    assert f"row {wrong + 1} (id '{wrong}')" in str(error.value)


def test_a_digit_that_may_be_index_or_text_is_refused_without_a_verdict(tmp_path):
    pairs = [("Q", f" {t}") for t in ("1", "2", "3", "0")]
    rows = [sample(i, {g}, g, pairs, acc=None) for i, g in enumerate(GOLD)]
    with pytest.raises(UserError, match="may mean option .* and no 'acc' tells"):
        load(tmp_path, rows)


def test_nearly_equal_options_are_chosen_as_in_the_harness(tmp_path):
    values = [-1.0, -1.0 + 1e-12, -5.0, -6.0]
    rows = [sample(i, {1}, 1, values=values) for i in range(3)]
    scores, _ = load(tmp_path, rows)
    assert scores.probs.dtype == np.float32 and scores.predictions.tolist() == [1, 1, 1]


# --- Folders ------------------------------------------------------------------------------------


def write(path, rows, as_list=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows, indent=2) if as_list else "\n".join(map(json.dumps, rows)) + "\n"
    path.write_text(text)
    return path


ROWS = [sample(i, {g}, g) for i, g in enumerate(GOLD)]
GENERATED = [
    {
        "doc_id": i,
        "doc": {"question": "q"},
        "target": "#### 3",
        "filter": name,
        "arguments": {"gen_args_0": {"arg_0": "Q", "arg_1": {"until": ["\n"]}}},
        "resps": [["lol"]],
        "filtered_resps": ["[invalid]"],
        "exact_match": 0.0,
    }
    for i in range(3)
    for name in ("strict-match", "flexible-extract")
]
TIME = "2026-01-02T03-04-05.678"


def test_the_output_path_is_read_and_a_generation_task_left_out_by_name(tmp_path):
    out = tmp_path / "out"
    write(out / "org__model" / f"samples_quiz_{TIME}.jsonl", ROWS)
    left = write(out / "org__model" / f"samples_gsm8k_{TIME}.jsonl", GENERATED)
    (out / "org__model" / f"results_{TIME}.json").write_text("{}")
    for folder in (out, out / "org__model"):
        found = files.load(str(folder))
        assert {s: list(splits) for s, splits in found.states.items()} == {"measured": ["quiz"]}
        assert "only tasks of output_type multiple_choice" in found.about[str(left)]["left_out"]
    with pytest.raises(UserError, match="'\\[invalid\\]' is not .*multiple_choice"):
        files.load(str(left))  # asked for by name, it is not left out
    write(out / "org__model" / f"samples_quiz_{TIME}.jsonl", GENERATED)
    with pytest.raises(UserError, match="none of its 2 files can be read. The first.*multiple_cho"):
        files.load(str(out))


def test_models_below_the_output_path_are_states(tmp_path):
    for name in ("small", "large"):
        write(tmp_path / "out" / name / f"samples_quiz_{TIME}.jsonl", ROWS)
    found = files.load(str(tmp_path / "out"))
    assert sorted(found.states) == ["large", "small"]
    with pytest.raises(UserError, match="several models, in large, small; name one of them"):
        files.load(f"before={tmp_path / 'out'}")
    (tmp_path / "none" / "sub").mkdir(parents=True)
    with pytest.raises(UserError, match="nor do the folders within it"):
        files.load(str(tmp_path / "none"))


def test_samples_of_old_versions_are_one_json_list_with_commas_in_the_name(tmp_path):
    rows = [row | {"target": g} for row, g in zip(ROWS, GOLD, strict=True)]
    for row in rows:
        row["arguments"] = [[f"Q{row['doc_id']}", f" {text}"] for text in TEXTS[row["doc_id"]]]
    path = write(tmp_path / "old" / "pretrained__m,dtype__float_quiz.jsonl", rows, as_list=True)
    (path.parent / "results.json").write_text("{}")
    for text in (path.parent, path, f"measured:quiz={path}", f"{path},"):
        ((_, splits),) = files.load(str(text)).states.items()
        assert next(iter(splits.values())).answers.tolist() == GOLD
    path.write_text(json.dumps(rows)[:-30])
    with pytest.raises(UserError, match="begins like a JSON list, but is not valid"):
        files.load(str(path))
    path.write_text(json.dumps([*rows, 3]))
    with pytest.raises(UserError, match=f"row {len(rows) + 1}: '3' is no JSON object"):
        files.load(str(path))
