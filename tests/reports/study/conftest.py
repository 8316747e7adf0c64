"""The authors' published figures, and their files made of them again."""

import json

import pytest

from calib_jax.reports.study import authors_csv

SPELT = {"choice": "choice", "sum": "contunuation_sum", "min": "contunuation_min"}
HEADER = (
    ",ece change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
    ",sce change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
    ",acc change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
)


def file_text(published, name):
    """A file as the authors published it; written without the code under test."""
    blocks = []
    for task, rows in published[name].items():
        lines = [f"{task},{SPELT[name]},,,,,,,,", HEADER]
        for i, model in enumerate(published["models"]):
            if i >= len(rows):  # the two largest, by continuation_min
                lines.append(model + "," * 9)
                continue
            (a, b, c), (d, e, f), (g, h, j) = (rows[i][k : k + 3] for k in (0, 3, 6))
            lines.append(f"{model},{a:.3f},{b:.2f}%,{c},{d:.3f},{e:.2f}%,{f},{g:.2f}%,{h:.2f}%,{j}")
        blocks.append("\r\n".join(lines))
    return "\r\n,,,,,,,,,\r\n".join(blocks)


@pytest.fixture(scope="session")
def published(golden):
    return json.loads((golden / "paper2" / "published.json").read_text())


@pytest.fixture(scope="session")
def author_files(published, tmp_path_factory):
    """choice, sum and min -> path."""
    folder = tmp_path_factory.mktemp("authors")
    paths = {}
    for name in SPELT:
        paths[name] = folder / f"{name}.csv"
        paths[name].write_bytes(file_text(published, name).encode())
    return paths


@pytest.fixture(scope="session")
def published_cells(author_files):
    return authors_csv.merged({str(p): authors_csv.read(p) for p in author_files.values()})
