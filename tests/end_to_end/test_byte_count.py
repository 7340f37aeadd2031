"""The proof of the byte count: the counted files and the named public base are all that a student needs.

A small grid is run; then the store and the real training images are deleted, the counted files alone are put into an
empty folder, and a fresh process trains the same student from there to the same accuracy.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.api import catalogue
from bench.store.record import Record
from bench.store.sealing import read_sealed
from tests.conftest import Bench, environment

# Reads facts from standard input: what is public knowledge (the data set's title and statistics, the protocol), where
# the test images lie, and the folder that holds images/ and labels/ and nothing else.
STUDENTS = """
import json, sys, tempfile
from pathlib import Path
import torch
from bench.api import registry
from bench.api import DatasetInfo, EvaluationTask
from bench.kit import images, labels
from bench.api import Dataset
from bench.kit.data.dataset import Files, Resident

torch.set_num_threads(1)
cpu = torch.device("cpu")
nothing = Resident(torch.empty(0, 3, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
for facts in json.load(sys.stdin):
    info, place = DatasetInfo(**facts["info"]), Path(facts["place"])
    paths = sorted(Path(facts["test"]).glob("*/*.png"))
    classes = sorted({path.parent.name for path in paths})
    test = Files(paths, torch.tensor([classes.index(path.parent.name) for path in paths]), workers=0)
    evaluator = registry.evaluator(facts["by"])
    with tempfile.TemporaryDirectory() as work:
        result = evaluator().evaluate(EvaluationTask(
            dataset=info, data=Dataset(info, (), tuple(classes), nothing, test), images=images.load(place / "images"),
            labels=labels.load(place / "labels", cpu, registry.method("hello").label_kinds),
            student=facts["student"], protocol=evaluator.Config(**facts["protocol"]), seed=facts["seed"],
            device=cpu, work=Path(work), progress=lambda *_, **__: None, ipc=2,
        ))
    print(json.dumps([result["top1"], result["curve"]]))
"""


def records(store: Path) -> dict[str, Record]:
    found = [Record.parse(read_sealed(path)) for path in store.glob("cells/*/record.json")]
    return {record.id: record for record in found}


def copy_counted(record: Record, store: Path, place: Path) -> int:
    """Copy the files that a record counts, and no other; returns their bytes on disk."""
    for name in record.files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store / "cells" / record.id / name, place / name)
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def train_from(facts: list[dict[str, Any]], anywhere: Path) -> list[Any]:
    """[top-1, curve] of each student, trained in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", STUDENTS], cwd=anywhere, input=json.dumps(facts), env=environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_counted_files_and_the_public_base_give_the_same_accuracy(
    bench: Bench, colours: Path, tiny_protocol: Path, tmp_path: Path
) -> None:
    settings = [
        "teacher.arch=convnet2-w8", "teacher.epochs=6", "teacher.batch_size=8", "teacher.schedule=cosine",
        "teacher.lr=0.05", "hello.epochs=2", "hello.batch_size=8",
    ]  # fmt: skip
    done = bench(
        "run", "--methods", "rded,hello", "--ipc", "2", "--seeds", "0", "--dataset", f"folder:{colours}", "--students",
        "convnet2-w8", "--protocol", tiny_protocol, "--no-baselines", "--cluster", "inline", "--store", "store",
        "--labels", "native,stored:topk1,teacher:int8",
        *(part for setting in settings for part in ("--set", setting)),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    store, info = tmp_path / "store", catalogue.dataset(f"folder:{colours}").model_dump(mode="json")
    cells = records(store)
    wanted = {}
    for record in cells.values():
        if record.cell.stage != "evaluate":
            continue
        images, labels = (cells[record.cell.parents[role]] for role in ("images", "labels"))
        for part, role in ((images, "image"), (labels, "label")):
            on_disk = copy_counted(part, store, tmp_path / record.id / f"{role}s")
            assert part.bytes == on_disk == record.result[f"{role}_bytes"] > 0
        public = [(base.name, base.bytes > 1e6) for base in record.public]
        assert public == ([("icon-clip", True)] if labels.cell.by == "hello" else [])  # not where it only answered
        wanted[record.id] = record
    kinds = sorted(record.cell.row["labels"] for record in wanted.values())
    assert kinds == ["projector", "stored:topk1+fp16", "stored:topk1+fp16 of projector", "teacher", "teacher:int8"]
    shutil.rmtree(store)
    shutil.rmtree(colours / "train")
    facts = [
        {
            "info": info, "test": str(colours / "val"), "place": str(tmp_path / name),
            "by": record.cell.by, **{key: record.cell.fields[key] for key in ("student", "protocol", "seed")},
        }
        for name, record in wanted.items()
    ]  # fmt: skip
    results = [[record.result["top1"], [list(point) for point in record.result["curve"]]] for record in wanted.values()]
    assert train_from(facts, tmp_path) == results
