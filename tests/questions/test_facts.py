"""Facts from T-REx-like folders and files; invented facts only."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import facts


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def triples(names, relation):
    return [
        {"sub_label": name, "obj_label": f"Place {name}", "relation": relation} for name in names
    ]


@pytest.fixture
def folder(tmp_path):
    """ParaRel's templates for P1 and P2, LAMA's for P3, none for P4."""
    root = tmp_path / "trex"
    for relation, names in (("P1", "abcde"), ("P2", "fgh"), ("P3", "ij"), ("P4", "kl")):
        jsonl(root / "facts" / f"{relation}.jsonl", triples(names, relation))
    patterns = [{"pattern": "[X] lies in [Y] ."}, {"pattern": "[Y] is where [X] lies ."}]
    jsonl(root / "graphs" / "P1.jsonl", patterns)
    jsonl(root / "graphs" / "P2.jsonl", patterns[::-1])
    jsonl(root / "relations.jsonl", [{"relation": "P3", "template": "See [X] ([Y])."}])
    return root


def test_a_folder_gives_every_fact_by_its_relations_first_template(folder):
    found, counts = facts.load(folder)
    assert [f.id for f in found] == [f"P1-{i}" for i in range(1, 6)] + ["P3-1", "P3-2"]
    assert found[0].text == "a lies in Place a ." and found[-1].text == "See j (Place j)."
    assert all(f.text[f.start : f.end].startswith("Place ") for f in found)
    assert {f.relation for f in found} == {"P1", "P3"}
    # P2's object comes first; P4 has no template. Neither is lost without a word.
    assert counts == {"relations": 2, "skipped_no_text_before": 3, "skipped_no_template": 2}


def test_all_templates_of_a_fact_are_one_document(folder):
    found, counts = facts.load(folder, "all")
    assert counts == {"relations": 3, "skipped_no_text_before": 8, "skipped_no_template": 2}
    assert [f.id for f in found if f.relation == "P2"] == ["P2-1-2", "P2-2-2", "P2-3-2"]
    assert {f.document for f in found if f.relation == "P2"} == {"P2-1", "P2-2", "P2-3"}
    assert len({f.id for f in found}) == len(found)


def test_texts_are_put_in_verbatim():
    text, start, end = facts.fill("In [Y] lives [X], [x].", "[Y] & Sons", "[X]land")
    assert text == "In [X]land lives [Y] & Sons, [x]." and text[start:end] == "[X]land"


def test_a_file_of_spans_or_of_templates(tmp_path):
    rows = [
        {"text": "Ann met Bob.", "start": 8, "end": 11, "document": 7},
        {"text": "Ann met Bob.", "start": 0, "end": 3, "document": 7},
        {
            "subject": "Ann",
            "object": "Bob",
            "template": "[X] met [Y].",
            "relation": "met",
            "id": "z",
        },
    ]
    found, counts = facts.load(jsonl(tmp_path / "a.jsonl", rows))
    assert [(f.id, f.document, f.relation) for f in found] == [
        ("row-1", "7", ""),
        ("z", "z", "met"),
    ]
    assert found[0].text[found[0].start : found[0].end] == "Bob"
    assert counts["skipped_no_text_before"] == 1  # nothing stands before Ann


def test_the_places_of_a_csv_file_are_read_as_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,start,end\nAnn met Bob.,8,11\n")
    ((fact,), _) = facts.load(path)
    assert fact.text[fact.start : fact.end] == "Bob"
    path.write_text("text,start,end\nAnn met Bob.,8,x\n")
    with pytest.raises(UserError, match="row 1: field 'end' must be an integer, not 'x'"):
        facts.load(path)


def test_samples_are_even_seeded_and_nested(tmp_path):
    sizes = {"a": 2, "b": 30, "c": 50}
    every = [
        facts.Fact(f"{name}{i}", "x y", 2, 3, relation=name)
        for name, size in sizes.items()
        for i in range(size)
    ]

    def counted(size, seed=0):
        some = facts.sample_evenly(every, size, seed)
        assert [f for f in every if f in some] == some  # in order
        return {name: sum(f.relation == name for f in some) for name in sizes}

    assert counted(6) == {"a": 2, "b": 2, "c": 2}
    assert counted(20) == {"a": 2, "b": 9, "c": 9}  # what a lacks is shared
    assert counted(80) == {"a": 2, "b": 30, "c": 48}
    assert counted(0) == counted(500) == sizes
    small, large = (set(facts.sample_evenly(every, size, 1)) for size in (9, 30))
    assert small < large and small != set(facts.sample_evenly(every, 9, 2))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "ab", "start": 1, "end": 3}, "span 1 to 3 does not lie in the text of 2"),
        ({"text": "ab", "start": 1, "end": 1}, "empty span: 'start' and 'end' are both 1"),
        ({"text": "ab", "start": "1", "end": 2}, "'start' must be an integer, not '1'"),
        ({"text": "ab", "start": "x", "end": 2}, "'start' must be an integer, not 'x'"),
        ({"text": "ab", "start": True, "end": 2}, "'start' must be an integer"),
        ({"subject": "a", "object": "b", "template": "[X] only"}, "must hold [X] and [Y] once"),
        ({"subject": "", "object": "b", "template": "[X] [Y]"}, "'subject' must be a non-empty"),
        ({"sub": "a"}, "the columns are sub; a row needs"),
        ({"text": "abc", "start": 1, "end": 2, "id": "row-1"}, "stands in row 1 already"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    good = {"text": "x y", "start": 2, "end": 3}
    path = jsonl(tmp_path / "a.jsonl", [good, row])
    with pytest.raises(UserError) as error:
        facts.load(path)
    assert message in str(error.value) and f"{path} row 2: " in str(error.value)


def test_bad_folders_and_files_are_refused(tmp_path, folder):
    def message(path, *more):
        with pytest.raises(UserError) as error:
            facts.load(path, *more)
        return str(error.value)

    assert "no such file or folder" in message(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no .jsonl file" in message(tmp_path / "empty")
    assert "no facts" in message(folder / "graphs")
    assert "but no template of any" in message(folder / "facts")
    assert "expected first or all" in message(folder, "some")
    jsonl(folder / "other.jsonl", [{"question": "?"}])
    assert "other.jsonl row 1: the columns are question" in message(folder)
    first = jsonl(tmp_path / "first.jsonl", [{"text": " ab", "start": 1, "end": 3}])
    assert "no fact has text before its object (1 facts read)" in message(first)
    (tmp_path / "a.txt").write_text("x")
    assert "must end in .jsonl" in message(tmp_path / "a.txt")
