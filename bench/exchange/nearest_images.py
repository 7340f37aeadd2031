"""Grids of distilled images, each next to the nearest real training image of its class."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench.errors import UserError
from bench.kit import data, images
from bench.kit.views.geometry import centre
from bench.planning import manifest
from bench.planning.grid import Grid
from bench.report.image_grid import ImageGrid, ImageGrids
from bench.store.artifacts import Store

USUAL_IPC = 10
LARGEST_SIDE = 48  # px; larger images are shown smaller
BUDGET = 300_000  # characters of all grids of a data set: pages are kept in git
LAYOUTS = ((10, 3), (8, 3), (8, 2), (6, 2), (8, 1), (4, 1))  # classes and images per class, until the budget holds
_WITHIN, _BETWEEN, _ABOVE = 1, 5, 1  # px between the two of a pair, between pairs, above and below a line

Pairs = list[tuple[Tensor, Tensor]]  # a distilled and the nearest real image, each (3, S, S)


def draw_grids(store: Store, dataset: str, data_root: Path | None = None, ipc: int | None = None) -> ImageGrids | None:
    """Draw the grids of a data set from the images artifacts of a store; None where it holds none.

    A grid shows the first seed of a method's distilled set, as the newest plan has it. Distances are Euclidean, over
    the pixels as they are shown, among all training images of the class.

    Args:
        data_root: as for planning; None: where the newest plan of the data set found it.
        ipc: images per class; None: 10, or the largest there is where nobody made 10.

    Raises:
        UserError: the real images are missing, or a distilled set is damaged.
    """
    grids = [kept.grid for kept in manifest.newest_first(store) if kept.grid.dataset.name == dataset]
    made = _image_cells(store, grids)
    counts = sorted({count for _, count in made})
    if not counts:
        return None
    if ipc is None:
        ipc = USUAL_IPC if USUAL_IPC in counts else counts[-1]
    elif ipc not in counts:
        raise UserError(f"there are no {ipc} images per class of {dataset}; expected one of {counts}")
    shared: dict[str, tuple[list[str], int]] = {}  # cell -> its methods, and their seed
    for (method, count), (seed, cell) in sorted(made.items()):
        if count == ipc:
            shared.setdefault(cell, ([], seed))[0].append(method)
    info = grids[0].dataset
    real = data.load(info, data_root or grids[0].request.data_root)
    sets = {cell: images.load(store.folder(store.whole(cell).id)) for cell in shared}
    side = min(LARGEST_SIDE, *(one.pixels.shape[-1] for one in sets.values()))

    @cache
    def pairs(label: int) -> dict[str, Pairs]:
        indices = (real.train.labels == label).nonzero().flatten()
        candidates = torch.cat([batch for batch, _ in real.train.centered(side, "cpu", indices=indices)])
        shown = {cell: centre(one.pixels[one.labels == label][: LAYOUTS[0][1]], side) for cell, one in sets.items()}
        return {cell: list(zip(own, _nearest(own, candidates), strict=True)) for cell, own in shown.items()}

    for most, each in LAYOUTS:  # with fewer images until the grids are small enough
        chosen = _spread(len(real.ids), most)
        sheets = []
        for cell, (methods, seed) in shared.items():
            lines = [pairs(label)[cell][:each] for label in chosen]
            distances = [(own.double() - near.double()).square().mean().sqrt() for line in lines for own, near in line]
            distance, png = round(float(torch.stack(distances).mean()), 2), base64.b64encode(_png(lines, side)).decode()
            sheets.append(ImageGrid(methods=tuple(methods), seed=seed, cell=cell, distance=distance, png=png))
        if sum(len(one.png) for one in sheets) <= BUDGET:
            break
    return ImageGrids(
        dataset=info.name, ipc=ipc, classes=tuple(real.names[label] for label in chosen), of_classes=len(real.ids),
        each=min(each, ipc), side=side, of_side=max(one.pixels.shape[-1] for one in sets.values()),
        sheets=tuple(sorted(sheets, key=lambda one: one.methods)),
    )  # fmt: skip


def _image_cells(store: Store, grids: Sequence[Grid]) -> dict[tuple[str, int], tuple[int, str]]:
    """Map (method, IPC) to its smallest finished seed, and the cell of its images."""
    finished = store.ids("cells")
    found: dict[tuple[str, int], tuple[int, str]] = {}
    for grid in reversed(grids):  # the newest last, so that it stays
        made: dict[tuple[str, int], tuple[int, str]] = {}
        for student in grid.stage("evaluate"):
            row, cell = student.row, student.parents.get("images")
            if cell is not None and cell in finished:
                key = row["method"], row["ipc"]
                made[key] = min(made.get(key, (row["seed"], cell)), (row["seed"], cell))
        found |= made
    return found


def _spread(classes: int, most: int) -> list[int]:
    """Up to ``most`` classes, evenly spaced in their order."""
    count = min(classes, most)
    return [place * classes // count for place in range(count)]


def _nearest(own: Tensor, candidates: Tensor) -> Tensor:
    """Return the first nearest of ``candidates`` (M, 3, S, S) to each of ``own`` (K, 3, S, S)."""
    # in float64, sums of squares of bytes are exact, so every machine finds the same neighbour
    far = [(candidates.double() - image.double()).square().sum(dim=(1, 2, 3)) for image in own]
    return candidates[torch.stack([row.argmin() for row in far])]


def _png(lines: Sequence[Pairs], side: int) -> bytes:
    """Encode a PNG with transparent gaps; every line has the same height, so that names can be set next to them."""
    pitch, height = 2 * side + _WITHIN + _BETWEEN, side + 2 * _ABOVE
    grid = Image.new("RGBA", (max(map(len, lines)) * pitch - _BETWEEN, len(lines) * height))
    for row, line in enumerate(lines):
        for column, pair in enumerate(line):
            for place, image in enumerate(pair):
                tile = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
                grid.paste(tile, (column * pitch + place * (side + _WITHIN), row * height + _ABOVE))
    if all(torch.equal(image[:1].expand(3, -1, -1), image) for line in lines for pair in line for image in pair):
        grid = grid.convert("LA")
    encoded = io.BytesIO()
    grid.save(encoded, format="png", optimize=True)
    return encoded.getvalue()
