"""`python -m difmd.data FILE...` prints an examination; the exit code is 1 if an item is WRONG."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from difmd._internal.compilation_cache import enable_cache
from difmd.data import Verdict, examine, read
from difmd.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    """Examine the frames of all files together; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m difmd.data", description="Examine a data set.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="files or DeePMD folders, as one data set")
    parser.add_argument("--plot", metavar="PNG", help="also plot energies, forces, distances and volumes")
    parser.add_argument("--skip-bad", action="store_true", help="skip bad frames instead of stopping")
    options = parser.parse_args(arguments)
    enable_cache()
    console = Console()
    try:
        frames = [frame for file in options.files for frame in read(file, skip_bad=options.skip_bad)]
    except InputError as error:
        console.print(str(error), style="bold red", markup=False, highlight=False)
        return 1
    examination = examine(frames)
    console.print(examination.table())
    if options.plot:
        from difmd.plots import plot_data

        plot_data(frames, path=options.plot)
        console.print(f"plotted to {options.plot}", markup=False)
    return int(examination.verdict is Verdict.WRONG)


if __name__ == "__main__":
    sys.exit(main())
