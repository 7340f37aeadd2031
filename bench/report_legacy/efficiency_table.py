"""What training a student costs, as a board of its own: one for every data set and device, ``<dataset>.<device>.md``,
with the CSV and the entries from which both are made again. Accuracy is not measured there.

Beside each method's own batch stand the numbers of HeLlO's Table 6, with a word on which of them can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import median

from bench.api import StudentCost as Student
from bench.api import registry
from bench.planning.protocols import OFFICIAL, unchanged
from bench.report_legacy import wording
from bench.report_legacy.csv_text import csv_text
from bench.report_legacy.entries import Cost, Entry, LeftOut, environment, in_order, render_jsonl
from bench.report_legacy.pipe_table import render_table, used
from bench.report_legacy.stems import file_stem
from bench.report_legacy.trends import titled
from bench.report_legacy.wording import NONE, escape, plain

METRIC = "cost"  # of the evaluator whose entries these are
AGAINST = "hello"  # the method that the others are held against

COLUMNS = {
    "Method": "left",
    "Labels": "left",
    "Batch": "right",
    "s / iteration": "right",
    "ms / image": "right",
    "× bare": "right",
    "Accelerator": "right",
    "Host": "right",
    "n": "right",
    "Printed s / iteration": "right",
    "Printed ms / image": "right",
    "Printed memory": "right",
}
RARE = ("Accelerator", "Printed s / iteration", "Printed ms / image", "Printed memory")
BESIDE = {
    "What they report": "left",
    "Printed": "right",
    "Measured": "right",
    "n": "right",
    "Direction": "left",
}
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
way round. **Direction**: is it on the same side of 1? *Can't tell* where 1 lies within the parentheses. An iteration of
1,024 images over one of 100 says little of the methods; an image does."""
SMALL = "Measured on a processor: no accelerator was at hand, and what costs there most may cost least here."


@dataclass(frozen=True)
class Line:
    """The students of one (method, labels) under one protocol."""

    entries: tuple[Entry, ...]

    @property
    def method(self) -> str:
        """Without the settings that only make what comes before brief."""
        return self.entries[0].base

    @cached_property
    def costs(self) -> list[Cost]:
        return [entry.cost for entry in self.entries if entry.cost is not None]

    @property
    def seconds(self) -> float:
        """Of an iteration."""
        return median(cost.seconds_per_iteration for cost in self.costs)

    @property
    def milliseconds(self) -> float:
        """Of an image."""
        return median(cost.milliseconds_per_image for cost in self.costs)

    @property
    def extremes(self) -> tuple[float, float]:
        """Milliseconds of an image in the fastest and in the slowest block."""
        return min(cost.fastest for cost in self.costs), max(cost.slowest for cost in self.costs)

    @property
    def printed(self) -> Student | None:
        """What is printed of the method, where it is its own authors' recipe and its own labels."""
        if not self.entries[0].protocol.startswith(OFFICIAL) or self.entries[0].asked != "native":
            return None
        return registry.method(self.method).info.student_cost if self.method in registry.method_names() else None


def is_cost(entry: Entry) -> bool:
    """Does an entry belong here, and on no other board?"""
    return entry.metric == METRIC


def render(
    entries: Iterable[Entry], left_out: Mapping[str, Sequence[LeftOut]] | None = None, suite: str = ""
) -> dict[str, str]:
    """File name → text, for every data set and device; of the entries that are done, because others know no device.

    Args:
        left_out: by the stem of the file, lines of it that could not be read.
    """
    done = sorted((entry for entry in in_order(entries) if is_cost(entry) and entry.cost is not None), key=stem)
    files = {}
    for name, group in groupby(done, key=stem):
        own = in_order(group)
        files[f"{name}.md"] = _markdown(own, suite)
        files[f"{name}.csv"] = _csv(own)
        files[f"{name}.records.jsonl"] = render_jsonl(own, (left_out or {}).get(name, ()))
    return files


def stem(entry: Entry) -> str:
    """The name of the files an entry stands in: data set and device, ``made-up.nvidia-h200``."""
    device = re.sub(r"[^a-z0-9]+", "-", device_of(entry).lower()).strip("-")
    return f"{file_stem(entry.dataset)}.{device}"


def device_of(entry: Entry) -> str:
    """The accelerator, or else the processor."""
    return entry.environment.get("accelerator") or entry.environment.get("cpu") or "unknown device"


