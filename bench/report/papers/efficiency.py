"""Costs of training a student, a board of its own for every data set and device: accuracy is not measured there.

Beside each method under its own recipe stand the numbers of HeLlO's Table 6.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.api import registry
from bench.format import NONE, csv_text, escape, markdown_table, plain, size
from bench.planning.protocols import OFFICIAL, unchanged
from bench.report.board import facts_text
from bench.report.papers.trends import title
from bench.report.rows import records

RARE = ("Accelerator", "Over HeLlO", "Printed", "Printed memory")
CSV = ["dataset", "device", "threads", "protocol", "ipc", "student", "method", "labels", "seed", "student_seed",
       "batch_size", "iterations", "seconds_per_iteration", "milliseconds_per_image", "fastest", "slowest",
       "times_bare", "accelerator_bytes", "host_bytes", "label_bytes"]  # fmt: skip
POOLED = {"batch_size": "first", "seconds_per_iteration": "median", "milliseconds_per_image": "median",
          "fastest": "min", "slowest": "max", "times_bare": "median", "accelerator_bytes": "max", "host_bytes": "max",
          "asked": "first", "cell": "size"}  # fmt: skip
NOTES = """\
- **s / iteration**: median over the timed blocks of iterations, and then over n students.
- **ms / image**: the same by the images shown; in parentheses the fastest and the slowest block. Methods can be
  compared by it, not by iterations of unequal batches.
- **× bare**: times a loop with the same student, optimizer and batch size, but one batch that stays on the device and
  hard labels.
- **Accelerator**: the most bytes of tensors at a time, as torch counts them. **Host**: the most that was resident.
- **Printed**: s / iteration, batch and ms / image in HeLlO (arXiv 2408.08201), supplement Table 6: ResNet-18 on
  ImageNet-1K at IPC 10, one A5000.
- **Over HeLlO**: ms / image over that of HeLlO, measured : printed; in parentheses a method's fastest block over
  HeLlO's slowest, and the other way round. Nothing is claimed where 1 lies within."""
ON_CPU = "Measured on a CPU: no accelerator was available, and what costs most there may cost least here.\n\n"


def render(frame: pd.DataFrame) -> str:
    """Markdown board of the records of one data set and device."""
    first, on_cpu = frame.iloc[0], not any("accelerator" in one for one in frame["environment"])
    blocks = [f"# {escape(title(first['title'], first['suite']))}: {escape(first['device'])}"]
    blocks.append(ON_CPU * on_cpu + " · ".join(facts_text(frame)))
    official = frame["protocol"].map(lambda one: unchanged(one).startswith(OFFICIAL)).astype(bool)
    # each method's own recipe is one table
    groups = [~official, frame["ipc"], frame["student"], frame["protocol"].mask(official, "")]
    for (common, ipc, student, protocol), table in _with_costs(frame).groupby(groups):
        what = f"all under {escape(protocol)}" if common else "each method under its authors' recipe"
        lines = table.groupby(["base", "method", "labels", "protocol"]).agg(POOLED).reset_index()
        stated = {name: registry.method(name).info.student_cost for name in registry.method_names()}
        lines["printed"] = [None if common or one.asked != "native" else stated.get(one.base) for one in records(lines)]
        found = records(lines)
        reference = next((line for line in found if line.printed and line.printed.reference), None)
        blocks.append(f"## IPC {ipc}, {escape(plain(student))}: {what}")
        blocks.append(markdown_table([_cells(line, reference) for line in found], ("Method", "Labels"), RARE))
    return "\n\n".join([*blocks, "## How to read the tables", NOTES]) + "\n"


def render_csv(frame: pd.DataFrame) -> str:
    """One line per student."""
    return csv_text(CSV, [one[1:] for one in records(_with_costs(frame)[CSV])])


def _with_costs(frame: pd.DataFrame) -> pd.DataFrame:
    threads = [one.get("threads") for one in frame["environment"]]
    return frame.join(pd.DataFrame(frame["cost"].tolist(), index=frame.index)).assign(threads=threads)


def _cells(line: Any, reference: Any) -> dict[str, str]:
    printed, over = line.printed, NONE
    if printed and reference and line is not reference:
        low, high = line.fastest / reference.slowest, line.slowest / reference.fastest
        here = line.milliseconds_per_image / reference.milliseconds_per_image
        theirs = printed.milliseconds_per_image / reference.printed.milliseconds_per_image
        over = f"{here:.2f} ({low:.2f}–{high:.2f}) : {theirs:.2f}"
    said = f"{printed.seconds:.3g} at {printed.batch_size:,}, {printed.milliseconds_per_image:.3g}" if printed else NONE
    return {
        "Method": escape(line.method),
        "Labels": escape(line.labels),
        "Batch": f"{line.batch_size:,}",
        "s / iteration": f"{line.seconds_per_iteration:.3g}",
        "ms / image": f"{line.milliseconds_per_image:.3g} ({line.fastest:.3g}–{line.slowest:.3g})",
        "× bare": f"{line.times_bare:.2f}",
        "Accelerator": size(line.accelerator_bytes and int(line.accelerator_bytes)),
        "Host": size(line.host_bytes),
        "n": str(line.cell),
        "Printed": said,
        "Printed memory": f"{printed.mebibytes:,} MiB" if printed else NONE,
        "Over HeLlO": over,
    }
