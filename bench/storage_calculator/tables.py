"""The sizes as tables of text, for a terminal and a Markdown page alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from bench.api.stored.size import FKD_FILE_BYTES, FKD_INDEX_BYTES, FKD_VIEW_BYTES
from bench.format import NONE, ratio, size
from bench.storage_calculator.papers import Reading, claims
from bench.storage_calculator.request import RequestedMethod, StorageRequest
from bench.storage_calculator.sizes import JPEG_BYTES, JPEG_SIZE, AuthorFiles, Size, author_files, network_size, sizes

ACROSS = 5  # IPCs side by side
ANY = "any"
_LABEL_BYTES = (
    "Stored and static labels to the byte, as bench run writes them; a teacher's weights file to the byte; a "
    "projector's numbers alone (header, settings and class names are some KB more). Images are an estimate: "
    f"{JPEG_BYTES:,} bytes at {JPEG_SIZE} px (JPEG, quality 75; LPLD's README), by pixels."
)
_PAYLOAD = (
    "Stored and static labels without the headers of files: bytes per kept view (or image), what a codec stores once "
    "at the largest IPC, and all together."
)
_CLAIMS = (
    "What HeLlO (arXiv 2408.08201, text and tables) and LPLD's README print, and what the formulas give. ✓ comes to "
    "the digits printed, LPLD's to a thousandth; without one, no reading does. M/MB: millions of parameters divided by "
    "megabytes of labels."
)


class Table(NamedTuple):
    """A heading, an introduction, columns with their alignment ("left" or "right"), cells."""

    title: str
    about: str
    columns: dict[str, str]
    rows: tuple[tuple[str, ...], ...]


class SizeGroup(NamedTuple):
    """Labels of one kind with the same bytes for several methods: one size per IPC."""

    labels: str
    methods: str
    sizes: tuple[Size, ...]


def groups(found: Sequence[Size]) -> list[SizeGroup]:
    """Return the sizes of all methods, grouped where they are printed the same; the heaviest first."""
    alike: dict[tuple[str, ...], list[tuple[Size, ...]]] = {}
    for (labels, _), sizes_ in groupby(found, lambda one: (one.labels.partition(" of ")[0], one.method)):
        own = tuple(sizes_)
        alike.setdefault((labels, *(size(one.label_bytes) for one in own)), []).append(own)
    every = {one.method for one in found}
    made = [SizeGroup(key[0], _joint([own[0].method for own in group], every), group[0])
            for key, group in alike.items()]  # fmt: skip
    return sorted(made, key=lambda one: -(one.sizes[-1].label_bytes or 0))


def _joint(methods: Sequence[str], every: set[str]) -> str:
    if len(every) > 1 and set(methods) == every:
        return ANY
    return ", ".join(name for name in methods if "[" not in name or name.partition("[")[0] not in methods)


def tables(request: StorageRequest, paper: bool | None = None) -> list[Table]:
    """Return every table of a request.

    Args:
        paper: add what papers print; None: where they print it of such a set.

    Raises:
        UserError: as :func:`bench.storage_calculator.sizes.sizes`.
    """
    found, info = sizes(request), request.info()
    made, rows = [_recipes(request, found)], groups(found)
    images = {one.ipc: size(one.image_bytes) for one in found}
    for at in range(0, len(request.ipc), ACROSS):
        ipcs = request.ipc[at : at + ACROSS]
        columns = {"Labels": "left", "Of": "left"} | {f"IPC {ipc:,}": "right" for ipc in ipcs}
        of_images = ("(images)", ANY, *(images[ipc] for ipc in ipcs))
        label_bytes = _lines(rows, ipcs, lambda one: size(one.label_bytes))
        shares = _lines(rows, ipcs, lambda one: ratio(one.label_ratio))
        formula = "Label bytes by epochs · images · classes · 2, the fp16 logits of every view."
        made.append(Table("Label bytes", _LABEL_BYTES, columns, (*label_bytes, of_images)))
        made.append(Table("Share of all stored labels", formula, columns, shares))
        if written := [one for one in author_files(request) if one.ipc in ipcs]:
            made.append(_author_files(written, ipcs))
    made.extend(_payloads(rows, request.ipc))
    made.append(_models(request, found))
    if paper is None:
        paper = info.classes in (100, 1000) and info.image_size == JPEG_SIZE and request.epochs in (None, 300)
    if paper:
        printed = tuple((f"{one.source}: {one.what}", one.printed, " · ".join(map(_reading, one.readings)))
                        for one in claims())  # fmt: skip
        columns = {"Of": "left", "Printed": "right", "Comes to": "left"}
        made.append(Table("Where the papers' units differ", _CLAIMS, columns, printed))
    return made


def _recipes(request: StorageRequest, found: Sequence[Size]) -> Table:
    info = request.info()
    rows: dict[tuple[str, str, str], list[str]] = {}
    for method, sizes_ in groupby(found, lambda one: one.method):
        own = list(sizes_)
        rows.setdefault((own[0].protocol, _by_value(own, "epochs"), _by_value(own, "batch_size")), []).append(method)
    every = {one.method for one in found}
    return Table(
        f"What a student of {info.title} needs on disk",
        f"{info.classes:,} classes at {info.image_size} px, by arithmetic alone: nothing was run. "
        + ("Each method under its own recipe:" if request.dataset else "Epochs and batches as given:"),
        {"Methods": "left", "Recipe": "left", "Epochs": "right", "Batches of": "right"},
        tuple((_joint(names, every), *key) for key, names in rows.items()),
    )


def _payloads(rows: Sequence[SizeGroup], ipc: Sequence[int]) -> Iterator[Table]:
    """Yield the bytes of stored labels without the headers of files, for four IPC a table."""
    exact = [one for one in rows if one.sizes[0].payload_bytes is not None]
    for at in range(0, len(ipc) if exact else 0, 4):
        ipcs = ipc[at : at + 4]
        columns = {"Labels": "left", "Per view": "right", "Once": "right"} | {f"IPC {one:,}": "right" for one in ipcs}
        lines = zip(exact, _lines(exact, ipcs, lambda one: f"{one.payload_bytes:,}"), strict=True)
        yield Table(
            "Payload, to the byte", _PAYLOAD, columns,
            tuple((one.labels, f"{one.sizes[0].view_bytes:,}", f"{one.sizes[-1].once_bytes:,}", *line[2:])
                  for one, line in lines),
        )  # fmt: skip


def _by_value(found: Sequence[Size], name: str) -> str:
    """``100``, or ``20 (IPC 1), 100 (10), 200 (50)``."""
    firsts: dict[int, int] = {}
    for one in found:
        firsts.setdefault(getattr(one, name), one.ipc)
    if len(firsts) == 1:
        return f"{next(iter(firsts)):,}"
    return ", ".join(f"{number:,} ({ipc:,})" for number, ipc in firsts.items()).replace("(", "(IPC ", 1)


def _lines(rows: Sequence[SizeGroup], ipcs: Sequence[int], word: Callable[[Size], str]) -> tuple[tuple[str, ...], ...]:
    words = [{own.ipc: word(own) for own in one.sizes} for one in rows]
    return tuple((one.labels, one.methods, *(known.get(ipc, NONE) for ipc in ipcs))
                 for one, known in zip(rows, words, strict=True))  # fmt: skip


def _author_files(written: Sequence[AuthorFiles], ipcs: Sequence[int]) -> Table:
    rows: list[tuple[str, ...]] = []
    for method, files in groupby(written, lambda one: one.method):
        own = list(files)
        rows.append((method, "logits alone", *(size(one.logit_bytes) for one in own)))
        rows.append((method, "files", *(size(one.file_bytes) for one in own)))
        rows.append((method, "how many", *(f"{one.files:,}" for one in own)))
    index = any(one.index for one in written)
    indexed = f" (G_VBSM: {FKD_VIEW_BYTES + FKD_INDEX_BYTES}, with the image's number)" if index else ""
    return Table(
        "What the authors' own code writes",
        f"FKD's files: 2 · classes + {FKD_VIEW_BYTES} bytes a view{indexed}"
        f", and some {FKD_FILE_BYTES:,} a file for its zip container, which depends on torch's version.",
        {"Method": "left", "": "left"} | {f"IPC {ipc:,}": "right" for ipc in ipcs},
        tuple(rows),
    )


def _models(request: StorageRequest, found: Sequence[Size]) -> Table:
    """Return the models that answer online, and the frozen backbones behind them."""
    rows: dict[str | int, tuple[str, ...]] = {}
    for method in RequestedMethod.all(request):
        spec = method.teacher(request.ipc[0])
        counts = network_size(spec.arch, method.dataset.classes, spec.image_size)
        numbers = f"{counts.parameters:,} + {counts.buffers:,}"
        rows[spec.arch] = (f"teacher {spec.arch}", numbers, *map(size, counts.file_bytes.values()))
    for one in found:
        if "[" not in one.method and one.labels.partition(":")[0] not in ("hard", "teacher", "stored", "static"):
            rows[one.method] = (f"{one.labels} of {one.method}", *_plain(one.model_numbers))
            if public := one.public_parameters:
                rows[public] = ("its public base, counted apart", *_plain(public))
    return Table(
        "Models that answer online",
        "Numbers: parameters, and of a teacher its buffers; a teacher's int8 and int4 have a scale per output channel.",
        {"Model": "left", "Numbers": "right", "fp32": "right", "fp16": "right", "int8": "right", "int4": "right"},
        tuple(rows.values()),
    )


def _plain(numbers: int | None) -> tuple[str, ...]:
    return (NONE,) * 5 if numbers is None else (f"{numbers:,}", size(4 * numbers), size(2 * numbers), NONE, NONE)


def _reading(one: Reading) -> str:
    number = f"{one.value:.2g}" if one.unit.startswith("%") else f"{one.value:.4g}"
    if one.value < 0.1 and not one.unit.startswith("%"):
        number = ratio(one.value)
    return f"{number} {one.unit}{' ✓' if one.fits else ''}"
