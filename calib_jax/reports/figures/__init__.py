"""Every figure, drawn once: inline in the page, and as PNG and SVG files.

matplotlib comes in by this package alone, whatever the environment has in store for it; `canvas`
hands its parts on.
"""

import contextlib
import importlib
import logging
import os
import sys
import tempfile


def _import_matplotlib() -> None:
    """matplotlib: as the environment has it, or without it where that makes no import."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of a cache that cannot be written, of values in a matplotlibrc
    try:
        importlib.import_module("matplotlib.font_manager")
    except Exception:  # a backend that is not there, a matplotlibrc that cannot be read
        for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
            del sys.modules[name]
        kept = os.environ.copy()
        with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
            try:
                os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
                importlib.import_module("matplotlib.font_manager")
            finally:
                for name in ("MPLBACKEND", "MATPLOTLIBRC"):
                    os.environ.pop(name)
                    if name in kept:
                        os.environ[name] = kept[name]
    finally:
        logger.setLevel(level)


_import_matplotlib()
