"""Costs of training a student, a board of its own for every data set and device: accuracy is not measured there.

Beside each method under its own recipe stand the numbers of HeLlO's Table 6, with a word on which can be compared.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from bench.api import registry
from bench.format import NONE, csv_text, escape, markdown_table, plain, size, slug
from bench.planning.protocols import OFFICIAL, unchanged
from bench.report.board import facts_text
from bench.report.papers.trends import title
from bench.report.rows import records

METRIC = "cost"  # of the evaluator whose records these are
LEFT = ("Method", "Labels", "What they report", "Direction")
RARE = ("Accelerator", "Printed s / iteration", "Printed ms / image", "Printed memory")
CSV = ["dataset", "device", "threads", "protocol", "ipc", "student", "method", "labels", "seed", "student_seed",
       "batch_size", "iterations", "seconds_per_iteration", "milliseconds_per_image", "fastest", "slowest",
       "times_bare", "accelerator_bytes", "host_bytes", "label_bytes"]  # fmt: skip
NOTES = """\
- **s / iteration**: median over the timed blocks of iterations, and then over n students. The device is waited for
  between blocks alone.
- **ms / image**: the same by the images shown; in parentheses the fastest and the slowest block. Methods can be
  compared by it, not by iterations of unequal batches.
- **× bare**: times a loop with the same student, optimizer and batch size, but one batch that stays on the device and
  hard labels.
- **Accelerator**: the most bytes of tensors at a time, images and label model included, as torch counts them. **Host**:
  the most that was resident of the process.
- **Printed**: HeLlO (arXiv 2408.08201), supplement Table 6: ResNet-18 on ImageNet-1K at IPC 10, one A5000."""
COMPARABLE = """\
**Printed** and **Measured**: a method over HeLlO; in parentheses its fastest block over HeLlO's slowest, and the other
way round. **Direction**: whether both are on the same side of 1; *not claimed* where 1 lies within the parentheses. An
iteration of 1,024 images over one of 100 says little of the methods; an image does."""
ON_CPU = "Measured on a CPU: no accelerator was available, and what costs most there may cost least here."


def boards(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """File name without ending → the records done, by data set and device; others know no device."""
    done = frame[(frame["metric"] == METRIC) & (frame["state"] == "done")]
    return {
        f"{slug(str(dataset))}.{re.sub(r'[^a-z0-9]+', '-', str(device or 'unknown device').lower()).strip('-')}": own
        for (dataset, device), own in done.groupby(["dataset", "device"], sort=True)
    }


def render(frame: pd.DataFrame) -> str:
    """Markdown board of the records of one data set and device."""
    frame = _with_costs(frame)
    first = frame.iloc[0]
    blocks = [f"# {escape(title(first['title'], first['suite']))}: {escape(first['device'])}", _head(frame)]
    for (common, ipc, student, protocol), table in frame.groupby(["common", "ipc", "student", "table_protocol"]):
        lines = _lines(table)
        what = f"all under {escape(protocol)}" if common else "each method under its authors' recipe"
        blocks.append(f"## IPC {ipc}, {escape(plain(student))}: {what}")
        blocks.append(markdown_table([_cells(line) for line in lines], LEFT, RARE))
        if beside := _beside(lines):
            blocks += [markdown_table(beside, LEFT), COMPARABLE]
    return "\n\n".join([*blocks, "## How to read the tables", NOTES]) + "\n"


def render_csv(frame: pd.DataFrame) -> str:
    """One line per student."""
    return csv_text(CSV, [tuple(getattr(one, name) for name in CSV) for one in records(_with_costs(frame))])


def _with_costs(frame: pd.DataFrame) -> pd.DataFrame:
    found = pd.DataFrame(frame["cost"].tolist(), index=frame.index)
    frame = frame.join(found)
    official = frame["protocol"].map(lambda one: unchanged(one).startswith(OFFICIAL)).astype(bool)
    return frame.assign(
        threads=[one.get("threads") for one in frame["environment"]],
        common=~official,
        table_protocol=frame["protocol"].mask(official, ""),  # each method's own recipe is one table
    )


def _head(frame: pd.DataFrame) -> str:
    words = " · ".join(facts_text(frame))
    return words if any("accelerator" in one for one in frame["environment"]) else f"{ON_CPU}\n\n{words}"


def _lines(table: pd.DataFrame) -> list[Any]:
    """Students of each method, labels and protocol together."""
    groups = table.groupby(["base", "method", "labels", "protocol"], sort=True)
    lines = groups.agg(
        batch=("batch_size", "first"), seconds=("seconds_per_iteration", "median"),
        milliseconds=("milliseconds_per_image", "median"), fastest=("fastest", "min"), slowest=("slowest", "max"),
        bare=("times_bare", "median"), accelerator=("accelerator_bytes", "max"), host=("host_bytes", "max"),
        asked=("asked", "first"), n=("cell", "size"),
    )  # fmt: skip
    printed = {name: registry.method(name).info.student_cost for name in registry.method_names()}
    lines = lines.reset_index()
    own = lines["protocol"].str.startswith(OFFICIAL) & (lines["asked"] == "native")
    lines["printed"] = [printed.get(base) if usual else None for base, usual in zip(lines["base"], own, strict=True)]
    return records(lines)


def _cells(line: Any) -> dict[str, str]:
    printed = line.printed
    return {
        "Method": escape(line.base),
        "Labels": escape(line.labels),
        "Batch": f"{line.batch:,}",
        "s / iteration": f"{line.seconds:.3g}",
        "ms / image": f"{line.milliseconds:.3g} ({line.fastest:.3g}–{line.slowest:.3g})",
        "× bare": f"{line.bare:.2f}",
        "Accelerator": NONE if line.accelerator is None else size(int(line.accelerator)),
        "Host": size(line.host),
        "n": str(line.n),
        "Printed s / iteration": f"{printed.seconds:.3g} at {printed.batch_size:,}" if printed else NONE,
        "Printed ms / image": f"{printed.milliseconds_per_image:.3g}" if printed else NONE,
        "Printed memory": f"{printed.mebibytes:,} MiB" if printed else NONE,
    }


def _beside(lines: list[Any]) -> list[dict[str, str]]:
    """Every other method with printed numbers over HeLlO: an iteration, and an image."""
    known = {line.base: line for line in lines if line.printed}
    if (against := next((base for base, line in known.items() if line.printed.reference), None)) is None:
        return []
    hello = known.pop(against)
    return [
        _ratio(f"{what} of {line.base} over {against}'s", line, hello, by_image)
        for by_image, what in ((False, "an iteration"), (True, "an image"))
        for line in known.values()
    ]


def _ratio(what: str, line: Any, hello: Any, by_image: bool) -> dict[str, str]:
    printed = line.printed.milliseconds_per_image / hello.printed.milliseconds_per_image
    measured, images = line.milliseconds / hello.milliseconds, 1.0
    if not by_image:  # so many times the images of an iteration of HeLlO's
        printed = line.printed.seconds / hello.printed.seconds
        images = line.seconds / hello.seconds / measured
    low, high = images * line.fastest / hello.slowest, images * line.slowest / hello.fastest
    direction = "not claimed" if low <= 1 <= high else "same" if (low > 1) == (printed > 1) else "other"
    return {
        "What they report": escape(what),
        "Printed": f"× {printed:.2f}",
        "Measured": f"× {images * measured:.2f} ({low:.2f}–{high:.2f})",
        "n": f"{line.n}, {hello.n}",
        "Direction": direction,
    }
