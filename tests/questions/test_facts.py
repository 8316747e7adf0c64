"""Facts from T-REx-like folders and files; invented facts only."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
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


ANN = "Ann met Bob in Rome. She likes Bob Dylan."


def document(entities, **more):
    """A T-REx document; entities: (start, end) and what differs from the usual."""
    return {
        "docid": "http://www.wikidata.org/entity/Q1",
        "title": "Ann",
        "text": ANN,
        "sentences_boundaries": [[0, 20], [21, 41]],
        "entities": [
            {
                "uri": "x",
                "boundaries": list(bounds),
                "surfaceform": ANN[slice(*bounds)],
                "annotator": "Wikidata_Spotlight_Entity_Linker",
                **changes,
            }
            for bounds, changes in entities
        ],
        "triples": [],
    } | more


ENTITIES = [
    ((0, 3), {}),  # nothing stands before it
    ((8, 11), {}),
    ((15, 19), {}),
    ((21, 24), {"annotator": "Simple_Coreference"}),
    ((31, 34), {}),
    ((31, 40), {}),  # begins at the same token
    ((15, 18), {"surfaceform": "Paris"}),  # an offset of another encoding
    ((35, 99), {"surfaceform": None}),
]


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "folder"])
def test_the_entities_of_trex_documents_are_read_in_their_own_text(tmp_path, form):
    rows = [document(ENTITIES), document([], docid="Q2"), document(ENTITIES[:3], title="again")]
    if form == "jsonl":
        path = jsonl(tmp_path / "a.jsonl", rows)
    elif form == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path = tmp_path / "parts"
        path.mkdir()
        (path / "re-nlg_0-10000.json").write_text(json.dumps(rows))
        path = path / "re-nlg_0-10000.json" if form == "json" else path
    found, counts = facts.load(path)
    assert [(f.id, f.text[f.start : f.end]) for f in found] == [
        ("Q1#8", "Bob"),
        ("Q1#15", "Rome"),
        ("Q1#31", "Bob Dylan"),
        ("Q1~2#8", "Bob"),
        ("Q1~2#15", "Rome"),
    ]
    # All text before the entity is its context, and a document's entities are not independent.
    assert found[2].text[: found[2].start] == "Ann met Bob in Rome. She likes "
    assert [f.document for f in found] == ["Q1"] * 3 + ["Q1~2"] * 2
    assert counts == {
        "relations": 1,
        "skipped_no_text_before": 2,
        "skipped_pronouns": 1,
        "skipped_other_text": 2,
        "skipped_same_start": 1,
        "documents_without_entities": 1,
    }
    with pytest.raises(UserError, match="patterns is 'first', but .* its facts' own texts"):
        facts.load(path, "first")


def lama(name, *sentences, **more):
    """A fact as LAMA's TREx files hold it."""
    evidences = [
        {"sub_surface": name, "obj_surface": "the Place", "masked_sentence": text}
        for text in sentences
    ]
    labels = {"sub_label": name, "obj_label": f"Place {name}", "predicate_id": "P1"}
    return {"uuid": f"u-{name}", **labels, "evidences": evidences, **more}


def test_lamas_facts_are_read_in_the_sentences_that_they_were_found_in(tmp_path):
    rows = [
        lama("a", "[MASK] is where a lives.", "a lives in [MASK], near [MASK] Hill."),
        lama("b", "b has left."),
        lama("c", "[MASK] holds c."),
        {"sub_label": "d", "obj_label": "Place d"},
    ]
    root = tmp_path / "TREx"
    jsonl(root / "P1.jsonl", rows)
    jsonl(root / "relations.jsonl", [{"relation": "P1", "template": "[X] lies in [Y] ."}])
    (fact,), counts = facts.load(root)
    assert fact.text == "a lives in the Place, near the Place Hill."
    assert fact.text[fact.start : fact.end] == "the Place" and fact.start == 11
    assert (fact.id, fact.relation, fact.document) == ("P1-1", "P1", "P1-1")
    assert counts == {
        "relations": 1,
        "skipped_no_text_before": 1,
        "skipped_no_mask": 1,
        "skipped_no_sentence": 1,
    }
    assert facts.load(root, "sentences") == facts.load(root)
    # Templates are there too, where they are asked for.
    found, _ = facts.load(root, "first")
    assert [f.text for f in found] == [f"{n} lies in Place {n} ." for n in "abcd"]


