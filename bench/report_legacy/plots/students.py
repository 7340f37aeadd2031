"""The heat map of students × methods under one protocol: who wins whatever the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.report_legacy import wording
from bench.report_legacy.board import Row
from bench.report_legacy.csv_text import csv_text
from bench.report_legacy.metrics import metric
from bench.report_legacy.plots.canvas import SMALL, TOP, USUAL, WIDTH, Sheet, drawable, sheet
from bench.report_legacy.plots.style import Style, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES, CELL = 1.75, 0.3  # inches: names of methods at the left, height of a cell
BAND, SLANTED = 0.6, 1.1  # inches around the cells of a panel: its title, the names of students in a line or slanted
LETTER = 0.062  # inches that a letter of a name takes
DARK = 0.45  # of the colour map: below, white text reads better than black


def best(rows: Sequence[Row]) -> dict[tuple[int, str, str], Row]:
    """(IPC, method, student) → the row of the best mean, whatever its labels; the first in the order of the board
    of equals."""
    found: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        if row.ipc is None or row.top1.mean is None:
            continue
        key = (row.ipc, row.method, row.student)
        if key not in found or row.top1.mean > (found[key].top1.mean or 0.0):
            found[key] = row
    return found


def subtitle(title: str, protocol: str, version: int, rows: Sequence[Row]) -> tuple[str, str]:
    """Two lines: the data set and its protocol; what numbers and colours are."""
    counts = sorted({row.top1.n for row in rows})
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    numbers = (
        f"Numbers: means of {metric(rows)} in percent under the best labels of a method, n = {runs} distilled sets."
    )
    said = f"{numbers} Colours: from a student's worst to its best."
    return f"{short(title, 64)} · protocol {short(protocol, 40)}, version {version}", said


def render(rows: Sequence[Row]) -> str:
    """What the map shows as CSV, a line a cell."""
    heads = ("ipc", "method", "student", "labels", "top1_mean", "top1_std", "top1_ci95", "n")
    lines = [
        (ipc, method, student, row.labels, row.top1.mean, row.top1.std, row.top1.ci95, row.top1.n)
        for (ipc, method, student), row in sorted(best(rows).items())
    ]
    return csv_text(heads, lines)


def draw(title: str, subtitle: tuple[str, str], rows: Sequence[Row], styles: Mapping[str, Style]) -> Sheet:
    """Under each other a map for each number of images per class."""
    cells = best(rows)
    ipcs = sorted({ipc for ipc, _, _ in cells})
    methods = sorted({method for _, method, _ in cells}, key=lambda name: (styles[name].baseline, styles[name].name))
    students = sorted({student for _, _, student in cells})
    tall = CELL * len(methods)
    width = min(WIDTH - NAMES - 0.2, 1.1 * len(students))
    names = [drawable(short(student, 22)) for student in students]
    slanted = max(map(len, names)) * LETTER > width / len(students)
    band = SLANTED if slanted else BAND
    turned: Any = {"rotation": 25, "ha": "right"} if slanted else {}
    made = sheet(TOP + (tall + band) * len(ipcs), title, subtitle)
    for index, ipc in enumerate(ipcs):
        axes = made.axes(NAMES, TOP + 0.2 + index * (tall + band), width, tall)
        axes.set_title(f"{wording.plural(ipc, 'image')} per class", size=USUAL, loc="left", pad=4)
        axes.set_xlim(0, len(students))
        axes.set_ylim(len(methods), 0)
        axes.set_xticks([place + 0.5 for place in range(len(students))], names, **turned)
        axes.set_yticks(
            [place + 0.5 for place in range(len(methods))], [drawable(short(styles[m].name, 22)) for m in methods]
        )
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        own = {(method, student): row for (at, method, student), row in cells.items() if at == ipc}
        _fill(made, axes, own, methods, students, styles)
    return made


def _fill(
    made: Sheet,
    axes: Axes,
    own: Mapping[tuple[str, str], Row],
    methods: Sequence[str],
    students: Sequence[str],
    styles: Mapping[str, Style],
) -> None:
    """Colours say how good a method is under its student: a student's worst and best are the ends of the map."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    for x, student in enumerate(students):
        column = [row.top1.mean for (_, name), row in own.items() if name == student and row.top1.mean is not None]
        for y, method in enumerate(methods):
            row = own.get((method, student))
            if row is None or row.top1.mean is None:
                axes.text(x + 0.5, y + 0.5, wording.NONE, size=SMALL, ha="center", va="center")
                continue
            low, high = min(column), max(column)
            share = (row.top1.mean - low) / (high - low) if high > low else 1.0
            cell = Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor=colormaps["cividis"](share), linewidth=0)
            percent = f"{wording.percent(row.top1.mean)} %"
            cell.set_gid(
                made.tip(f"{styles[method].name}, {student}: {percent} with {row.labels} labels, n = {row.top1.n}")
            )
            axes.add_patch(cell)
            ink, weight = "white" if share < DARK else "black", "bold" if share == 1 else "normal"
            look = {"size": SMALL, "ha": "center", "va": "center", "color": ink, "weight": weight}
            axes.text(x + 0.5, y + 0.5, wording.percent(row.top1.mean), look)
