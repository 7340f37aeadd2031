"""Requested grids, kept in the store: what a board should show, and what a Slurm task reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from bench.api import BaseConfig
from bench.files import write_atomically
from bench.planning.grid import Grid
from bench.store.artifacts import Store
from bench.store.sealing import read_sealed, sealed

_ASKED = re.compile(rb'"asked": ?"([^"]{1,40})"')


class Manifest(BaseConfig):
    """A grid and the time of its last request."""

    asked: str  # ISO 8601, UTC, with microseconds: the newest grid decides which cell stands in a row
    grid: Grid


def keep(store: Store, grid: Grid) -> Path:
    """Write the manifest of a grid, newer than all there are though the clock went back; returns its path."""
    path = store.root / "grids" / f"{grid.id}.json"
    now = datetime.now(UTC)
    asked = max([now, *(one + timedelta(microseconds=1) for one in _times(store))])
    manifest = Manifest(asked=asked.isoformat(timespec="microseconds"), grid=grid)
    write_atomically(path, sealed(manifest.model_dump_json() + "\n"))
    return path


def _times(store: Store) -> Iterator[datetime]:
    """Yield when the grids of a store were requested, out of the first bytes of files that may be large."""
    for path in (store.root / "grids").glob("*.json"):
        with suppress(OSError, ValueError, IndexError, OverflowError), path.open("rb") as stream:
            yield datetime.fromisoformat(_ASKED.findall(stream.read(200))[0].decode()).astimezone(UTC)


def newest_first(store: Store) -> list[Manifest]:
    """Return all readable manifests of a store."""
    return sorted(_read(store)[0], key=lambda manifest: manifest.asked, reverse=True)


def unreadable(store: Store) -> list[str]:
    """Return a line on every manifest that can't be read, cut off or of another schema: its cells are on no board."""
    return _read(store)[1]


def _read(store: Store) -> tuple[list[Manifest], list[str]]:
    found, wrong = [], []
    for path in sorted((store.root / "grids").glob("*.json")):
        try:
            found.append(Manifest.model_validate_json(read_sealed(path)))
        except (OSError, ValueError) as error:  # a ValidationError is a ValueError
            why = "of another release" if isinstance(error, ValidationError) else str(error)
            wrong.append(f"grids/{path.name}: {why}; run its grid again")
    return found, wrong
