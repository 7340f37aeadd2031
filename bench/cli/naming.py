"""The cells that the words of a command line name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from bench.errors import UserError, unknown
from bench.store.cell import STAGES

_FEW = 20  # names that an error may list


def named(words: Iterable[str], cells: Mapping[str, str]) -> set[str]:
    """The cells that words name: each an id or its beginning, a glob over ids, or a stage.

    Args:
        cells: id -> stage of those to choose from.

    Raises:
        UserError: a word names none, or is the beginning of several.
    """
    found: set[str] = set()
    for word in words:
        if word in cells:
            fitting = {word}
        elif word in STAGES:
            fitting = {cell_id for cell_id, stage in cells.items() if stage == word}
        elif set(word) & set("*?["):
            fitting = {cell_id for cell_id in cells if fnmatchcase(cell_id, word)}
        else:
            fitting = {cell_id for cell_id in cells if cell_id.startswith(word)}
            if len(fitting) > 1:
                first = ", ".join(sorted(fitting)[:3]) + (f" and {len(fitting) - 3} more" if len(fitting) > 3 else "")
                raise UserError(f"{word!r} is the beginning of {first}; write more of it, or {word}* for all of them")
        if not fitting:
            raise _no_cell(word, cells)
        found |= fitting
    return found


def _no_cell(word: str, cells: Mapping[str, str]) -> UserError:
    error = unknown("cell or stage", word, {*cells, *STAGES})
    if len(cells) <= _FEW:
        return error
    return UserError(str(error).partition("; known:")[0] + f"; expected one of {len(cells)} ids, a glob or a stage")


def one(word: str, known: Iterable[str], place: object) -> str:
    """The one cell that a word names: an id or its beginning.

    Args:
        known: the ids to choose from.
        place: where they lie, for people.

    Raises:
        UserError: the word names none, or is the beginning of several.
    """
    ids = set(known)
    fitting = [word] if word in ids else sorted(name for name in ids if word and name.startswith(word))
    if not fitting:
        if len(ids) <= _FEW:
            raise unknown("cell", word, ids)
        raise UserError(f"no cell of {place} begins with {word!r}; bench status lists grids")
    if len(fitting) > 1:
        more = f" and {len(fitting) - 3} more" if len(fitting) > 3 else ""
        raise UserError(f"{word!r} is the beginning of {', '.join(fitting[:3])}{more}; write more of it")
    return fitting[0]
