"""Write a distilled set as a folder that can be published.

It holds images by class, labels as safetensors, a data set card for the Hugging Face Hub and a manifest with the
SHA-256 of every file. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import shlex

from bench.cli import screen
from bench.cli.options import DATA_ROOT, STORE, existing_store, read_record
from bench.format import plural, size

ARGUMENTS = f"""
CELL  the id of a distill or evaluate cell, or its beginning
--to DIR!  a new or empty folder
{STORE}
{DATA_ROOT}
"""
EXAMPLES = """examples:
  python -m bench export rded-digits-ipc10-s0 --to rded-digits-10       the images of a distill cell
  python -m bench export sre2l-stored-fp16-digits-ipc10 --to sre2l-10   of an evaluate cell, with the labels it used
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench export``."""
    store = existing_store(arguments.store)
    record = read_record(store, arguments.cell)
    from bench.exchange.exporting import export  # imports torch: a cell that isn't there is said before

    facts, note = export(store, record, arguments.to, arguments.data_root)
    out, images = screen.console(), plural(facts.ipc * len(facts.classes), "image")
    weight = size(sum(one.bytes for one in facts.files.values()))
    out.print(f"exported {images} to {arguments.to}, {weight} in all", markup=False)
    if note:
        out.print(note, markup=False)
    upload = f"huggingface-cli upload USER/{shlex.quote(arguments.to.name)} {shlex.quote(str(arguments.to))} ."
    out.print(f"state a licence in its README.md; then, to publish it:\n  {upload} --repo-type dataset", markup=False)
    return 0