def _markdown(entries: Sequence[Entry], suite: str) -> str:
    first = entries[0]
    blocks = [f"# {escape(titled(first.title, suite))}: {escape(device_of(first))}", _head(entries)]
    for (own, ipc, student, protocol), group in groupby(sorted(entries, key=_table), key=_table):
        lines = _lines(group)
        what = "each method under its authors' recipe" if own == 0 else f"all under {escape(protocol)}"
        blocks.append(f"## IPC {ipc or 'of full data'}, {escape(plain(student))}: {what}")
        cells = [_cells(line) for line in lines]
        blocks.append(render_table(used(COLUMNS, RARE, cells, NONE), cells))
        if beside := _beside(lines):
            blocks += [render_table(BESIDE, beside), COMPARABLE]
    return "\n\n".join([*blocks, "## How to read the tables", NOTES]) + "\n"


def _table(entry: Entry) -> tuple[int, int, str, str]:
    """What the entries of one table agree in; each method's own recipe is one table."""
    name = unchanged(entry.protocol)
    own = name.startswith(OFFICIAL)
    return int(not own), entry.ipc or 0, entry.student, "" if own else entry.protocol


def _lines(entries: Iterable[Entry]) -> list[Line]:
    def key(entry: Entry) -> tuple[str, str, str]:
        return entry.method, entry.labels, entry.protocol

    return [Line(tuple(group)) for _, group in groupby(sorted(entries, key=key), key=key)]


def _head(entries: Sequence[Entry]) -> str:
    facts = environment(entries)
    words = " · ".join(f"{escape(name)} {escape(values)}" for name, values in facts.items())
    return words if "accelerator" in facts else f"{SMALL}\n\n{words}"


def _cells(line: Line) -> dict[str, str]:
    low, high = line.extremes
    accelerator = [cost.accelerator_bytes for cost in line.costs if cost.accelerator_bytes is not None]
    printed = line.printed
    return {
        "Method": escape(line.method),
        "Labels": escape(line.entries[0].labels),
        "Batch": f"{line.costs[0].batch_size:,}",
        "s / iteration": f"{line.seconds:.3g}",
        "ms / image": f"{line.milliseconds:.3g} ({low:.3g}–{high:.3g})",
        "× bare": f"{median(cost.times_bare for cost in line.costs):.2f}",
        "Accelerator": wording.size(max(accelerator)) if accelerator else NONE,
        "Host": wording.size(max(cost.host_bytes for cost in line.costs)),
        "n": str(len(line.costs)),
        "Printed s / iteration": f"{printed.seconds:.3g} at {printed.batch_size:,}" if printed else NONE,
        "Printed ms / image": f"{printed.milliseconds_per_image:.3g}" if printed else NONE,
        "Printed memory": f"{printed.mebibytes:,} MiB" if printed else NONE,
    }


def _beside(lines: Sequence[Line]) -> list[dict[str, str]]:
    """Every other method with printed numbers over HeLlO: an iteration, and an image."""
    known = {line.method: line for line in lines if line.printed}
    if AGAINST not in known:
        return []
    hello = known.pop(AGAINST)
    return [
        _ratio(f"{what} of {line.method} over {AGAINST}'s", line, hello, by_image)
        for by_image, what in ((False, "an iteration"), (True, "an image"))
        for line in known.values()
    ]


def _ratio(what: str, line: Line, hello: Line, by_image: bool) -> dict[str, str]:
    assert line.printed is not None and hello.printed is not None
    (low, high), (least, most) = line.extremes, hello.extremes
    printed = line.printed.milliseconds_per_image / hello.printed.milliseconds_per_image
    measured, images = line.milliseconds / hello.milliseconds, 1.0
    if not by_image:  # so many times the images of an iteration of HeLlO's
        printed = line.printed.seconds / hello.printed.seconds
        images = line.seconds / hello.seconds / measured
    low, high = images * low / most, images * high / least
    direction = "can't tell" if low <= 1 <= high else "same" if (low > 1) == (printed > 1) else "other"
    return {
        "What they report": escape(what),
        "Printed": f"× {printed:.2f}",
        "Measured": f"× {images * measured:.2f} ({low:.2f}–{high:.2f})",
        "n": f"{len(line.costs)}, {len(hello.costs)}",
        "Direction": direction,
    }


def _csv(entries: Sequence[Entry]) -> str:
    """One line an entry."""
    lines = [
        {
            "dataset": entry.dataset,
            "device": device_of(entry),
            "threads": entry.environment.get("threads"),
            "protocol": entry.protocol,
            "ipc": entry.ipc,
            "student": entry.student,
            "method": entry.method,
            "labels": entry.labels,
            "seed": entry.seed,
            "student_seed": entry.seeds[1],
            **(entry.cost.model_dump() if entry.cost is not None else {}),
            "label_bytes": entry.label_bytes,
        }
        for entry in entries
    ]
    return csv_text(tuple(lines[0]), [tuple(line.values()) for line in lines])
