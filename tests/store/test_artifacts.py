"""The store: atomic, checked by digest, blind to half-written work."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.files import write_atomically
from bench.store import artifacts as store_module
from bench.store.artifacts import Damaged, Store
from bench.store.cell import Cell
from bench.store.locks import lease
from bench.store.record import Record, RunFacts
from bench.store.sealing import read_sealed

RUN = RunFacts(started="2026-01-01T00:00:00+00:00", seconds=1.0, peak_memory=1, environment={})


def cell(name: str = "a") -> Cell:
    return Cell(stage="distill", by="rded", version=1, fields={"name": name}, prefix=name)


def committed(store: Store, made: Cell, content: str = "pixels") -> Record:
    with store.draft(made.id) as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "file.txt").write_text(content)
        record = Record(id=made.id, cell=made, state="done", files=store.facts(draft), run=RUN)
        store.commit(draft, record)
    return record


def test_what_is_committed_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = committed(store, cell())
    assert store.record(cell().id) == record
    store.verify(record)
    assert record.bytes == len("pixels")
    assert list(store.records()) == [record]


def test_colleagues_may_read_what_is_committed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = committed(store, cell())
    umask = os.umask(0)
    os.umask(umask)
    for path in (store.folder(record.id), store.folder(record.id) / "record.json"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~umask


def test_an_abandoned_draft_does_not_exist(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.draft(cell().id) as draft:
        (draft / "half.txt").write_text("half")
        raise RuntimeError("killed")
    assert store.record(cell().id) is None
    assert [*(tmp_path / "cells").iterdir(), *(tmp_path / "drafts").iterdir()] == []


@pytest.mark.parametrize("damage", ["changed", "same size", "missing", "added"])
def test_damage_is_noticed_by_digest(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    record = committed(store, cell())
    path = store.folder(record.id) / "deep" / "file.txt"
    match damage:
        case "changed":
            path.write_text("other pixels")
        case "same size":
            path.write_text("Pixels")
        case "missing":
            path.unlink()
        case "added":
            path.with_name("more.txt").write_text("more")
    with pytest.raises(Damaged, match=record.id):
        store.verify(record)


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    record = committed(store, cell())
    hashed: list[str] = []
    monkeypatch.setattr(store_module, "_LARGE", 1)
    digest = store_module.sha256_of
    monkeypatch.setattr(store_module, "sha256_of", lambda path: (hashed.append(path.name), digest(path))[1])
    for _ in range(3):
        Store(tmp_path).verify(record)
    assert len(hashed) == len(record.files) == len(set(hashed))
    path = store.folder(record.id) / next(iter(record.files))
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])  # of the same size
    with pytest.raises(Damaged):
        store.verify(record)
    path.write_bytes(content)
    store.verify(record)


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_a_record_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    record = committed(store, cell())
    (store.folder(record.id) / "record.json").write_text(text)
    with pytest.raises(Damaged, match=r"record\.json"):
        store.record(record.id)


def test_the_record_of_another_cell_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, other = committed(store, cell("a")), committed(store, cell("b"))
    text = (store.folder(one.id) / "record.json").read_text()
    (store.folder(other.id) / "record.json").write_text(text)
    with pytest.raises(Damaged, match="is the record of"):
        store.record(other.id)


def test_a_folder_without_a_record_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.folder("a")).mkdir()
    with pytest.raises(Damaged, match=r"cells/a/record\.json"):
        store.record("a")


def test_an_artifact_that_comes_while_it_is_looked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, looked = Store(tmp_path), []

    def too_early(path: str | Path) -> bytes:
        if not looked:
            looked.append(committed(store, cell()))
            raise FileNotFoundError
        return read_sealed(path)

    monkeypatch.setattr(store_module, "read_sealed", too_early)
    assert store.record(cell().id) == looked[0]


def test_one_look_tells_what_a_store_has(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done, failed, running, drafted = map(cell, "abcd")
    committed(store, done)
    store.fail(Record(id=failed.id, cell=failed, state="failed", run=RUN, error="ValueError: no"))
    (store.root / "heartbeats" / f"{running.id}.json").write_text("{}")
    (tmp_path / "cells" / ".nfs0001").mkdir()  # as a network file system leaves them
    with store.draft(drafted.id):
        kinds = ("cells", "failures", "heartbeats")
        assert [store.ids(kind) for kind in kinds] == [{done.id}, {failed.id}, {running.id}]


def test_the_drafts_of_killed_workers_are_swept_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine, other = (tmp_path / "drafts" / f"{name}.killed" for name in (cell("a").id, cell("b").id))
    mine.mkdir()
    other.mkdir()
    with store.draft(cell("a").id) as draft:
        assert sorted((tmp_path / "drafts").iterdir()) == sorted([draft, other])


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "board.md"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(OSError):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_that_can_not_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="choose another with --store"):
        Store(tmp_path / "file")


def test_failures_are_kept_until_the_cell_is_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail(Record(id=cell().id, cell=cell(), state="failed", run=RUN, error="ValueError: no"))
    failure = store.failure(cell().id)
    assert failure is not None and failure.error == "ValueError: no"
    committed(store, cell())
    assert store.failure(cell().id) is None


def _hold(root: Path, name: str, held: Any, release: Any) -> None:
    with lease(root, name) as ours:
        held.put(ours)
        release.wait(30)


def test_one_process_holds_a_lease_and_its_death_ends_it(tmp_path: Path) -> None:
    Store(tmp_path)
    context = multiprocessing.get_context("spawn")
    held, release = context.Queue(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, "cell", held, release))
    holder.start()
    assert held.get(timeout=30) is True
    with lease(tmp_path, "cell") as ours:
        assert not ours
    with lease(tmp_path, "other cell") as ours:
        assert ours
    holder.kill()  # as the out-of-memory killer does
    holder.join()
    with lease(tmp_path, "cell") as ours:
        assert ours


def test_a_store_of_another_format_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "older" / "cells" / "a-1").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"older has format 1, and this release reads and writes format 3; .* --store"):
        Store(tmp_path / "older")
    assert sorted(tmp_path.rglob("*")) == before
    Store(tmp_path / "ours")
    assert Store(tmp_path / "ours").root.name == "ours"
    (tmp_path / "ours" / "format.json").write_text('{"format": 4}')
    with pytest.raises(UserError, match="has format 4"):
        Store(tmp_path / "ours")
    (tmp_path / "ours" / "format.json").write_text("{")
    with pytest.raises(UserError, match="has format 0"):
        Store(tmp_path / "ours")
