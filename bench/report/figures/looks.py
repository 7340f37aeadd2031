"""Colour and marker of each method, the same in every figure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from bench.api import registry

GREY = "#7a7f87"  # baselines, references and axes: legible on light and dark
# After Okabe & Ito, "Color Universal Design" (2008), at least 3:1 against white and against the dark page.
PALETTE = ("#2f7fc4", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#8b6fd6", "#1f8fa6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*")


class Look(NamedTuple):
    """Name, colour and marker of a method in every figure; ``order`` of drawing: baselines are below."""

    name: str
    colour: str
    marker: str
    order: int = 3


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Map each method to its look: the place it states; others take the next free ones, installed ones first.

    Baselines are grey. ``hello[rank=4]`` has the colour of ``hello`` and another marker.
    """
    infos = {name: registry.method(name).info for name in registry.method_names()}
    wanted = sorted(set(methods), key=lambda method: ("[" in method, method))
    places = {name: info.look for name, info in infos.items() if info.look is not None}
    free_places = (place for place in itertools.count() if place not in places.values())
    for name in [*infos, *sorted({method.partition("[")[0] for method in wanted})]:
        if name not in places and not (name in infos and infos[name].baseline):
            places[name] = next(free_places)
    found: dict[str, Look] = {}
    for method in wanted:
        base, bracket, settings = method.partition("[")
        place = places.get(base, 0)
        colour = PALETTE[place % len(PALETTE)] if base in places else GREY
        taken = {look.marker for look in found.values() if look.colour == colour}
        turned = [MARKERS[(place + turn) % len(MARKERS)] for turn in range(len(MARKERS))]
        marker = next((one for one in turned if one not in taken), MARKERS[0])
        title = infos[base].title if base in infos else base
        found[method] = Look(title + bracket + settings, colour, marker, 3 if base in places else 2)
    return found
