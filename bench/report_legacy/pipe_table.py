"""Tables of a Markdown board."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tabulate import tabulate


def render_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> str:
    """A pipe table.

    Args:
        columns: header -> ``left`` or ``right``; a header shows as it is.
        rows: header -> cell, as Markdown on one line; what a row lacks stays empty.
    """
    text: str = tabulate(
        [[row.get(name, "") for name in columns] for row in rows],
        headers=list(columns),
        tablefmt="pipe",
        disable_numparse=True,
        colalign=list(columns.values()),
    )
    return text


def used(
    columns: Mapping[str, str], rare: Collection[str], rows: Sequence[Mapping[str, str]], nothing: str
) -> dict[str, str]:
    """The columns without those of ``rare`` ones in which no row has anything but ``nothing``."""
    return {
        name: side
        for name, side in columns.items()
        if name not in rare or any(row.get(name, nothing) != nothing for row in rows)
    }
