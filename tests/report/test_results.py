"""Records files and stores as one DataFrame; what can't be read is named, left out and kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import bench
from bench.errors import UserError
from bench.planning import manifest
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.report.collect import collect
from bench.report.publish import write
from bench.report.results import from_store, present, to_frame
from bench.report.rows import pool
from bench.store import predictions, record
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.entries import Entry, read_jsonl, write_jsonl
from bench.store.record import Record, RunFacts
from bench.store.sealing import read_sealed, sealed
from tests.report.board_data import entry, grid, three

RESULT = {
    "top1": 0.5, "oracle_top1": 0.6, "image_bytes": 10, "label_bytes": 20, "epochs": 3, "images": 10,
    "test_images": 360, "curve": [[1, 0.6], [3, 0.5]],
}  # fmt: skip


def filled(root: Path, made: Grid, fails: Cell | None = None) -> Store:
    """A store in which every cell of a grid is done, but one that failed and what stands on it."""
    store = Store(root)
    manifest.keep(store, made)
    for seconds, cell in enumerate(made.cells, start=1):
        run = RunFacts(started="", seconds=seconds, peak_memory=1 << 30, environment={"cpu": "synthetic"})
        if cell == fails:
            store.fail(Record(id=cell.id, cell=cell, state="failed", run=run, error="ValueError: no"))
        elif fails is None or fails.id not in cell.parents.values():
            with store.draft(cell.id) as draft:
                store.commit(draft, Record(id=cell.id, cell=cell, state="done", result=RESULT, run=run))
    return store


def small(**given: Any) -> Grid:
    return plan(Request(**{"methods": ("rded",), "ipc": (1,), "seeds": (0, 1), "baselines": False, **given}))


def entries_of(store: Store) -> list[Entry]:
    return [one for own in collect(store).values() for one in own]


# -- files


def test_a_file_is_one_typed_row_per_student(tmp_path: Path) -> None:
    made = [*three((0.9, 0.91, 0.92)), entry(method="hello[conv_rank=4]", ipc=None, student_seed=3, state="missing")]
    (tmp_path / "x.records.jsonl").write_text(write_jsonl(reversed(made)))
    frame = bench.load_results(tmp_path / "x.records.jsonl")
    assert frame["top1"].tolist()[:3] == [0.9, 0.91, 0.92] and np.isnan(frame["top1"].iloc[3])
    assert frame["seed"].tolist() == [0, 1, 2, 0] and frame["student_seed"].tolist() == [0, 1, 2, 3]
    assert frame["ipc"].isna().tolist() == [False] * 3 + [True] and str(frame["ipc"].dtype) == "Int64"
    assert (frame["base"].iloc[3], frame["settings"].iloc[3]) == ("hello", "conv_rank=4")
    assert (frame["seconds_teacher"].iloc[0], frame["seconds_total"].iloc[0]) == (20.0, 25.5)
    assert frame["data_digest"].tolist() == [""] * 4 and frame["predictions"].tolist() == [""] * 4
    assert frame.attrs["left_out"] == []


def test_folders_files_and_several_of_them(tmp_path: Path) -> None:
    (tmp_path / "suites/ablation").mkdir(parents=True)
    for path, dataset in (("a", "a"), ("suites/ablation/b", "b")):
        (tmp_path / f"{path}.records.jsonl").write_text(write_jsonl([entry(dataset=dataset)]))
    frame = bench.load_results(tmp_path)
    assert list(zip(frame["dataset"], frame["suite"], strict=True)) == [("a", ""), ("b", "ablation")]
    both = bench.load_results([tmp_path / "a.records.jsonl", str(tmp_path)])
    assert len(both) == 2 and both.attrs["left_out"] == []  # the same record counts once
    (tmp_path / "c.records.jsonl").write_text(write_jsonl([entry(dataset="a", top1=0.1)]))
    (said,) = bench.load_results(tmp_path).attrs["left_out"]
    assert said.endswith(": 2 records with other accuracies")
    for nothing in (tmp_path / "no", tmp_path / "suites"):
        with pytest.raises(UserError, match="no records in"):
            bench.load_results(nothing)


def test_a_minimal_line_is_enough(tmp_path: Path) -> None:
    line = {"cell": "x", "dataset": "pets", "title": "pets", "method": "m", "labels": "hard", "ipc": 1, "student": "s",
            "protocol": "p", "protocol_version": 1, "seed": 0, "state": "done", "top1": 0.5}  # fmt: skip
    (tmp_path / "pets.records.jsonl").write_text(json.dumps(line) + "\n")
    frame = bench.load_results(tmp_path)
    assert frame["label_bytes"].isna().all() and len(pool(frame)) == 1


DEEP = '{"cell":' + "[" * 100_000 + "]" * 100_000 + "}"
BAD = {
    '{"schema_version":99,"cell":"from the future"}': "schema_version",
    '{"cell": 3}': "cell",
    "{torn": "JSON",
    "[1]": "Input should be",
    DEEP: "JSON",
    '{"cell":"' + "x" * (1 << 20) + '"}': "characters; at most",
    **{json.dumps(json.loads(entry().line) | wrong): next(iter(wrong)) for wrong in (
        {"top1": 1.5}, {"top1": -0.1}, {"label_bytes": -1}, {"image_bytes": -7}, {"seconds": {"evaluate": -1}},
        {"curve": [[1, 2.0]]}, {"ipc": 0}, {"seed": 10**20}, {"image_bytes": 2**63}, {"state": "gone"})},
    entry().line.replace('"top1":0.9', '"top1":NaN'): "top1",
    entry().line.replace('"top1":0.9', '"top1":1e999'): "top1",
}  # fmt: skip


def test_lines_that_are_no_records_are_named_counted_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "digits.records.jsonl"
    path.write_text("\n".join([*BAD, *write_jsonl(three((0.9, 0.91, 0.92))).splitlines()]))
    found = read_jsonl(path)
    assert len(found.entries) == 3 and {one.line for one in found.left_out} == set(BAD)
    for one in found.left_out:
        assert BAD[one.line] in one.why and "\n" not in str(one) and len(str(one)) < 300
    frame = bench.load_results(path)
    assert len(frame) == 3 and len(frame.attrs["left_out"]) == len(BAD)
    (board,) = present(tmp_path)
    write(board, tmp_path / "out")
    head = (tmp_path / "out/digits.md").read_text().partition("## Which")[0]
    assert f"{len(BAD)} records left out:" in head
    assert read_jsonl(tmp_path / "out/digits.records.jsonl") == found  # a newer release may know them


def test_what_is_no_regular_file_is_left_out_whole(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.records.jsonl")
    (tmp_path / "b.records.jsonl").mkdir()
    (tmp_path / "c.records.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d.records.jsonl").write_text(entry().line)
    frame = bench.load_results(tmp_path)
    assert len(frame) == 1 and len(frame.attrs["left_out"]) == 3


def test_a_done_record_needs_a_number_that_is_one() -> None:
    for top1 in (None, float("nan"), 90.0):
        with pytest.raises(ValidationError):
            entry(top1=top1)


def test_records_come_back_from_their_file_in_any_order(tmp_path: Path) -> None:
    made = [*grid(), entry(method="sre2l", seed=9, state="missing"), entry(dataset="other", changed={"set": ["a.b=1"]})]
    text = write_jsonl(reversed(made))
    assert text == write_jsonl([*made, *made[:5]])  # repeats count once
    (tmp_path / "x.records.jsonl").write_text(text)
    assert write_jsonl(read_jsonl(tmp_path / "x.records.jsonl").entries) == text


def test_reading_needs_neither_torch_nor_pandas_and_results_no_torch() -> None:
    program = (
        "import sys, bench, bench.store.entries; print({'pandas', 'scipy', 'torch'} & set(sys.modules));"
        "bench.load_results('leaderboards'); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.split("\n")[:2] == ["set()", "False"]


# -- stores


def test_a_store_gives_a_record_for_every_student(tmp_path: Path) -> None:
    """Seconds are those of all cells behind it, by stage; a failure is told of what stands on the failed cell too."""
    made = small()
    failed = next(cell for cell in made.stage("distill") if cell.fields["seed"] == 1)
    done, other = sorted(entries_of(filled(tmp_path, made, failed)), key=lambda one: one.seed)
    assert (done.state, done.top1, done.full_label_bytes, done.test_images) == ("done", 0.5, 3 * 10 * 10 * 2, 360)
    assert (done.curve, done.epochs, done.images) == (((1, 0.6), (3, 0.5)), 3, 10)
    assert (done.peak_memory, done.via, done.changed, done.augmented) == (1 << 30, "rded", {}, True)
    assert done.parents == made.stage("evaluate")[0].parents and done.protocol_digest == other.protocol_digest != ""
    # the cells in their order: teacher, scores of two seeds, images of two, labels, students
    assert done.seconds == {"teacher": 1.0, "prepare": 2.0, "distill": 4.0, "label": 6.0, "evaluate": 7.0}
    assert (other.state, other.reason) == ("failed", f"{failed.id}: ValueError: no")


def test_what_was_asked_beyond_the_names_is_kept_where_it_matters(tmp_path: Path) -> None:
    checkpoint = tmp_path / "r18.pth"
    checkpoint.write_bytes(b"weights")
    made = plan(
        Request(
            methods=("hello", "rded"), ipc=(1,), seeds=(0,), clip="RN50:openai", teacher=checkpoint,
            overrides={"hello": {"conv_rank": 4}, "teacher": {"accuracy": 0.5}},
        )
    )  # fmt: skip
    changed = {(one.method, one.via): one.changed for one in entries_of(filled(tmp_path / "store", made))}
    usual = {"clip": "RN50:openai", "teacher": "r18.pth"}  # where the file lay says nothing elsewhere
    for (method, via), found in changed.items():
        settings = ["hello.conv_rank=4", "teacher.accuracy=0.5"] if via == "hello" else ["teacher.accuracy=0.5"]
        assert found == ({} if method == "full_data" else {**usual, "set": settings})


def test_student_seeds_stand_beside_those_of_distillation(tmp_path: Path) -> None:
    """A grid with student seeds and one without share the cells that both ask for, and fill the same rows."""
    store = filled(tmp_path, small(baselines=True))
    manifest.keep(store, small(baselines=True, student_seeds=(0, 5)))
    found = entries_of(store)
    seeds = sorted(one.seeds for one in found if (one.method, one.labels) == ("rded", "teacher"))
    assert seeds == [(0, 0), (0, 5), (1, 0), (1, 1), (1, 5)]
    assert {one.seeds for one in found if one.state == "done" and one.method == "rded"} == {(0, 0), (1, 1)}
    rows = pool(to_frame(found))
    assert rows.loc[rows["method"] == "rded", "students"].tolist() == [2, 2]


def test_the_same_recipe_without_augmentation_is_known_as_such(tmp_path: Path) -> None:
    text = Path("evaluators/protocols/common-digits-cpu.toml").read_text()
    plain, other = tmp_path / "plain.toml", tmp_path / "other.toml"
    text = text.replace('"common-digits-cpu"', '"plain"').replace('crop = "rrc"', 'crop = "none"\nflip = false')
    plain.write_text(text.replace('mix = "cutmix"', 'mix = "none"'))
    other.write_text(plain.read_text().replace('"plain"', '"other"').replace("lr = 2e-3", "lr = 1e-3"))
    made = small(seeds=(0,), protocols=("common", str(plain), str(other)))
    found = {one.protocol: one for one in entries_of(filled(tmp_path / "store", made))}
    assert [found[name].augmented for name in ("common-digits-cpu", "plain", "other")] == [True, False, False]
    assert found["plain"].recipe == found["common-digits-cpu"].recipe != found["other"].recipe
    assert len({one.protocol_digest for one in found.values()}) == 3


def test_damaged_records_are_named_on_the_board_and_in_its_file(tmp_path: Path) -> None:
    made = small(seeds=(0, 1, 2))
    store = filled(tmp_path / "store", made)
    torn, wild, later = *made.stage("evaluate")[:2], made.stage("distill")[2]
    (store.folder(torn.id) / "record.json").write_text('{"schema_version": 1, "id":')
    for cell, old, new in ((later, '"schema_version": 1', '"schema_version": 7'), (wild, '"top1": 0.5', '"top1": 1.5')):
        path = store.folder(cell.id) / "record.json"
        path.write_text(sealed(read_sealed(path).decode().replace(old, new)))
    (board,) = from_store(store)
    assert sorted(one.state for one in board.entries) == ["done", "missing", "missing"]
    write(board, tmp_path / "out")
    head = (tmp_path / "out/digits.md").read_text().partition("## Which")[0]
    assert "3 records left out" in head and f"cells/{torn.id}/record.json: " in head
    assert f"cells/{later.id}/record.json: schema version 7 is not known to this release, which writes 1" in head
    assert f"cells/{wild.id}/record.json: top1: " in head


def test_a_number_of_other_images_than_are_there_is_left_out_by_name(tmp_path: Path) -> None:
    """A record from another store, or the old one beside images that were made again."""
    made = small(seeds=(0, 1))
    store = filled(tmp_path, made)
    moved, kept = made.stage("evaluate")
    for cell, content in ((moved, "of another store"), (kept, store.record(kept.parents["images"]).content)):  # type: ignore[union-attr]
        path, inputs = store.folder(cell.id) / "record.json", {cell.parents["images"]: content}
        path.write_text(Record.parse(read_sealed(path)).model_copy(update={"inputs": inputs}).text)
    found = {one.cell: one for one in entries_of(store)}
    assert (found[kept.id].state, found[kept.id].damaged) == ("done", ())
    assert (found[moved.id].state, found[moved.id].top1) == ("missing", None)
    assert found[moved.id].damaged == (
        f"cells/{moved.id}: made from another {moved.parents['images']} than is there now",
    )


def test_the_last_request_decides_though_the_clock_went_back(tmp_path: Path) -> None:
    store, first, second = Store(tmp_path), small(seeds=(0,)), small(seeds=(1,))
    path = manifest.keep(store, first)
    later = manifest.Manifest(asked="2999-01-01T00:00:00.000001+00:00", grid=first)
    path.write_text(sealed(later.model_dump_json()))
    manifest.keep(store, second)
    assert [one.grid.id for one in manifest.newest_first(store)] == [second.id, first.id]
    path.write_bytes(b'{"digest": "0", "asked":"never"')
    manifest.keep(store, first)
    assert [one.grid.id for one in manifest.newest_first(store)] == [first.id, second.id]


def test_a_damaged_failure_is_named(tmp_path: Path) -> None:
    made = small(seeds=(0,))
    failed = made.stage("evaluate")[0]
    store = filled(tmp_path, made, failed)
    (store.root / "failures" / f"{failed.id}.json").write_text("{")
    (one,) = entries_of(store)
    assert (one.state, one.damaged) == ("missing", (f"failures/{failed.id}.json: it can't be read",))


def test_a_record_of_an_older_version_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synthetic version -1 gave accuracies in percent; version 0 kept seconds apart from how a cell ran."""
    made = small(seeds=(0,))
    store = filled(tmp_path, made)
    (expected,) = entries_of(store)
    path = store.folder(made.stage("evaluate")[0].id) / "record.json"
    old = json.loads(read_sealed(path))
    old["seconds"] = old["run"].pop("seconds")
    old["result"] = {**old["result"], "top1": 50.0}
    path.write_text(sealed(json.dumps(old | {"schema_version": -1})))
    assert "schema version -1 is not known" in entries_of(store)[0].damaged[0]

    def fraction(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "result": {**record["result"], "top1": record["result"]["top1"] / 100}}

    def timed(record: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in record.items() if key != "seconds"}
        return {**rest, "run": {**record["run"], "seconds": record["seconds"]}}

    monkeypatch.setitem(record.UPGRADES, -1, fraction)
    monkeypatch.setitem(record.UPGRADES, 0, timed)
    assert entries_of(store) == [expected]


