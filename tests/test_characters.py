import io
import json
import os
import sys

import pytest

from calib_jax.atomic import write_text
from calib_jax.characters import check_folder, encodable, prepare_console
from calib_jax.errors import UserError
from calib_jax.main import main

NAME = os.fsdecode(b"caf\xe9")


def test_json_with_a_name_that_is_no_utf8_comes_back_as_it_was(tmp_path):
    write_text(tmp_path / "a.json", json.dumps([NAME, "日本"], ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [NAME, "日本"]


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "0.41 → 0.05 λ é \\udce9 日"),
        ("latin-1", "0.41 -> 0.05 lambda é \\udce9 \\u65e5"),
        ("ascii", "0.41 -> 0.05 lambda \\xe9 \\udce9 \\u65e5"),
    ],
)
def test_a_console_says_what_it_can(encoding, shown, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_console()
    print("0.41 → 0.05 λ é \udce9 日", flush=True)
    assert stream.buffer.getvalue().decode(encoding) == shown + "\n"


def test_a_folder_that_no_library_opens_is_refused(tmp_path, capsys):
    check_folder("café", "it")
    with pytest.raises(UserError, match="UTF-8"):
        check_folder(tmp_path / NAME, "it")
    assert main(["calib_jax", "--config=configs/report.py", f"--workdir={tmp_path / NAME}"]) == 1
    said = capsys.readouterr().err
    assert "--workdir" in said and encodable(NAME) in said and "PYTHONUTF8=1" in said
    assert not (tmp_path / NAME).exists()
