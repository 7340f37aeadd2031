"""The figure of accuracy against classes seen: what it shows is what was measured after each step."""

from __future__ import annotations

import csv
import io
from itertools import product
from typing import Any

import pytest

from bench.report_legacy.board import Row, make_rows
from bench.report_legacy.entries import Entry, read_jsonl, render_jsonl
from bench.report_legacy.plots import draw, stale
from bench.report_legacy.plots.steps import by_step
from tests.harness.test_plots import RANDOM, entry, grid, words

STEPS = {"hello": [(2, 0.9), (5, 0.8), (10, 0.7)], "rded": [(2, 1.0), (5, 0.6), (10, 0.5)]}
KINDS = {"hello": "projector", "rded": "teacher"}
CLASSES = "digits/accuracy-classes"


def entries(protocol: str = "continual-3", **more: Any) -> list[Entry]:
    found = []
    for method, seed in product(STEPS, (0, 1, 2)):
        steps = tuple((classes, top1 - 0.02 * seed) for classes, top1 in STEPS[method])
        mean = sum(top1 for _, top1 in steps) / 3
        facts: dict[str, Any] = {"method": method, "labels": KINDS[method], "protocol": protocol, "seed": seed} | more
        found.append(entry(cell=f"{protocol}-{method}-{seed}", top1=mean, steps=steps, **facts))
    return found


def rows(**more: Any) -> list[Row]:
    full = entry(method="full_data", labels="hard", ipc=None, protocol="continual-3", steps=((2, 1.0), (10, 0.95)))
    return make_rows([*entries(**more), full])


def test_it_shows_the_mean_after_every_step() -> None:
    files = draw(rows(), {}, RANDOM)
    lines = list(csv.DictReader(io.StringIO(files[f"{CLASSES}.csv"].decode())))
    shown = {(line["method"], int(line["classes_seen"])): line for line in lines}
    assert len(shown) == len(lines) == 8
    for method, steps in STEPS.items():
        for classes, first in steps:
            line = shown[(method, classes)]
            assert float(line["top1_mean"]) == pytest.approx(first - 0.02)
            assert float(line["top1_ci95"]) == pytest.approx(4.302653 * 0.02 / 3**0.5)  # Student's t of two freedoms
            assert (line["n"], line["panel"]) == ("3", "10 images per class, online labels")
    assert float(shown[("full_data", 10)]["top1_mean"]) == 0.95
    text = words(files[f"{CLASSES}.svg"])
    for word in (
        "Accuracy against classes seen",
        "classes seen",
        "full data",
        "n = 3",
        "hello, projector, IPC 10: 88.0",
    ):
        assert word in text
    assert files[f"{CLASSES}.png"].startswith(b"\x89PNG")
    assert next(iter(files)) == f"{CLASSES}.svg"  # a page unfolds the first


def test_students_of_one_set_count_as_one() -> None:
    steps = {(0, 0): 0.5, (0, 1): 0.7, (1, 0): 0.9}
    (row,) = make_rows(
        entry(cell=f"{seed}-{student}", seed=seed, student_seed=student, top1=top1, steps=((3, top1),))
        for (seed, student), top1 in steps.items()
    )
    (point,) = by_step(row)
    assert (point.x, point.n) == (3, 2)
    assert point.top1 == pytest.approx(0.75)


def test_each_protocol_has_its_own_and_others_have_none() -> None:
    both = make_rows([*entries(), *entries("continual-5")])
    files = draw(both, {}, RANDOM)
    assert sum("accuracy-classes" in name and name.endswith(".svg") for name in files) == 2
    assert "or over all steps" in words(files["digits/accuracy-ipc.svg"])
    assert not any("accuracy-classes" in name for name in draw(grid(), {}, RANDOM))


def test_another_accuracy_makes_it_stale() -> None:
    files = draw(rows(), {}, RANDOM)
    assert stale(rows(), {}, RANDOM, present=files.get) == []
    changed = [
        one.model_copy(update={"steps": ((2, 0.5), *one.steps[1:])}) if one.seed == 1 else one for one in entries()
    ]
    full = [row.entries[0] for row in rows() if row.ipc is None]
    assert f"{CLASSES}.svg" in stale(make_rows([*changed, *full]), {}, RANDOM, present=files.get)


@pytest.mark.parametrize("count", [1, 10, 11, 100, 1000])
def test_many_classes_fit(count: int) -> None:
    steps = tuple((classes, 1 / classes) for classes in range(1, count + 1, max(1, count // 100)))
    files = draw(make_rows([entry(steps=steps)]), {}, RANDOM)
    assert files[f"{CLASSES}.csv"].count(b"\n") == len(steps) + 1


def test_entries_keep_their_steps(tmp_path: Any) -> None:
    path = tmp_path / "digits.records.jsonl"
    path.write_text(render_jsonl(entries()))
    assert [one.steps for one in read_jsonl(path).entries] == [
        one.steps for one in sorted(entries(), key=lambda e: e.row)
    ]
