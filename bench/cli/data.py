"""Describe a data set: where it is, how many images it has, its class order; or say where to get it and put it.

With ``--source`` a data set that can be built is built first: icons-100, from the npm package @iconify/json.
"""

from __future__ import annotations

import argparse

from bench.cli import screen
from bench.cli.options import DATA_ROOT

ARGUMENTS = f"""
NAME  a data set of bench list datasets, or folder:PATH
--source PATH  build the data set from this package first, a folder or .tgz
{DATA_ROOT}
"""
EXAMPLES = """examples:
  python -m bench data digits
  python -m bench data imagenet-1k --data-root /data
  python -m bench data folder:/data/pets
  npm pack @iconify/json && python -m bench data icons-100 --source iconify-json-*.tgz
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench data``; return 1 when the data set is not there, or leaks."""
    from bench.api import catalogue
    from bench.execution.datasets import describe

    out = screen.console()
    if arguments.source is not None:
        plugin = catalogue.plugin(arguments.name)
        with screen.progress_bar(out, f"building {arguments.name}") as progress:
            plugin.build(arguments.source, plugin.root(arguments.data_root), progress)
    described = describe(arguments.name, arguments.data_root)
    for name, text in described.items():
        out.print(f"{name:<14}{text}", markup=False)
    return 1 if "problem" in described else 0
