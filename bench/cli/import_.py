"""Take a distilled set of others into the store, where it runs as the method external:NAME under the same protocols.

DIR is what bench export wrote (its digests are verified), or a folder of images for each class of a data set: folders
named by class ids, names or numbers, as many images in each, of the size at which the data set is used."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from bench.cli import options as flags
from bench.cli import screen

HELP = "take in a released distilled set, as method external:NAME"
EXAMPLES = """examples:
  python -m bench import rded-digits-10                                   what bench export wrote
  python -m bench import ~/released/ipc10 --dataset cifar10 --name theirs  folders of images by class
  python -m bench run --methods external:theirs --dataset cifar10 --ipc 10 --labels teacher,hard
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench import``."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the distilled set")
    parser.add_argument("--name", metavar="NAME", help="what to call it (default: as the folder)")
    parser.add_argument("--dataset", metavar="NAME", help="whose stand-in it is (default: as its manifest says)")
    flags.store_flag(parser)
    flags.data_root_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench import``."""
    from bench.exchange.importing import import_set
    from bench.store.artifacts import Store

    store = Store(arguments.store)
    taken = import_set(arguments.folder, store, arguments.name, arguments.dataset, arguments.data_root)
    known, out = taken.known, screen.console()
    if taken.already:
        out.print(f"external:{known.name} is there already, the same to the last bit")
    else:
        out.print(f"external:{known.name} is in {taken.folder}: {known.data.name}, IPC {known.ipc}", markup=False)
    if taken.left:
        out.print(taken.left, markup=False)
    dataset = arguments.dataset or known.data.name
    choices, protocol = "teacher,hard", "common"
    students = "0,1,2"
    if known.labels is not None:
        choices = "native,teacher,hard"
        if known.labels.schedule is not None:
            out.print(
                f"its own labels (native) belong to the views of protocol {known.labels.protocol}, student seed "
                f"{known.labels.student_seed}, alone",
                markup=False,
            )
            students, protocol = str(known.labels.student_seed), _as_asked(known.labels.protocol or protocol)
    words = [
        "--methods",
        f"external:{known.name}",
        "--dataset",
        dataset,
        "--ipc",
        str(known.ipc),
        "--protocol",
        protocol,
    ]
    words += ["--seeds", "0", "--student-seeds", students, "--labels", choices, "--store", str(arguments.store)]
    out.print(f"run it: python -m bench run {shlex.join(words)}", markup=False)
    return 0


def _as_asked(protocol: str) -> str:
    """What ``--protocol`` takes for a protocol of this name."""
    from bench.planning.protocols import all_protocols

    return protocol if protocol in all_protocols() else f"{protocol}.toml"
