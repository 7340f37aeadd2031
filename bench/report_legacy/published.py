"""What others have published, beside what was measured: label bytes by arithmetic, which rows belong together, and
the command that would measure a published setting. Published numbers are never ranked among measured ones."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from bench.api import architectures, catalogue, registry
from bench.api.stored.size import fkd_bytes
from bench.errors import UserError
from bench.planning.label_choices import parse
from bench.planning.protocols import OFFICIAL, unchanged
from bench.report_legacy.board import Row
from bench.report_legacy.published_file import FILE, Online, Published, Source, Stored, read

# Parameters of networks without the running statistics of their batch norms: of the body, and for each class.
NETWORKS = {"resnet18": (11_176_512, 513), "resnet18-small": (11_168_832, 513)}

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ([KMGT])B")


class Measured(Protocol):
    """A row of a board, or one of its entries."""

    @property
    def dataset(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def labels(self) -> str: ...
    @property
    def ipc(self) -> int | None: ...
    @property
    def student(self) -> str: ...
    @property
    def protocol(self) -> str: ...


def load(path: Path = FILE) -> tuple[Published, ...]:
    """Every published number, in the order of the file.

    Raises:
        UserError: the file is missing or broken: where, and what was expected.
    """
    return read(path)[0]


def sources(path: Path = FILE) -> dict[str, Source]:
    """Who prints them, by the name that rows use.

    Raises:
        UserError: as :func:`load`.
    """
    return read(path)[1]


def for_dataset(name: str, path: Path = FILE) -> list[Published]:
    """The published numbers on a data set, in the order of the file.

    Raises:
        UserError: as :func:`load`.
    """
    return [one for one in load(path) if one.dataset == name]


def label_bytes(one: Published) -> int | None:
    """What the labels weigh, computed from the recipe; None where that does not say enough.

    Stored labels are SRe2L's files; a model is its parameters in fp32, without its files' headers and without the
    public base it stands on.
    """
    recipe = one.recipe
    if isinstance(recipe, Stored) and one.classes is not None:
        images = one.ipc * one.classes
        every = fkd_bytes(images, one.classes, recipe.epochs, recipe.batch_size, index=recipe.index)
        return every // recipe.prune
    if isinstance(recipe, Online) and recipe.parameters is not None:
        return 4 * recipe.parameters
    if isinstance(recipe, Online) and one.teacher in NETWORKS and one.classes is not None:
        body, each = NETWORKS[one.teacher]
        return 4 * (body + each * one.classes)
    return None


def printed_bytes(one: Published) -> int | None:
    """The storage that a source prints in bytes (``2.54 GB``); None where it prints none, or something else."""
    found = _SIZE.search(one.storage)
    if found is None:
        return None
    base = 1024 if sources()[one.source].binary_units else 1000
    return round(float(found[1]) * math.pow(base, " KMGT".index(found[2])))


def disagreeing(rows: Iterable[Published]) -> list[list[Published]]:
    """Rows of one setting whose sources print different means, a list a setting."""
    together: dict[Any, list[Published]] = {}
    for one in rows:
        together.setdefault(one.setting, []).append(one)
    return [same for same in together.values() if len({one.top1 for one in same}) > 1]


# --------------------------------------------------------------------------------------------------------------
# Beside what was measured


def matching(measured: Measured, published: Iterable[Published] | None = None) -> list[Published]:
    """The published numbers that a measured row stands beside: of the same method with its authors' labels, data
    set, IPC and student; under a protocol after a paper's recipe, of that recipe, as far as the source's is known.

    Args:
        measured: a row of a board, or an entry.
        published: where to look; None: in all.
    """
    return [one for one in (load() if published is None else published) if _belongs(one, measured)]


def measured_for(one: Published, rows: Iterable[Row]) -> Row | None:
    """The measured row to compare a published number with: one under a protocol after a paper's recipe, because
    another recipe moves accuracy by more than most methods do. Of several the newest version's, then the largest."""
    fitting = [row for row in rows if after_a_paper(row.protocol) and row.top1.n and _belongs(one, row)]
    return max(fitting, key=lambda row: (row.protocol_version, row.top1.n), default=None)


def _belongs(one: Published, measured: Measured) -> bool:
    same = (measured.method, measured.dataset, measured.ipc, measured.student)
    if one.variant or same != (one.method, one.dataset, one.ipc, one.student):
        return False
    protocol, labels = recipe_of(one)
    if measured.protocol.startswith(OFFICIAL) and not (
        after_a_paper(measured.protocol) and measured.protocol.startswith(protocol)
    ):
        return False
    return measured.labels == _labels(one.method, labels)


def after_a_paper(protocol: str) -> bool:
    """Is it a paper's own recipe, with nothing of it changed?"""
    return protocol.startswith(OFFICIAL) and unchanged(protocol) == protocol


def recipe_of(one: Published) -> tuple[str, str]:
    """The protocol and the choice of ``--labels`` under which the benchmark measures a published setting: the
    source's own, else those of the method's authors on that data set."""
    own = _recipes().get((one.method, one.dataset), (OFFICIAL, "native"))
    return (one.recipe.runs_as, one.recipe.labels_as) if one.recipe and one.recipe.runs_as else own


@cache
def _recipes() -> dict[tuple[str, str], tuple[str, str]]:
    known = [one for one in load() if one.recipe and one.recipe.runs_as]
    return {(one.method, one.dataset): (one.recipe.runs_as, one.recipe.labels_as) for one in known if one.recipe}


@cache
def _labels(method: str, choice: str) -> str | None:
    """A board's word for labels that are asked for like this; None for a method that is no plug-in."""
    if method not in registry.method_names():
        return None
    info = registry.method(method).info
    return parse(choice, info).title(info.labels)


def commands(rows: Sequence[Published]) -> list[tuple[str, list[Published]]]:
    """What measures published settings, as few commands as make no other setting, each with the rows it is for; rows
    that the benchmark can't measure (see :func:`obstacle`) come in none."""
    by_student: dict[tuple[str, ...], list[Published]] = {}
    for one in rows:
        if not obstacle(one):
            by_student.setdefault((one.method, one.dataset, *recipe_of(one), one.student), []).append(one)
    grids: dict[Any, list[Published]] = {}
    for (*request, _), own in by_student.items():
        grids.setdefault((*request, frozenset(one.ipc for one in own)), []).extend(own)
    return [(_command(request, ipc, own), own) for (*request, ipc), own in grids.items()]


def obstacle(one: Published) -> str:
    """Why the benchmark can't measure a published setting; empty where it can."""
    if one.variant:
        return "a changed method"
    if one.method not in registry.method_names():
        return f"no plug-in {one.method}"
    if one.dataset not in catalogue.names():
        return f"no data set {one.dataset}"
    try:
        architectures.check(one.student)
    except UserError:
        return f"no student {one.student}"
    return "" if one.recipe is None or one.recipe.runs else "its recipe is not known well enough"


def _command(request: Sequence[str], ipc: Iterable[int], rows: Sequence[Published]) -> str:
    method, dataset, protocol, labels = request
    options = {
        "--methods": method,
        "--dataset": dataset,
        "--ipc": ",".join(map(str, sorted(ipc))),
        "--students": ",".join(dict.fromkeys(one.student for one in rows)),
        "--protocol": protocol,
        "--labels": "" if labels == "native" else labels,
    }
    return "python -m bench run " + " ".join(f"{flag} {shlex.quote(word)}" for flag, word in options.items() if word)
