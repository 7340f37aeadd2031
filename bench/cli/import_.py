"""Import a released distilled set into the store, where it runs as the method external:NAME under the same protocols.

FOLDER is what bench export wrote (its digests are verified), or folders of images for each class of a data set:
named by class ids, names or numbers, as many images in each, of the size at which the data set is used. With --labels
come the label files of SRe2L, G_VBSM, LPLD, LPQLD or HALD (epoch_E/batch_B.tar): students see the published views.
"""

from __future__ import annotations

import argparse
import shlex

from bench.cli import screen
from bench.cli.options import DATA_ROOT, STORE
from bench.exchange.distilled_set import importer
from bench.planning.protocols import all_protocols
from bench.store.artifacts import Store

ARGUMENTS = f"""
FOLDER  the distilled set
--name NAME  its name (default: that of the folder)
--dataset NAME  the data set it stands for (default: as its manifest says)
--allow-overlap  take a set with test images among its own
--labels DIR  label files that others published with the images
--label-order FILE|SEED  JSON list of the images of each label epoch, or the seed of SRe2L's sampler (42); where the
  label files list none
{STORE}
{DATA_ROOT}
"""
EXAMPLES = """examples:
  python -m bench import rded-digits-10                                   what bench export wrote
  python -m bench import ~/released/ipc10 --dataset cifar10 --name theirs  folders of images by class
  python -m bench import ipc10 --dataset imagenet-1k --labels FKD_ipc10 --label-order 42    with SRe2L's label files
  python -m bench run --methods external:theirs --dataset cifar10 --ipc 10 --labels teacher,hard
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench import``."""
    from bench.exchange.importing import import_set  # imports torch

    known, folder, already, left = import_set(
        arguments.folder, Store(arguments.store), arguments.name, arguments.dataset, arguments.data_root,
        arguments.allow_overlap, arguments.labels, arguments.label_order,
    )  # fmt: skip
    method, labels, out = f"{importer()}:{known.name}", known.labels, screen.console()
    there = "is there already, the same to the last bit"
    made = f"is in {folder}: {known.data.name}, IPC {known.ipc}"
    out.print(f"{method} {there if already else made}", markup=False)
    if left:
        out.print(left, markup=False)
    choices, protocol, students = "teacher,hard" if labels is None else "native,teacher,hard", "common", "0,1,2"
    size: list[str] = []
    if labels is not None and labels.schedule is not None and labels.student_seed is None:
        size = ["--set", f"protocol.batch_size={labels.schedule['batch_size']}"]
    elif labels is not None and labels.schedule is not None:
        protocol, students = labels.protocol or protocol, str(labels.student_seed)
        views = f"the views of protocol {protocol}, student seed {students}, alone"
        out.print(f"its own labels (native) belong to {views}", markup=False)
        protocol = protocol if protocol in all_protocols() else f"{protocol}.toml"
    words = [
        "--methods", method, "--dataset", arguments.dataset or known.data.name, "--ipc", str(known.ipc), "--protocol",
        protocol, "--seeds", "0", "--student-seeds", students, "--labels", choices, "--store", str(arguments.store),
        *size,
    ]  # fmt: skip
    out.print(f"run it: python -m bench run {shlex.join(words)}", markup=False)
    return 0
