"""The pages that are made of the table of fields."""

from pathlib import Path

import pytest

import calib_jax
from calib_jax import UserError
from calib_jax.config import FIELDS, page
from calib_jax.main import main

DOCS = Path(calib_jax.__file__).parents[1] / "docs"


def test_docs_config_is_up_to_date():
    assert (DOCS / "config.md").read_text() == page.as_markdown(), (
        "run: python -m calib_jax.config.page > docs/config.md"
    )


def test_every_field_has_a_row_of_as_many_cells_as_the_head():
    rows = [line for line in page.as_markdown().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(FIELDS)
    assert {row.replace(r"\|", "").count("|") for row in rows} == {6}


def test_help_lists_sections_fields_defaults_and_meanings(capsys):
    assert main(["x", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--workdir" in said and "train.lora: rank, alpha, dropout, targets" in said
    assert main(["x", "--help=train"]) == 0
    said = capsys.readouterr().out
    assert "--config.train.epochs=1  (a whole number, 1 or more)\n    The number L of" in said
    assert "--config.train.method=full  (one of full, lora)" in said
    assert "em.num_bins" not in said
    everything = page.as_text("all")
    assert all(f"--config.{path}=" in everything for path in FIELDS)
    with pytest.raises(UserError, match="--help names 'tain'; .* Did you mean 'train'?"):
        page.as_text("tain")
