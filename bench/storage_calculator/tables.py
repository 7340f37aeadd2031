"""The answer as tables of text, which a terminal and a Markdown page show alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.api.label_bytes import FKD_FILE_BYTES, FKD_INDEX_BYTES, FKD_VIEW_BYTES
from bench.report_legacy import wording
from bench.storage_calculator import networks
from bench.storage_calculator.asked import Asked, Asking
from bench.storage_calculator.claims import Reading, claims
from bench.storage_calculator.weigh import JPEG_BYTES, JPEG_SIZE, Format, Line, formats, weigh

ACROSS = 5  # IPCs side by side
ANY = "any"


@dataclass(frozen=True)
class Table:
    """A heading, what to know before, columns with their alignment, cells."""

    title: str
    about: str
    columns: dict[str, str]  # header -> "left" or "right"
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Kept:
    """Labels of one kind that weigh the same for several methods: a line an IPC."""

    labels: str
    methods: str
    lines: tuple[Line, ...]


def kept(lines: Sequence[Line]) -> list[Kept]:
    """The lines of all methods, those together that show the same bytes; the heaviest first."""
    whole: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        own = line.labels if line.choice.kind == "online" else line.choice.title("teacher")
        whole.setdefault((own, line.method), []).append(line)
    groups: dict[tuple[str, ...], list[list[Line]]] = {}
    for (labels, _), own_lines in whole.items():
        shown = (wording.size(line.label_bytes) for line in own_lines)
        groups.setdefault((labels, *shown), []).append(own_lines)
    every = {line.method for line in lines}
    found = [
        Kept(labels, _together([one[0].method for one in group], every), tuple(group[0]))
        for (labels, *_), group in groups.items()
    ]
    return sorted(found, key=lambda one: -(one.lines[-1].label_bytes or 0))


def _together(methods: Sequence[str], every: set[str]) -> str:
    if len(every) > 1 and set(methods) == every:
        return ANY
    return ", ".join(name for name in methods if "[" not in name or name.partition("[")[0] not in methods)


def answer(asked: Asked, paper: bool | None = None) -> list[Table]:
    """Every table of an answer.

    Args:
        paper: with what papers print beside what the formulas give; None: where they print it of such a set.

    Raises:
        UserError: as :func:`bench.storage_calculator.weigh.weigh`.
    """
    lines = weigh(asked)
    found = [_recipes(asked, lines)]
    rows = kept(lines)
    for at in range(0, len(asked.ipc), ACROSS):
        ipcs = asked.ipc[at : at + ACROSS]
        found.append(_bytes(rows, lines, ipcs))
        found.append(_ratios(rows, ipcs))
        if written := [one for one in formats(asked) if one.ipc in ipcs]:
            found.append(_formats(written, ipcs, lines[0]))
    found.append(_models(asked, lines))
    if in_papers(asked) if paper is None else paper:
        found.append(_claims())
    return found


def in_papers(asked: Asked) -> bool:
    """Do the papers print the storage of such a set?"""
    info = asked.info()
    return info.classes in (100, 1000) and info.image_size == JPEG_SIZE and asked.epochs in (None, 300)


def _by_ipc(*first: str, ipcs: Sequence[int]) -> dict[str, str]:
    return dict.fromkeys(first, "left") | {f"IPC {ipc:,}": "right" for ipc in ipcs}


def _recipes(asked: Asked, lines: Sequence[Line]) -> Table:
    info = asked.info()
    rows: dict[tuple[str, str, str], list[str]] = {}
    for method in dict.fromkeys(line.method for line in lines):
        own = list({line.ipc: line for line in lines if line.method == method}.values())
        epochs, batches = _spread(own, lambda line: line.epochs), _spread(own, lambda line: line.batch_size)
        rows.setdefault((own[0].protocol, epochs, batches), []).append(method)
    every = {line.method for line in lines}
    return Table(
        f"What a student of {info.title} needs on disk",
        f"{info.classes:,} classes at {info.image_size} px, by arithmetic alone: nothing was run. "
        + ("Each method under its own recipe:" if asked.dataset else "Epochs and batches as given:"),
        {"Methods": "left", "Recipe": "left", "Epochs": "right", "Batches of": "right"},
        tuple((_together(names, every), recipe, epochs, batch) for (recipe, epochs, batch), names in rows.items()),
    )


def _spread(lines: Iterable[Line], value: Callable[[Line], int]) -> str:
    """``100``, or ``20 (IPC 1), 100 (10), 200 (50)``."""
    firsts: dict[int, int] = {}
    for line in lines:
        firsts.setdefault(value(line), line.ipc)
    if len(firsts) == 1:
        return f"{next(iter(firsts)):,}"
    return ", ".join(f"{number:,} (IPC {ipc:,})" if not at else f"{number:,} ({ipc:,})"
                     for at, (number, ipc) in enumerate(firsts.items()))  # fmt: skip


def _bytes(rows: Sequence[Kept], lines: Sequence[Line], ipcs: Sequence[int]) -> Table:
    images = {line.ipc: wording.size(line.image_bytes) for line in lines}
    cells = [(one.labels, one.methods, *_cells(one, ipcs, lambda line: wording.size(line.label_bytes))) for one in rows]
    return Table(
        "Label bytes",
        "Stored and static labels to the byte, as bench run writes them; a teacher's weights file to the byte; a "
        "projector's numbers alone (header, settings and class names are some KB more). "
        f"Images are an estimate: {JPEG_BYTES:,} bytes at {JPEG_SIZE} px (JPEG, quality 75; LPLD's README), by pixels.",
        _by_ipc("Labels", "Of", ipcs=ipcs),
        (*cells, ("(images)", ANY, *(images[ipc] for ipc in ipcs))),
    )


def _ratios(rows: Sequence[Kept], ipcs: Sequence[int]) -> Table:
    return Table(
        "Share of all stored labels",
        "Label bytes by epochs · images · classes · 2, the fp16 logits of every view.",
        _by_ipc("Labels", "Of", ipcs=ipcs),
        tuple((one.labels, one.methods, *_cells(one, ipcs, lambda line: wording.ratio(line.ratio))) for one in rows),
    )


def _cells(one: Kept, ipcs: Sequence[int], word: Callable[[Line], str]) -> list[str]:
    by_ipc = {line.ipc: word(line) for line in one.lines}
    return [by_ipc.get(ipc, wording.NONE) for ipc in ipcs]


def _formats(written: Sequence[Format], ipcs: Sequence[int], first: Line) -> Table:
    rows: list[tuple[str, ...]] = []
    by = {(one.method, one.ipc): one for one in written}
    for method in dict.fromkeys(one.method for one in written):
        own = [by[method, ipc] for ipc in ipcs]
        rows.append((method, "logits alone", *(wording.size(one.logit_bytes) for one in own)))
        rows.append((method, "files", *(wording.size(one.file_bytes) for one in own)))
        rows.append((method, "how many", *(f"{one.files:,}" for one in own)))
    index = any(one.index for one in written)
    return Table(
        "What the authors' own code writes",
        f"FKD's files: 2 · classes + {FKD_VIEW_BYTES} bytes a view"
        + (f" (G_VBSM: {FKD_VIEW_BYTES + FKD_INDEX_BYTES}, with the image's number)" if index else "")
        + f", and some {FKD_FILE_BYTES:,} a file for its zip container, which depends on torch's version.",
        _by_ipc("Method", "", ipcs=ipcs),
        tuple(rows),
    )


def _models(asked: Asked, lines: Sequence[Line]) -> Table:
    """What answers online, and what it stands on."""
    classes = asked.info().classes
    rows: dict[str, tuple[str, ...]] = {}
    for asking in Asking.each(asked):
        arch = asking.teacher(asked.ipc[0])
        if networks.counted(arch):
            numbers = f"{networks.parameters(arch, classes):,} + {networks.buffers(arch, classes):,}"
            files = (wording.size(networks.weights_bytes(arch, classes, one)) for one in ("fp32", "fp16", "int8"))
            rows[arch] = (f"teacher {arch}", numbers, *files)
        else:
            rows[arch] = (f"teacher {arch}", *[wording.NONE] * 4)
    for line in lines:
        if line.choice.kind == "online" and "[" not in line.method:
            rows[line.method] = (f"{line.labels} of {line.method}", *_plain(line.numbers))
            if line.public_parameters:
                rows["public"] = ("its public base, counted apart", *_plain(line.public_parameters))
    return Table(
        "Models that answer online",
        "Numbers: parameters, and of a teacher its buffers; a teacher's int8 has a scale for each output channel.",
        {"Model": "left", "Numbers": "right", "fp32": "right", "fp16": "right", "int8": "right"},
        tuple(rows.values()),
    )


def _plain(numbers: int | None) -> tuple[str, ...]:
    if numbers is None:
        return (wording.NONE,) * 4
    return f"{numbers:,}", wording.size(4 * numbers), wording.size(2 * numbers), wording.NONE


def _claims() -> Table:
    rows = [
        (f"{claim.source}: {claim.what}", claim.printed, " · ".join(map(_reading, claim.readings)))
        for claim in claims()
    ]
    return Table(
        "Where the papers' units differ",
        "What HeLlO (arXiv 2408.08201, text and tables) and LPLD's README print, and what the formulas give. ✓ comes "
        "to the digits printed, LPLD's to a thousandth; without one, no reading does. M/MB: millions of parameters "
        "divided by megabytes of labels.",
        {"Of": "left", "Printed": "right", "Comes to": "left"},
        tuple(rows),
    )


def _reading(one: Reading) -> str:
    if one.unit.startswith("%"):
        number = f"{one.value:.2g}"
    else:
        number = wording.ratio(one.value) if one.value < 0.1 else f"{one.value:.4g}"
    return f"{number} {one.unit}{' ✓' if one.fits else ''}"
