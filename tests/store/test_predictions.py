"""The file of a board's predictions: the same bytes for the same cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.store.predictions import load, pack, predicted_cells


def test_many_cells_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    true = np.arange(6, dtype=np.uint16)
    cells = {f"cell-{at}": (np.roll(true, at), true if at % 2 else true[::-1]) for at in range(12)}
    content = pack(cells)
    assert all(pack(dict(reversed(cells.items()))) == content for _ in range(5))
    path = tmp_path / "x.predictions.safetensors"
    path.write_bytes(content)
    assert predicted_cells(path).keys() == cells.keys()
    for cell, found in load(path, cells).items():
        assert all(np.array_equal(one, other) for one, other in zip(found, cells[cell], strict=True))
