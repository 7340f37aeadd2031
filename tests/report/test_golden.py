"""Committed boards against plain arithmetic on their records; one of version 0.1.0 against what it said then."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import pytest

import bench
from bench.report.rows import pool

ROOT = Path(__file__).parents[2]
BOARDS = ROOT / "leaderboards"
OLD = Path(__file__).parent / "board-of-0.1.0"
PLACE = ["board", "protocol", "ipc", "student", "method", "labels"]
EXACT = ["n", "image_bytes", "label_bytes", "public_bytes", "on_front"]
CLOSE = ["top1_mean", "top1_std", "oracle_mean", "seconds_total", "lrs", "ars"]


def pooled(boards: Path) -> pd.DataFrame:
    frame = bench.load_results(boards)
    found = pool(frame[frame["metric"] != "cost"])
    found["board"] = [f"suites/{suite}/{name}" if suite else name
                      for suite, name in zip(found["suite"], found["dataset"], strict=True)]  # fmt: skip
    return found


@pytest.fixture(scope="module")
def both() -> pd.DataFrame:
    golden = pd.read_csv(OLD / "golden.csv").astype({"ipc": "Int64"})
    return golden.merge(pooled(OLD), on=PLACE, how="left", suffixes=("_golden", ""), indicator=True)


def test_every_row_is_there(both: pd.DataFrame) -> None:
    assert len(both) > 10 and (both["_merge"] == "both").all()


@pytest.mark.parametrize("column", [*EXACT, *CLOSE])
def test_numbers_are_the_same(both: pd.DataFrame, column: str) -> None:
    old, new = both[f"{column}_golden"].astype("float64"), both[column].astype("float64")
    pd.testing.assert_series_equal(old, new, check_names=False, rtol=0 if column in EXACT else 1e-8)


def test_means_deviations_and_bytes_are_those_of_the_records() -> None:
    rows = pooled(BOARDS)
    records: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(BOARDS.rglob("*.records.jsonl")):
        name = path.relative_to(BOARDS).as_posix().removesuffix(".records.jsonl")
        for record in map(json.loads, path.read_text("utf-8").splitlines()):
            if record.get("state") == "done" and "top1" in record:
                records[name, *(record.get(field) for field in PLACE[1:])].append(record)
    compared = 0
    for place, own in rows.groupby(PLACE, dropna=False):
        key = tuple(None if pd.isna(part) else part for part in place)
        if len(own) != 1 or key not in records:  # two rows of one name, or another metric
            continue
        row, seeds = own.iloc[0], defaultdict(list)
        for record in records[key]:
            seeds[record["seed"]].append(record["top1"])
        values = [mean(of) for of in seeds.values()]
        assert row["n"] == len(values) and row["top1_mean"] == pytest.approx(mean(values), abs=1e-12), key
        if len(values) > 1:
            assert row["top1_std"] == pytest.approx(stdev(values), abs=1e-12), key
        assert row["label_bytes"] == pytest.approx(mean(one["label_bytes"] or 0 for one in records[key]), abs=1), key
        compared += 1
    assert compared > 0.8 * len(rows)
