"""Several runs side by side: ``python -m calib_jax.reports [--markdown] RUN [RUN ...]``."""

import sys
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.reports import summary, table


def main(argv: list[str]) -> int:
    """Prints one table of what the runs started from and what each came to; by folder name."""
    folders = [Path(arg) for arg in argv if arg != "--markdown"]
    try:
        if not folders:
            raise UserError("name the folders of finished runs, for example runs/sft runs/cft")
        summaries = {folder.name: summary.read(folder / "summary.json") for folder in folders}
        if len(summaries) < len(folders):
            raise UserError("two of the folders have the same name; columns are named by folder")
        if "--markdown" in argv:
            print(table.markdown_compare(summaries))
        else:
            table.compare(summaries)
    except UserError as error:
        print(f"calib_jax: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
