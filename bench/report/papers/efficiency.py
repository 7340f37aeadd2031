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
    frame = _with_costs(frame)
    first, on_cpu = frame.iloc[0], not any("accelerator" in one for one in frame["environment"])
    blocks = [f"# {escape(title(first['title'], first['suite']))}: {escape(first['device'])}"]
    blocks.append(ON_CPU * on_cpu + " · ".join(facts_text(frame)))
    for (common, ipc, student, protocol), table in frame.groupby(["common", "ipc", "student", "table_protocol"]):
        what = f"all under {escape(protocol)}" if common else "each method under its authors' recipe"
        blocks.append(f"## IPC {ipc}, {escape(plain(student))}: {what}")
        blocks.append(markdown_table(_lines(table), ("Method", "Labels"), RARE))
    return "\n\n".join([*blocks, "## How to read the tables", NOTES]) + "\n"


def render_csv(frame: pd.DataFrame) -> str:
    """One line per student."""
    return csv_text(CSV, [tuple(getattr(one, name) for name in CSV) for one in records(_with_costs(frame))])


def _with_costs(frame: pd.DataFrame) -> pd.DataFrame:
    official = frame["protocol"].map(lambda one: unchanged(one).startswith(OFFICIAL)).astype(bool)
    return frame.join(pd.DataFrame(frame["cost"].tolist(), index=frame.index)).assign(
        threads=[one.get("threads") for one in frame["environment"]],
        common=~official,
        table_protocol=frame["protocol"].mask(official, ""),  # each method's own recipe is one table
    )


def _lines(table: pd.DataFrame) -> list[dict[str, str]]:
    """Students of each method, labels and protocol together."""
    lines = table.groupby(["base", "method", "labels", "protocol"], sort=True).agg(
        batch=("batch_size", "first"), seconds=("seconds_per_iteration", "median"),
        milliseconds=("milliseconds_per_image", "median"), fastest=("fastest", "min"), slowest=("slowest", "max"),
        bare=("times_bare", "median"), accelerator=("accelerator_bytes", "max"), host=("host_bytes", "max"),
        asked=("asked", "first"), n=("cell", "size"),
    ).reset_index()  # fmt: skip
    stated = {name: registry.method(name).info.student_cost for name in registry.method_names()}
    own = lines["protocol"].str.startswith(OFFICIAL) & (lines["asked"] == "native")
    lines["printed"] = [stated.get(base) if usual else None for base, usual in zip(lines["base"], own, strict=True)]
    found = records(lines)
    reference = next((line for line in found if line.printed and line.printed.reference), None)
    return [_cells(line, reference) for line in found]


def _cells(line: Any, reference: Any) -> dict[str, str]:
    printed, over = line.printed, NONE
    if printed and reference and line is not reference:
        low, high = line.fastest / reference.slowest, line.slowest / reference.fastest
        theirs = printed.milliseconds_per_image / reference.printed.milliseconds_per_image
        over = f"{line.milliseconds / reference.milliseconds:.2f} ({low:.2f}–{high:.2f}) : {theirs:.2f}"
    said = f"{printed.seconds:.3g} at {printed.batch_size:,}, {printed.milliseconds_per_image:.3g}" if printed else NONE
    return {
        "Method": escape(line.method),
        "Labels": escape(line.labels),
        "Batch": f"{line.batch:,}",
        "s / iteration": f"{line.seconds:.3g}",
        "ms / image": f"{line.milliseconds:.3g} ({line.fastest:.3g}–{line.slowest:.3g})",
        "× bare": f"{line.bare:.2f}",
        "Accelerator": NONE if line.accelerator is None else size(int(line.accelerator)),
        "Host": size(line.host),
        "n": str(line.n),
        "Printed": said,
        "Printed memory": f"{printed.mebibytes:,} MiB" if printed else NONE,
        "Over HeLlO": over,
    }
