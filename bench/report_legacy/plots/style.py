"""What stands for what in a plot: colours and markers of methods, and names that are safe to draw."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from bench.report_legacy.wording import plain

# Okabe & Ito, "Color Universal Design" (2008), in the order of their contrast to white; their yellow is told
# apart on white by its outline alone and comes last. Their black is the ink, which baselines have.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*")
INK = "#010203"  # of text, axes and baselines; an SVG has `currentColor` in its place, for light and dark pages
PAPER = "#fdfeff"  # the background; an SVG has a CSS variable in its place

SHOWN = 26  # characters of a name


@dataclass(frozen=True)
class Style:
    """How the points of one method look, and its name beside them."""

    name: str
    colour: str
    marker: str
    baseline: bool = False


def styles(
    methods: Iterable[str], titles: Mapping[str, str] | None = None, baselines: Collection[str] = ()
) -> dict[str, Style]:
    """A style for each of ``methods``, no two alike while there are markers left.

    ``hello[rank=4]`` has the colour of ``hello``. Colours go by the names in ``methods`` alone, so that a figure
    follows from its records whatever else is installed.
    """
    titles = titles or {}
    wanted = sorted(set(methods))
    bases = sorted({base(method) for method in wanted} - set(baselines))
    colours = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(bases)}
    first = {name: index for index, name in enumerate([*bases, *sorted(set(baselines))])}
    found: dict[str, Style] = {}
    taken: set[tuple[str, str]] = set()
    for method in sorted(wanted, key=lambda method: (method != base(method), method)):
        own = base(method)
        colour = colours.get(own, INK)
        turn = first[own] % len(MARKERS)
        order = MARKERS[turn:] + MARKERS[:turn]
        marker = next((marker for marker in order if (colour, marker) not in taken), order[0])
        taken.add((colour, marker))
        title = titles.get(own, own) + method[len(own) :]
        found[method] = Style(plain(title), colour, marker, own in baselines)
    return found


def base(method: str) -> str:
    """``hello`` of ``hello[rank=4]``."""
    return method.partition("[")[0]


def short(text: str, room: int = SHOWN) -> str:
    """At most ``room`` characters of a line; of a longer one the beginning and the end, which tells settings apart."""
    line = plain(text)
    if len(line) <= room:
        return line
    tail = (room - 1) // 3
    return f"{line[: room - 1 - tail]}…{line[len(line) - tail :]}"