# -- predictions


def test_predictions_travel_from_cells_to_the_file_of_a_board(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", small(seeds=(0, 1)))
    truth = np.arange(8) % 2
    for cell in small(seeds=(0, 1)).stage("evaluate"):
        predictions.save(np.zeros(8, np.int64), truth, store.folder(cell.id) / predictions.FILE)
    for _ in range(2):
        (board,) = from_store(store)
        write(board, tmp_path / "out")
    for frame in (bench.load_results(tmp_path / "store"), bench.load_results(tmp_path / "out")):
        assert (frame["predictions"] != "").all()
        for one in frame.itertuples():
            assert predictions.load_scores(one.predictions, [one.cell])[one.cell].tolist() == [1.0, 0.0] * 4
    assert present(tmp_path / "out")[0].files.keys() == {one.cell for one in board.entries}
    assert not np.isnan(pool(frame)["top1_low"].iloc[0])


def test_scores_of_steps_have_the_mean_over_the_steps(tmp_path: Path) -> None:
    predicted = np.array([[0, 1, -1, -1], [0, 0, 1, 1]])  # classes 0 and 1 first: half right, then 3 of 4
    predictions.save(predicted, np.array([0, 0, 1, 1]), tmp_path / predictions.FILE)
    (scores,) = predictions.load_scores(str(tmp_path / predictions.FILE), ["x"]).values()
    assert scores.mean() == pytest.approx((0.5 + 1.0) / 2)


def test_predictions_that_are_not_those_of_the_record_are_not_used(tmp_path: Path) -> None:
    store = filled(tmp_path, small(seeds=(0, 1)))
    before = pool(bench.load_results(tmp_path))
    for cell in small(seeds=(0, 1)).stage("evaluate"):
        predictions.save(np.zeros(8, np.int64), np.zeros(8, np.int64), store.folder(cell.id) / predictions.FILE)
    after = pool(bench.load_results(tmp_path))
    assert before[["top1_low", "top1_high"]].equals(after[["top1_low", "top1_high"]])
    assert all("give another accuracy than recorded" in " ".join(one) for one in after["remarks"])
    (tmp_path / "x.predictions.safetensors").write_bytes(b"\xff" * 40)
    assert predictions.predicted_cells(tmp_path / "x.predictions.safetensors") == {}
