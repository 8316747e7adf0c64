"""Several runs side by side: ``python -m calib_jax.reports [--markdown|--csv|--latex] RUN ...``.

--markdown prints the headline table for a README; --csv and --latex print a row per method (the
layout of Table 2 of Xiao et al. 2025).
"""

import sys
from pathlib import Path

from calib_jax.characters import prepare_console
from calib_jax.errors import UserError
from calib_jax.reports import console, result, tables
from calib_jax.reports import states as of
from calib_jax.reports.views import Text, measurement, methods, splits

FORMATS = ("--markdown", "--csv", "--latex")


def main(argv: list[str]) -> int:
    """Prints one table of what the runs started from and what each came to; by folder name."""
    flags = [arg for arg in argv if arg.startswith("--")]
    folders = [Path(arg) for arg in argv if not arg.startswith("--")]
    try:
        if unknown := [flag for flag in flags if flag not in FORMATS]:
            raise UserError(f"{unknown[0]}: choose from: {', '.join(FORMATS)}")
        if len(flags) > 1:
            raise UserError(f"choose one of {', '.join(flags)}")
        if not folders:
            raise UserError("name the folders of finished runs, for example runs/sft runs/cft")
        summaries = {folder.name: result.read(folder / "summary.json") for folder in folders}
        if len(summaries) < len(folders):
            raise UserError("two of the folders have the same name; columns are named by folder")
        states = of.side_by_side(summaries)
        found = splits.results(states)
        if flags == ["--markdown"]:
            print(tables.markdown(found, splits.caption(False)))
        elif flags:
            for one in summaries.values():
                for name, rows in methods.with_calibrators(one).items():
                    if name.endswith(methods.POST_HOC):
                        states.setdefault(name, rows)
            # Of several runs no resamples are at hand, and nothing is bold.
            (first, *others) = summaries.values()
            table = methods.methods(states, None if others else measurement.sets(first, "methods"))
            as_text = {"--csv": methods.methods_csv, "--latex": lambda one: tables.latex([one])}
            print(as_text[flags[0]](table), end="")
        else:
            console.show([*found, Text(splits.caption(False), "note")])
    except UserError as error:
        print(f"calib_jax: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    prepare_console()
    sys.exit(main(sys.argv[1:]))
