"""The look of all figures: colours and markers of methods, marks, and the SVG that themes can colour."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import registry
from bench.format import plain
from bench.store.artifacts import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

SHEET = Path(__file__).with_name("bench.mplstyle")
INK = "#010203"  # text.color of the style sheet; an SVG says `currentColor` instead, for light and dark pages
GREY = "#7a7f87"  # baselines, references and axes: legible on light and dark
# After Okabe & Ito, "Color Universal Design" (2008), at least 3:1 against white and against the dark page.
PALETTE = ("#2f7fc4", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#8b6fd6", "#1f8fa6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*")
MARKS: dict[str, dict[str, Any]] = {
    "": {},
    "pale": {"markersize": 4, "alpha": 0.35},
    "hollow": {"mfc": "none", "mew": 1.5},
}
DASHED: Any = {"color": GREY, "linestyle": (0, (5, 3)), "linewidth": 1}
LONGEST = 24  # characters of a name in a figure
# An SVG shown on its own follows the reader's theme; inside a page it takes the page's colour.
THEME = "<style>svg{color-scheme:light dark;color:var(--ink,light-dark(#1c1e21,#e4e6e8))}</style>"


@dataclass(frozen=True)
class Look:
    """Name, colour and marker of a method in every figure."""

    name: str
    colour: str
    marker: str
    order: int = 3  # of drawing: baselines lie below


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Map each method to its look: installed ones by their order in the registry, others take the next free places.

    Baselines are grey. ``hello[rank=4]`` has the colour of ``hello`` and another marker.
    """
    infos = {name: registry.method(name).info for name in registry.method_names()}
    wanted = sorted(set(methods), key=lambda method: ("[" in method, method))
    bases = sorted({method.partition("[")[0] for method in wanted})
    coloured = [name for name in dict.fromkeys([*infos, *bases]) if name not in infos or not infos[name].baseline]
    found: dict[str, Look] = {}
    for method in wanted:
        base, bracket, settings = method.partition("[")
        place = coloured.index(base) if base in coloured else 0
        name = (infos[base].title if base in infos else base) + bracket + settings
        colour = PALETTE[place % len(PALETTE)] if base in coloured else GREY
        taken = {look.marker for look in found.values() if look.colour == colour}
        first = place % len(MARKERS)
        free = [marker for marker in (*MARKERS[first:], *MARKERS[:first]) if marker not in taken]
        found[method] = Look(name, colour, (free or MARKERS)[0], 3 if base in coloured else 2)
    return found


def short(text: str, room: int = LONGEST) -> str:
    """At most ``room`` printable characters; of a longer text the beginning and the end, which tells settings apart."""
    line = plain(text)
    return line if len(line) <= room else f"{line[: room * 2 // 3]}…{line[len(line) - room // 3 + 1 :]}"


@contextmanager
def applied() -> Iterator[None]:
    """Draw by the style sheet alone, whatever the user has set."""
    import matplotlib as mpl
    import matplotlib.style

    with mpl.style.context(SHEET, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # an SVG names fonts, its reader has them
        yield


def save(canvas: Canvas, folder: Path, name: str, png: bool = False) -> str:
    """Write a figure as ``folder/name.svg``, the same bytes on every run, and as PNG if wanted; return the SVG."""
    import matplotlib as mpl

    made, path = io.StringIO(), folder / f"{name}.svg"
    with mpl.rc_context({"svg.hashsalt": name}):
        canvas.savefig(made, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r'<g id="(?!tip:)[^"]*">', "<g>", made.getvalue().partition("<!DOCTYPE")[2].partition(">\n")[2])
    text = text.replace('<g id="tip:', '<g data-tip="').replace(INK, "currentColor")
    text = text.replace("<defs>", f"{THEME}<defs>", 1)
    write_atomically(path, text)
    if png:
        canvas.savefig(path.with_suffix(".png"), facecolor="white")
    return text
