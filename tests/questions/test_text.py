"""Documents from text files, tables and data sets; invented texts only."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_jax.errors import UserError
from calib_jax.questions import text

# As WikiText has them, every line begins and ends in a space.
WIKI = "\n".join(
    f" {line} " if line else ""
    for line in (
        "", "= Green stone =", "", "A stone that is green .", "It lies = there =", "",
        "= = Uses = =", "", "Paper weight .", "", "= Red stone =", "", "x = y =", "", "Redder .",
    )
)  # fmt: skip  # a text's lines, several on a line


def texts(spec):
    return [(d.id, d.text) for d in text.load(str(spec))[0]]


def test_articles_begin_at_wikitexts_headings(tmp_path):
    """Sections stay in their article, as do equals signs that are no heading."""
    path = tmp_path / "wiki.txt"
    path.write_text(WIKI)
    (first, one), (second, two) = texts(path)
    assert (first, second) == ("article-1", "article-2")
    assert one.startswith("= Green stone =") and one.endswith("Paper weight .")
    assert "= = Uses = =" in one and "It lies = there =" in one
    assert two.startswith("= Red stone =") and "x = y =" in two and two.endswith("Redder .")


def test_elsewhere_blank_lines_separate(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\n one\r\nmore \r\n \r\n\r\ntwo\r\n = a = \r\n\r\nthree")
    assert texts(path) == [
        ("paragraph-1", "one\nmore"),
        ("paragraph-2", "two\n = a ="),
        ("paragraph-3", "three"),
    ]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_a_table_are_documents(tmp_path):
    rows = [{"n": "a", "text": "one"}, {"n": "b", "text": " "}, {"n": "c", "text": "three"}]
    expected = [("row-1", "one"), ("row-3", "three")]
    assert texts(jsonl(tmp_path / "a.jsonl", rows)) == expected
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == expected
    assert texts(f"{tmp_path / 'a.jsonl'}:n")[1] == ("row-2", "b")
    # The only column of text needs no name.
    assert texts(jsonl(tmp_path / "b.jsonl", [{"k": 1, "body": "x"}])) == [("row-1", "x")]


def test_rows_without_text_are_counted(tmp_path):
    rows = [{"body": None}, {"body": "one"}, {"body": ""}, {"body": " \n"}, {"body": "two"}]
    path = jsonl(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("body,k\n,1\none,2\n,3\n ,4\ntwo,5\n")
    for spec in (path, tmp_path / "a.parquet", f"{tmp_path / 'a.csv'}:body"):
        found, counts = text.load(str(spec))
        assert [d.id for d in found] == ["row-2", "row-5"] and counts == {"skipped_empty": 3}
    jsonl(path, rows[:1])
    with pytest.raises(UserError, match="no column 'text'"):
        text.load(str(path))
    with pytest.raises(UserError, match="holds no text"):
        text.load(f"{path}:body")


@pytest.fixture
def hub(monkeypatch):
    """``datasets.load_dataset`` that remembers what it was asked for."""
    asked = []

    def load(repo, config, split):
        asked.append((repo, config, split))
        if repo == "no/such":
            raise FileNotFoundError("nothing there")
        return datasets.Dataset.from_dict(
            {"text": ["one", "", "three", None], "title": ["A", "B", "C", "D"], "k": [1, 2, 3, 4]}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_hub_sets_are_read_row_by_row(hub):
    found, counts = text.load("hf:some/set:test")
    assert counts == {"skipped_empty": 2}
    assert len(found) == 2 and [(d.id, d.text) for d in found] == [
        ("row-1", "one"),
        ("row-3", "three"),
    ]
    assert found[1].id == "row-3"
    titles, counts = text.load("hf:some/set:raw:test:title")
    assert [d.text for d in titles] == ["A", "B", "C", "D"] and counts == {"skipped_empty": 0}
    assert len(text.load("hf:some/set::test:title")[0]) == 4
    assert len(text.load("hf:some/set:c:test")[0]) == 2
    assert hub == [
        ("some/set", None, "test"),
        ("some/set", "raw", "test"),
        ("some/set", None, "test"),
        ("some/set", "c", "test"),
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:some/set", "names no Hugging Face split"),
        ("hf:some/set:a:b:c:d", "names no Hugging Face split"),
        ("hf:no/such:test", "cannot load the Hugging Face data set 'no/such'"),
        ("hf:some/set::test:body", "no column 'body'; it has: text, title, k"),
        ("hf:some/set::test:k", "column 'k' holds no text"),
        (" ", "names nothing"),
        ("notes.docx", "names no text"),
        ("no/such.txt", "there is no such file"),
        ("no/such.jsonl:body", "no/such.jsonl: there is no such file"),
    ],
)
def test_bad_sources_are_refused(hub, spec, message):
    with pytest.raises(UserError) as error:
        text.load(spec)
    assert message in str(error.value)


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    jsonl(tmp_path / "two.jsonl", [{"a": "x", "b": "y"}])
    jsonl(tmp_path / "lacks.jsonl", [{"text": "x"}, {"title": "y"}])
    jsonl(tmp_path / "number.jsonl", [{"text": "x"}, {"text": 3}])
    for name, message in (
        ("empty.txt", "holds no text"),
        ("latin.txt", "line 2: not UTF-8"),
        ("two.jsonl", "not one column of text alone, among a, b"),
        ("two.jsonl:c", "no column 'c'; it has: a, b"),
        ("lacks.jsonl", "row 2: no column 'text'; it has: title"),
        ("number.jsonl", "row 2: column 'text' must hold text, not 3"),
    ):
        with pytest.raises(UserError) as error:
            text.load(str(tmp_path / name))
        assert message in str(error.value) and name.partition(":")[0] in str(error.value)
