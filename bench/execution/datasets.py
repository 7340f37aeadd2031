"""What the command line says of data sets, in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.kit import data
from bench.kit.data.icons import build_icons_100

__all__ = ["build_icons", "describe"]


def build_icons(source: Path, place: Path, progress: Callable[[int, int], None]) -> None:
    """Build icons-100 from the package in ``source``; see :func:`bench.kit.data.icons.build_icons_100`."""
    build_icons_100(source, place, progress)


def describe(name: str, data_root: Path | None) -> dict[str, str]:
    """What there is of a data set, line by line; ``problem`` is among the keys where it can't be used.

    Raises:
        UserError: the name is unknown.
    """
    found = data.describe(name, data_root)
    lines = {"data set": f"{found.info.name}: {found.info.title}"}
    if found.problem is not None:
        return {**lines, "problem": found.problem}
    assert found.sizes and found.mean and found.std and found.names and found.order_hash
    (low, high), (first, last) = found.sizes, (found.names[0], found.names[-1])
    sizes = f"{low[0]} x {low[1]}" if low == high else f"{low[0]} x {low[1]} to {high[0]} x {high[1]}"
    return {
        **lines,
        "found in": str(found.place),
        "images": f"{found.train:,} train, {found.test:,} test; {found.smallest_class:,} in the smallest class",
        "classes": f"{len(found.names)}: {first} … {last}",
        "class order": found.order_hash,
        "pixels": f"{sizes}, used at {found.info.image_size}; {'in memory' if found.resident else 'read lazily'}",
        "mean, std": " ".join(f"{v:.4f}" for v in (*found.mean, *found.std)),
    }
