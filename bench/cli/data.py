"""Describe a data set: where it is, how many images it has, its class order; or say where to get it and put it.

With ``--pack`` its images are written as squares of one size first, which are mapped into memory instead of decoded.
"""

from __future__ import annotations

import argparse

from bench.cli import screen
from bench.cli.options import DATA_ROOT

ARGUMENTS = f"""
NAME  a data set of bench list datasets, or folder:PATH
--pack N  write its images as squares of N pixels first, which read faster: another data set
{DATA_ROOT}
"""
EXAMPLES = """examples:
  python -m bench data digits
  python -m bench data imagenet-1k --data-root /data
  python -m bench data folder:/data/pets
  python -m bench data imagenet-1k --pack 256
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench data``; return 1 when the data set is not there, or leaks."""
    from bench.execution.datasets import describe, pack

    out, name = screen.console(), arguments.name
    if arguments.pack is not None:
        with screen.progress_bar(out, f"packing {name}") as progress:
            name = f"folder:{pack(name, arguments.data_root, arguments.pack, progress)}"
        out.print(f"packed        --dataset {name}", markup=False)
    described = describe(name, arguments.data_root)
    for key, text in described.items():
        out.print(f"{key:<14}{text}", markup=False)
    return 1 if "problem" in described else 0
