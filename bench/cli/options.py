"""Arguments that several verbs share, and what they mean: a store, the cells that words name, a grid."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping
from fnmatch import filter as matching_names
from pathlib import Path
from typing import Any

from bench.cli.parser import STORE_VARIABLE
from bench.errors import UserError, did_you_mean
from bench.exchange.distilled_set import settings
from bench.planning.grid import Request
from bench.planning.variants import plain_value
from bench.store.artifacts import Damaged, Store
from bench.store.cell import STAGES
from bench.store.record import Record

STORE = f"""
--store PATH  folder of artifacts and records (default: ${STORE_VARIABLE}, else .bench)
"""
DATA_ROOT = """
--data-root PATH  the folder that holds data sets (default: $DISTILL_BENCH_DATA, else ~/.cache/distill-bench/data)
"""
GRID = f"""
what to compute:
--methods NAME,…  e.g. hello,rded or 'hello[conv_rank=4],hello'; see bench list methods
--ipc N,…  images per class (default: 1,10,50)
--dataset NAME  or folder:PATH (default: digits)
--students NAME,…  see bench list students (default: the data set's own)
--seeds N,…  seeds of distillation and student alike (default: 0,1,2)
--student-seeds N,…  train one student per student seed on every distilled set, so that the two variances can be told
    apart; --seeds are then those of distillation alone (default: one student per set, of its seed)
--protocol NAME,…  common, official (each paper's own), a protocol's name or a TOML file (default: common)
--labels CHOICE,…  native (as each method's authors give them; the default), online, teacher:int8, stored:topk10+fp16,
    static:fp16, hard; see bench list labels
--no-baselines  leave out random images, hard labels, full data
--teacher [ARCH=]FILE,…  checkpoints to use instead of training teachers, the first as the data set's own; or
    torchvision: the published weights of torchvision and timm, from their local caches
--teacher-trajectory [ARCH=]DIR  a folder with a checkpoint per epoch, or a pattern as DIR/model_{{epoch}}.pth
--clip NAME  icon-clip, or an open_clip model: ARCH:TAG, or ARCH:TAG@/path
--set METHOD.FIELD=VALUE+  change a setting of a method, of the teacher or of the protocol, e.g. hello.conv_rank=4,
    teacher.epochs=30, protocol.crop=none; repeatable
{DATA_ROOT.strip()}
"""
_FEW = 20  # names that an error may list
_GLOB = frozenset("*?[")


def existing_store(place: Path) -> Store:
    """Open a store to read.

    Raises:
        UserError: there is none.
    """
    if not (place / "cells").is_dir():
        raise UserError(f"there is no store at {place}; `bench run` makes one, --store names another")
    return Store(place)


def read_record(store: Store, word: str) -> Record:
    """Return the record of the one cell that a word names, finished or failed.

    Raises:
        UserError: the word names none or several, or the record can't be read.
    """
    cell_id = select_one(word, store.ids("cells") | store.ids("failures"))
    try:
        record = store.record(cell_id) or store.failure(cell_id)
    except Damaged as damage:
        raise UserError(f"{damage}; bench run makes it again") from None
    if record is None:
        raise UserError(f"the record of {cell_id} can't be read; bench run makes it again")
    return record


def select(words: Iterable[str], cells: Mapping[str, str]) -> set[str]:
    """Return the cells that match the words: ids, beginnings of one id, globs over ids, or stages.

    Args:
        cells: id → stage of those to choose from.

    Raises:
        UserError: a word matches none, or is the beginning of several.
    """
    found: set[str] = set()
    for word in words:
        matching = [cell_id for cell_id, stage in cells.items() if stage == word]
        if _GLOB & set(word):
            matching = candidates(word, cells)
        found.update(matching or [select_one(word, cells, also=STAGES)])
    return found


def candidates(word: str, known: Collection[str]) -> list[str]:
    """Return the ids that a word may mean: the one that it is, or else those that match it or begin with it."""
    if word in known:
        return [word]
    if _GLOB & set(word):
        return sorted(matching_names(known, word))
    return sorted(one for one in known if word and one.startswith(word))


def select_one(word: str, known: Iterable[str], also: Collection[str] = ()) -> str:
    """Return the one cell whose id is the word or begins with it.

    Args:
        known: the ids to choose from.
        also: other words that the caller accepts.

    Raises:
        UserError: the word matches none, or is the beginning of several.
    """
    ids = set(known)
    matching = candidates(word, ids)
    if len(matching) > 1:
        pattern = f", or {word}* for all of them" if also and not _GLOB & set(word) else ""
        what = "matches" if _GLOB & set(word) else "is the beginning of"
        raise UserError(f"{word!r} {what} {shorten(matching)}; write more of it{pattern}")
    if not matching:
        known = f"known: {', '.join(sorted({*ids, *also})) or 'none'}"
        if len(ids) > _FEW:
            known = f"expected one of {len(ids)} ids{', a glob or a stage' if also else ''}"
        if ids and not also:
            start = f"{word.partition('-')[0]}-"
            known += f"; bench show '{start if candidates(start, ids) else ''}*' lists those of the store"
        kind = "cell or stage" if also else "cell"
        raise UserError(f"unknown {kind} {word!r}{did_you_mean(word, {*ids, *also})}; {known}")
    return matching[0]


def shorten(ids: Collection[str]) -> str:
    """Return the first three of the ids, and the number of the others."""
    rest = len(ids) - 3
    return ", ".join(sorted(ids)[:3]) + (f" and {rest} more" if rest > 0 else "")


def request(arguments: argparse.Namespace) -> Request:
    """Return the request of the arguments of :data:`GRID`, with imported sets found in ``--store``.

    Raises:
        UserError: no methods, a setting of another form, or an imported set that isn't there.
    """
    if not arguments.methods:
        raise UserError("say which methods with --methods, e.g. hello,rded; see bench list methods")
    return Request(**given(arguments))


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a request that were given as flags; raises as :func:`request`."""
    overrides: dict[str, dict[str, Any]] = {}
    for setting in arguments.set:
        place, equals, text = setting.partition("=")
        method, dot, name = place.partition(".")
        if not (equals and dot and method and name):
            raise UserError(f"--set {setting}: expected METHOD.FIELD=VALUE, e.g. --set hello.conv_rank=4")
        overrides.setdefault(method, {})[name] = plain_value(text)  # JSON, or else plain text
    plain = ("methods", "ipc", "dataset", "students", "seeds", "student_seeds", "labels", "teacher", "clip")
    values = {
        **{name: getattr(arguments, name) for name in (*plain, "teacher_trajectory", "data_root")},
        "protocols": arguments.protocol,
        "baselines": False if arguments.no_baselines else None,
        "overrides": overrides or None,
        "imported": settings(arguments.methods or (), arguments.store) or None,
    }
    return {name: value for name, value in values.items() if value is not None}
