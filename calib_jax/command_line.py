"""The command line: which config file and preset, which fields are overridden, which folder."""

import importlib.resources
from pathlib import Path

import ml_collections
from absl import flags
from ml_collections import config_flags

from calib_jax.characters import check_folder
from calib_jax.config import FIELDS, check_config, page, paths, unknown
from calib_jax.errors import UserError

USAGE = """\
python -m calib_jax.main --config=CONFIG[:PRESET] [--workdir=FOLDER] [--config.FIELD=VALUE ...]

  --config         a config file and one of its presets, for example configs/cft.py:debug
  --workdir        where the run lives; runs/<config>[-<preset>] by default. The same command on an
                   interrupted run continues it, and on a finished one prints its table. Of the job
                   "export": where the files go; <the run>/export/<format>[-epoch<n>] by default.
  --config.FIELD   any field of the config, for example --config.train.learning_rate=1e-5
  --help=SECTION   the fields of a section, such as train; --help=all: every field

"""


def parse(argv: list[str]) -> tuple[ml_collections.ConfigDict | None, Path]:
    """The config with its overrides, and the run's folder; None as the config after ``--help``.

    Raises:
      UserError: everything that is wrong with the config's file, flags and fields, in one message;
        or a folder that cannot be made.
    """
    for arg in argv[1:]:
        flag, _, what = arg.partition("=")
        if flag in ("--help", "-h", "--helpshort"):
            print(USAGE + page.as_text(what), end="")
            return None, Path()
    argv, path, preset = _resolve(argv)
    argv, errors = _check_overrides(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "config file", flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string("workdir", None, "the run's folder", flag_values=values)
    try:
        rest = values(argv)
        config = values.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError("\n".join((*errors, _message(error)))) from None
    if len(rest) > 1:
        errors.append(f"unexpected argument {rest[1]!r}; fields are set with --config.FIELD=VALUE.")
    overrides = config_flags.get_override_values(values["config"])
    # A config file's own fields count where the file is of this job: --config.job=evaluate may be
    # given to a config of training.
    written = () if "job" in overrides else [p for p in paths(config) if p not in overrides]
    check_config(config, overrides, written, errors)
    name = path.stem + (f"-{preset}" if preset else "")
    workdir = Path(values.workdir or _default_workdir(config, name))
    check_folder(workdir, "--workdir")
    return config, workdir


def _check_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without those that set no field or no value of it, and messages for these."""
    left, errors = [], []
    for arg in argv:
        flag, equals, text = arg.partition("=")
        path = flag.removeprefix("--config.").removeprefix("--noconfig.")
        if path == flag or path.startswith("plan.dimensions."):
            left.append(arg)
        elif path not in FIELDS:
            errors.append(unknown(path))
        else:
            try:
                if equals:
                    FIELDS[path].parse(text)
                left.append(arg)
            except ValueError:
                errors.append(f"config.{path} is {text!r}; expected {FIELDS[path].kind}.")
    return left, errors


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


def _message(error: Exception) -> str:
    """What went wrong, without the traceback that ml_collections puts into its messages."""
    text = str(error)
    if isinstance(error, (KeyError, AttributeError)) and text[:1] in ("'", '"'):
        text = text.strip(text[0])
    lines = [line for line in text.replace("\\n", "\n").splitlines() if line]
    if "Traceback" in str(error):
        return lines[-1].removeprefix("calib_jax.errors.UserError: ")
    return "config: " + " ".join(line.strip() for line in lines).replace("\\'", "'")
