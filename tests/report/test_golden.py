"""What the committed boards said before the report was written on pandas, reproduced from their records."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import bench
from bench.report.rows import pool

ROOT = Path(__file__).parents[2]
PLACE = ["board", "protocol", "ipc", "student", "method", "labels"]
EXACT = ["n", "image_bytes", "label_bytes", "public_bytes", "on_front"]
CLOSE = ["top1_mean", "top1_std", "oracle_mean", "seconds_total", "lrs", "ars"]


@pytest.fixture(scope="module")
def both() -> pd.DataFrame:
    golden = pd.read_csv(ROOT / "tests/report/golden.csv").astype({"ipc": "Int64"})
    frame = bench.load_results(ROOT / "leaderboards")
    rows = pool(frame[frame["metric"] != "cost"])
    rows["board"] = [f"suites/{suite}/{name}" if suite else name
                     for suite, name in zip(rows["suite"], rows["dataset"], strict=True)]  # fmt: skip
    return golden.merge(rows, on=PLACE, how="left", suffixes=("_golden", ""), indicator=True)


def test_every_row_is_there(both: pd.DataFrame) -> None:
    assert len(both) == 361 and (both["_merge"] == "both").all()


@pytest.mark.parametrize("column", [*EXACT, *CLOSE])
def test_numbers_are_the_same(both: pd.DataFrame, column: str) -> None:
    old, new = both[f"{column}_golden"].astype("float64"), both[column].astype("float64")
    pd.testing.assert_series_equal(old, new, check_names=False, rtol=0 if column in EXACT else 1e-8)