def test_flat_rows_with_masked_sentences_are_read_from_a_file(tmp_path):
    flat = {"obj_label": "Italian", "predicate_id": "P103", "uuid": "u1", "template": "[X] [Y]"}
    rows = [
        {**flat, "masked_sentence": "She spoke [MASK].", "obj_surface": "italian"},
        {**flat, "masked_sentence": "A poem in [MASK].", "obj_surface": None},
        {
            "masked_sentences": ["He was born.", "That was in [MASK]."],
            "obj_label": "1900",
            "pred": "/people/person/date_of_birth",
            "evidences": [{"url": "x", "snippet": "y"}],
        },
    ]
    found, counts = facts.load(jsonl(tmp_path / "a.jsonl", rows))
    assert [f.text for f in found] == [
        "She spoke italian.",
        "A poem in Italian.",
        "He was born. That was in 1900.",
    ]
    assert [f.text[f.start : f.end] for f in found] == ["italian", "Italian", "1900"]
    # Two sentences of one fact are not independent.
    assert [f.document for f in found] == ["u1", "u1", "row-3"]
    assert [f.relation for f in found] == ["P103", "P103", "/people/person/date_of_birth"]
    assert counts["relations"] == 2


def test_folders_that_cannot_be_one_thing_are_refused(tmp_path):
    root = tmp_path / "both"
    jsonl(root / "P1.jsonl", [lama("a", "a lives in [MASK].")])
    jsonl(root / "docs.jsonl", [document(ENTITIES)])
    with pytest.raises(UserError, match="documents and facts of relations; name the folder of one"):
        facts.load(root)
    plain = tmp_path / "plain"
    jsonl(plain / "P1.jsonl", triples("ab", "P1"))
    with pytest.raises(UserError, match=r"no fact has a sentence with \[MASK\]"):
        facts.load(plain, "sentences")


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
        ({"masked_sentence": "in [MASK]", "obj_label": ""}, "'obj_label' must be a non-empty"),
        ({"masked_sentences": [1], "obj_label": "a"}, "'masked_sentences' must be text or a list"),
        ({"evidences": "x", "obj_label": "a"}, "'evidences' must be a list"),
        ({"evidences": ["x"], "obj_label": "a"}, "evidence 1 must be an object"),
        ({"text": "ab", "entities": "x"}, "'entities' must be a list"),
        ({"text": "ab", "entities": [{"uri": "x"}]}, "entity 1: field 'boundaries' must be"),
        ({"text": "ab", "entities": [{"boundaries": [0.5, 1]}]}, "entity 1: field 'boundaries'"),
        ({"text": "ab", "entities": [], "start": 0, "end": 1}, "the columns are text, entities"),
        ({"text": "abc", "start": 1, "end": 2, "id": "row-1"}, "appears in row 1 already"),
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
    assert "no .jsonl and no .json file" in message(tmp_path / "empty")
    assert "no facts" in message(folder / "graphs")
    assert "but no template of any" in message(folder / "facts")
    assert "choose from: auto, sentences, first, all" in message(folder, "some")
    jsonl(folder / "other.jsonl", [{"question": "?"}])
    assert "other.jsonl row 1: the columns are question" in message(folder)
    first = jsonl(tmp_path / "first.jsonl", [{"text": " ab", "start": 1, "end": 3}])
    assert "no fact has text before its object (1 facts read)" in message(first)
    (tmp_path / "a.txt").write_text("x")
    assert "must end in .jsonl" in message(tmp_path / "a.txt")
