"""Grids of distilled images, each beside the nearest real training image of its class."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench.api import DatasetInfo
from bench.errors import UserError
from bench.execution.stages import load_data
from bench.kit import images
from bench.kit.data.decoding import centre
from bench.planning import manifest
from bench.planning.grid import Grid
from bench.report.image_grid import ImageGrid, ImageGrids
from bench.store.artifacts import Store

USUAL_IPC = 10
LARGEST_SIDE = 48  # px; larger images are shown smaller
BUDGET = 300_000  # characters of all grids of a data set: pages are kept in git
LAYOUTS = ((10, 3), (8, 3), (8, 2), (6, 2), (8, 1), (4, 1))  # classes and images per class, until the budget holds
_WITHIN, _BETWEEN = 1, 5  # px between the two of a pair, and between pairs
_LINE = 1  # px above and below a line


def draw_pictures(
    store: Store, dataset: str, data_root: Path | None = None, ipc: int | None = None
) -> ImageGrids | None:
    """Draw the grids of a data set from the images artifacts of a store; None where it holds none.

    A grid shows the first seed of a method's distilled set, as the newest grid asked for it. Distances are Euclidean,
    over the pixels as they are shown, among all training images of the class.

    Args:
        data_root: as for planning; None: where the newest grid of the data set found it.
        ipc: images per class; None: 10, or the largest there is where nobody made 10.

    Raises:
        UserError: the real images are missing, or an image can't be read.
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
    shared: dict[str, tuple[list[str], int]] = {}
    for (method, count), (seed, cell) in sorted(made.items()):
        if count == ipc:
            shared.setdefault(cell, ([], seed))[0].append(method)
    return _draw(store, grids[0].dataset, data_root or grids[0].request.data_root, ipc, shared)


def _image_cells(store: Store, grids: Sequence[Grid]) -> dict[tuple[str, int], tuple[int, str]]:
    """(method, IPC) → its smallest seed that is done, and the cell that made its images there."""
    finished = store.ids("cells")
    found: dict[tuple[str, int], tuple[int, str]] = {}
    for grid in reversed(grids):  # the newest last, so that it stands
        made: dict[tuple[str, int], tuple[int, str]] = {}
        for student in grid.stage("evaluate"):
            row, cell = student.row, student.parents.get("images")
            if cell is not None and cell in finished:
                place = row["method"], row["ipc"]
                made[place] = min(made.get(place, (row["seed"], cell)), (row["seed"], cell))
        found |= made
    return found


def _draw(
    store: Store, info: DatasetInfo, data_root: Path | None, ipc: int, shared: dict[str, tuple[list[str], int]]
) -> ImageGrids:
    """Draw with fewer images until the grids are small enough; ``shared``: cell -> its methods and seed."""
    real = load_data(info, data_root)
    sets = {cell: images.load(store.folder(cell)) for cell in shared}
    side = min(LARGEST_SIDE, *(made.pixels.shape[-1] for made in sets.values()))
    drawn: dict[
        int, dict[str, list[tuple[Tensor, Tensor]]]
    ] = {}  # class -> cell -> distilled and nearest, (K, 3, S, S)

    def pairs(label: int) -> dict[str, list[tuple[Tensor, Tensor]]]:
        if label not in drawn:
            indices = (real.train.labels == label).nonzero().flatten()
            candidates = torch.cat([batch for batch, _ in real.train.centered(side, "cpu", indices=indices)])
            drawn[label] = {}
            for cell, made in sets.items():
                own = centre(made.pixels[made.labels == label][: LAYOUTS[0][1]], side)
                drawn[label][cell] = list(zip(own, _nearest(own, candidates), strict=True))
        return drawn[label]

    for most, each in LAYOUTS:
        chosen = _spread(len(real.ids), most)
        sheets = []
        for cell, (methods, seed) in shared.items():
            lines = [pairs(label)[cell][:each] for label in chosen]
            distance = round(_distance(pair for line in lines for pair in line), 2)
            png = base64.b64encode(_png(lines, side)).decode()
            sheets.append(ImageGrid(methods=tuple(methods), seed=seed, cell=cell, distance=distance, png=png))
        if sum(len(sheet.png) for sheet in sheets) <= BUDGET:
            break
    return ImageGrids(
        dataset=info.name,
        ipc=ipc,
        classes=tuple(real.names[label] for label in chosen),
        of_classes=len(real.ids),
        each=min(each, ipc),
        side=side,
        of_side=max(made.pixels.shape[-1] for made in sets.values()),
        sheets=tuple(sorted(sheets, key=lambda sheet: sheet.methods)),
    )


def _spread(classes: int, most: int) -> list[int]:
    """Up to ``most`` classes, evenly spaced in their order."""
    count = min(classes, most)
    return [place * classes // count for place in range(count)]


def _nearest(own: Tensor, candidates: Tensor) -> Tensor:
    """The nearest of ``candidates`` (M, 3, S, S) to each of ``own`` (K, 3, S, S); of equally near ones the first."""
    # In doubles sums of squares of bytes are exact, so every machine finds the same neighbour.
    far = [(candidates.double() - image.double()).square().sum(dim=(1, 2, 3)) for image in own]
    return candidates[torch.stack([row.argmin() for row in far])]


def _distance(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    roots = [(one.double() - other.double()).square().mean().sqrt() for one, other in pairs]
    return float(torch.stack(roots).mean())


def _png(lines: Sequence[Sequence[tuple[Tensor, Tensor]]], side: int) -> bytes:
    """A PNG whose gaps are transparent; every line has the same height, so that names stand beside them."""
    pitch, height = 2 * side + _WITHIN + _BETWEEN, side + 2 * _LINE
    width = max(map(len, lines)) * pitch - _BETWEEN
    sheet = torch.zeros(4, len(lines) * height, width, dtype=torch.uint8)
    for row, line in enumerate(lines):
        for column, pair in enumerate(line):
            for place, image in enumerate(pair):
                top, left = row * height + _LINE, column * pitch + place * (side + _WITHIN)
                area = sheet[:, top : top + side, left : left + side]
                area[:3], area[3] = image, 255
    colourless = bool((sheet[0] == sheet[1]).all() and (sheet[0] == sheet[2]).all())
    channels = sheet[[0, 3]] if colourless else sheet
    encoded = io.BytesIO()
    pixels = channels.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(encoded, format="png", optimize=True)
    return encoded.getvalue()
