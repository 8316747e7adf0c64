"""Finished runs by their folders: what can be taken, and what is said of what cannot."""

import pytest

from calib_jax import UserError
from calib_jax.config import base
from calib_jax.reports import result
from calib_jax.runs import trained
from calib_jax.runs.run import as_json


@pytest.fixture
def make(tmp_path):
    def run(name, job="finetune", method="cft", finished=True, checkpoint=True, adapter=""):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = base()
        config.job, config.method, config.model.name = job, method, "owner/model"
        config.model.adapter = str(adapter)
        (folder / "config.json").write_text(as_json(config))
        if finished:
            result.write(folder / "summary.json", {"named": name})
        if checkpoint:
            (folder / "checkpoints" / "5").mkdir(parents=True)
        return folder

    return run


@pytest.mark.parametrize("job", ["stages", "compare", "sweep"])
def test_a_series_names_the_runs_in_it(make, job):
    series = make("series", job, checkpoint=False)
    make("series/before-seed0", method="before", checkpoint=False)
    make("series/3-rcft", finished=False)
    with pytest.raises(UserError, match="none of them is finished"):
        trained.read_run(series)
    good = [make("series/1-sft", "align"), make("series/2-cft")]
    with pytest.raises(UserError, match=job) as said:
        trained.read_run(series)
    assert str(said.value).endswith(f"Name one of them: {good[0]}, {good[1]}.")
    assert [trained.read_run(folder).folder for folder in good] == good


def test_what_a_folder_holds_instead(make):
    with pytest.raises(UserError, match=r"model instead: owner/model with the adapter x/y\."):
        trained.read_run(make("measured", "evaluate", checkpoint=False, adapter="x/y"))
    with pytest.raises(UserError, match="Name a run of the job finetune or align"):
        trained.read_run(make("asked", "generate", checkpoint=False))
    with pytest.raises(UserError, match="before training. Name the model itself: owner/model"):
        trained.read_run(make("before", method="before", checkpoint=False))
    with pytest.raises(UserError, match="what was trained is lost"):
        trained.read_run(make("lost", checkpoint=False))


def test_the_runs_that_an_adapter_came_from(make, tmp_path):
    first = make("1-sft", "align", adapter="owner/adapter")
    second = make("2-dpo", "align", adapter=first / "adapter")  # as the job stages writes it
    third = make("cft", adapter=second / "export" / "adapter")  # as the job export does
    found = trained.earlier_runs(str(third / "adapter"))
    assert [stage.folder for stage in found] == [str(first), str(second), str(third)]
    assert [stage.summary["named"] for stage in found] == ["1-sft", "2-dpo", "cft"]
    for adapter in ("", "owner/adapter", str(tmp_path / "adapter"), str(third / "other")):
        assert trained.earlier_runs(adapter) == ()
    looped = make("looped", adapter=tmp_path / "looped" / "adapter")
    assert len(trained.earlier_runs(str(looped / "adapter"))) == 1


def test_a_message_says_which_field(make):
    with pytest.raises(UserError, match=r"^config\.x, cft: .*no such run\. Did you mean .*run-1"):
        with trained.blamed_on("config.x, cft"):
            trained.read_run(make("run-1").with_name("run-2"))
