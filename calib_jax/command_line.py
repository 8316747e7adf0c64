"""The command line: which config file and preset, which fields are overridden, which folder."""

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from calib_jax import fields
from calib_jax.characters import check_folder
from calib_jax.config import base
from calib_jax.errors import UserError
from calib_jax.jobs import JOBS

USAGE = """\
python -m calib_jax.main --config=CONFIG[:PRESET] [--workdir=FOLDER] [--config.FIELD=VALUE ...]

  --config         a config file and one of its presets, for example configs/cft.py:debug
  --workdir        where the run lives; runs/<config>[-<preset>] by default. The same command on an
                   interrupted run continues it, and on a finished one prints its table. Of the job
                   "export": where the files go; <the run>/export/<format>[-epoch<n>] by default.
  --config.FIELD   any field of the config, for example --config.train.learning_rate=1e-5
"""


def parse(argv: list[str]) -> tuple[ml_collections.ConfigDict | None, Path]:
    """The config with its overrides, and the run's folder; None as the config after ``--help``.

    Raises:
      UserError: a flag, field, value, file or preset that there is not, or a folder that cannot be.
    """
    if any(arg in ("--help", "-h", "--helpshort") for arg in argv[1:]):
        print(USAGE, end="")
        return None, Path()
    values = flags.FlagValues()
    argv, path, preset = _resolve(argv)
    config_flags.DEFINE_config_file(
        "config", None, "config file", flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string("workdir", None, "the run's folder", flag_values=values)
    try:
        rest = values(argv)
        config = values.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_message(error, argv)) from None
    if len(rest) > 1:
        raise UserError(
            f"unexpected argument {rest[1]!r}; fields are set with --config.FIELD=VALUE."
        )
    _check_fields(config, config_flags.get_override_values(values["config"]))
    name = path.stem + (f"-{preset}" if preset else "")
    workdir = Path(values.workdir or _default_workdir(config, name))
    check_folder(workdir, "--workdir")
    return config, workdir


def _check_fields(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Raises UserError for fields that are set, and that the job does not obey.

    A config file's own fields count where the file is of this job: ``--config.job=evaluate`` may be
    given to a config of training.
    """
    if config.job not in JOBS:
        raise UserError(f"config.job is {config.job!r}; choose from: {', '.join(JOBS)}.")
    written = () if "job" in overrides else fields.paths(config)
    fields.check(config, overrides, [path for path in written if path not in overrides])


def _default_workdir(config: ml_collections.ConfigDict, name: str) -> Path:
    if config.job == "export" and config.export.run:
        epoch = f"-epoch{config.export.epoch}" if config.export.epoch else ""
        return Path(config.export.run) / "export" / f"{config.export.format}{epoch}"
    return Path("runs") / name


def _resolve(argv: list[str]) -> tuple[list[str], Path, str]:
    """Finds the config file: as given, or among those that are installed with the package."""
    argv = list(argv)
    for i, arg in enumerate(argv):
        if arg == "--config" and i + 1 < len(argv):
            argv[i : i + 2] = [f"--config={argv[i + 1]}"]
            break
    where = [i for i, arg in enumerate(argv) if arg.startswith("--config=")]
    if len(where) != 1:
        raise UserError(f"give --config once.\n{USAGE}")
    text = argv[where[0]].removeprefix("--config=")
    name, _, preset = text.partition(":")
    path = Path(name)
    if not path.is_file():
        packaged = _packaged() / path.name
        if path.parent != Path("configs") or not packaged.is_file():
            known = ", ".join(f"configs/{p.name}" for p in sorted(_packaged().glob("[a-z]*.py")))
            raise UserError(f"{name}: no such config file. Installed are {known}.")
        argv[where[0]] = f"--config={packaged}" + (f":{preset}" if preset else "")
    return argv, path, preset


def _packaged() -> Path:
    """The configs of the installation: inside the package, or beside it in a checkout."""
    package = Path(str(importlib.resources.files("calib_jax")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _message(error: Exception, argv: list[str]) -> str:
    """What went wrong, without the traceback that ml_collections puts into its messages."""
    text = str(error)
    if isinstance(error, (KeyError, AttributeError)) and text[:1] in ("'", '"'):
        text = text.strip(text[0])
    lines = [line for line in text.replace("\\n", "\n").splitlines() if line]
    if "Traceback" in str(error):
        return lines[-1].removeprefix("calib_jax.errors.UserError: ")
    if len(lines) == 1 and (name := lines[0].strip("'\"")).isidentifier():
        # A section without a field of such a name, and without one of a similar name.
        where = _path_of(name, argv) or f"config has no field {name!r}"
        return f"{where}; all of them are in calib_jax/config.py"
    text = " ".join(line.strip() for line in lines).replace("\\'", "'")
    name, quote, guess = text.removeprefix("'").partition("' Did you mean ")
    if quote and (where := _path_of(name, argv)):
        return f"{where}. Did you mean {guess}"
    return "config: " + text


def _path_of(name: str, argv: list[str]) -> str:
    """Where the command line asks for a field that its section lacks; "" where that is not sure."""
    fields = [arg[2:].partition("=")[0].split(".") for arg in argv if arg.startswith("--config.")]
    paths = {".".join(f[1 : f.index(name, 1) + 1]) for f in fields if name in f[1:]}
    unknown = [path for path in paths if not _is_field(path)]
    return f"there is no field config.{unknown[0]}" if len(unknown) == 1 else ""


def _is_field(path: str) -> bool:
    section = base()
    for key in path.split("."):
        if not isinstance(section, ml_collections.ConfigDict) or key not in section:
            return False
        section = section[key]
    return True
