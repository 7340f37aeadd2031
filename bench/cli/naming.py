"""The selection of cells by words of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import filter as matching_names

from bench.errors import UserError, unknown
from bench.store.cell import STAGES

_FEW = 20  # names that an error may list


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
        if set(word) & set("*?["):
            matching = matching_names(cells, word)
        if not matching:
            matching = [select_one(word, cells, also=STAGES)]
        found.update(matching)
    return found


def select_one(word: str, known: Iterable[str], also: Collection[str] = ()) -> str:
    """Return the one cell whose id is the word or begins with it.

    Args:
        known: the ids to choose from.
        also: other words that the caller accepts.

    Raises:
        UserError: the word matches none, or is the beginning of several.
    """
    ids = set(known)
    matching = [word] if word in ids else sorted(name for name in ids if word and name.startswith(word))
    if len(matching) > 1:
        glob = f", or {word}* for all of them" if also else ""
        raise UserError(f"{word!r} is the beginning of {shorten(matching)}; write more of it{glob}")
    if not matching:
        error = unknown("cell or stage" if also else "cell", word, {*ids, *also})
        if len(ids) <= _FEW:
            raise error
        globs = ", a glob or a stage" if also else "; bench status lists grids"
        raise UserError(str(error).partition("; known:")[0] + f"; expected one of {len(ids)} ids{globs}")
    return matching[0]


def shorten(ids: Collection[str]) -> str:
    """Return the first three of the ids, and the number of the others."""
    rest = len(ids) - 3
    return ", ".join(sorted(ids)[:3]) + (f" and {rest} more" if rest > 0 else "")
