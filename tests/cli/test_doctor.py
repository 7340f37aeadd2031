"""What the doctor finds: here, of a made-up cluster, and in what nodes say of themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.errors import UserError
from bench.slurm import doctor, node_check, queue
from bench.slurm.arrays import Array
from bench.slurm.doctor import Check, check_cluster, check_machine, versions
from bench.slurm.journal import Journal
from bench.slurm.node_check import NodeCheck
from bench.slurm.profile import Profile, Resources
from bench.slurm.queue import EndedTask, QueuedTask
from bench.store.artifacts import Store
from bench.store.locks import lease


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to import."""
    monkeypatch.setattr(doctor, "_IMPORT_TORCH", 'print(\'["2.9", 1, "H200"]\')')


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_this_machine_is_well(tmp_path: Path) -> None:
    found = by_name(check_machine(tmp_path / "new"))
    assert all(check.ok for check in found.values()), found
    assert set(found) >= {"python", "store", "locks", "torch"}
    assert not list((tmp_path / "new" / "leases").iterdir()) and not (tmp_path / "new" / ".doctor").exists()


def test_a_container_with_little_shared_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"total": 64 * 2**20, "free": 2**40})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    check = by_name(check_machine(tmp_path))["shared memory"]
    assert check.ok is False and "0.06 GiB" in check.found and "--shm-size" in check.advice


def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = by_name(check_machine(tmp_path / "file"))["store"]
    assert check.ok is False and "--store" in check.advice


def test_locks_that_lock_nothing_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def careless(root: Path, name: str) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(doctor, "lease", careless)  # here; the other process locks in earnest
    check = by_name(check_machine(tmp_path))["locks"]
    assert check.ok is False and "flock" in check.advice


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise ImportError('libcudart.so.12: no such file')", "ImportError: libcudart.so.12: no such file"),
        ("import os; os.abort()", "exit code -6"),
    ],
)
def test_torch_that_cannot_be_imported(code: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_IMPORT_TORCH", code)
    assert doctor.check_torch("advice") == Check("torch", False, found, "advice")


def test_torch_that_finds_no_accelerator_where_one_was_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_IMPORT_TORCH", 'print(\'["2.9", 0, ""]\')')
    check = doctor.check_torch("advice", needs_gpu=True)
    assert check.ok is False and "finds no accelerator, though gres requests one" in check.found


class Commands:
    """A cluster, as its commands tell of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.says: dict[str, str | None] = {
            "sinfo": "gpu*\nlong",
            "sacctmgr": "vision|normal,high",
            "scontrol": "AccountingStorageEnforce = associations,limits\nMaxArraySize = 1001",
            "sacct": "",
        }
        monkeypatch.delenv("SBATCH_PARTITION", raising=False)
        monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}" if self.says else None)
        monkeypatch.setattr(queue, "run_command", lambda name, *_, **__: self.says.get(name))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def test_a_cluster_that_has_what_the_profile_asks_for(commands: Commands) -> None:
    heavy = Resources(cells=("teacher",), partition="long", qos="high", gres="gpu:1")
    found = list(check_cluster(Profile(account="vision", resources={"heavy": heavy})))
    assert all(check.ok for check in found), found
    assert [check.name for check in found].count("partition") == 1
    assert {"account", "qos", "arrays", "accounting"} <= {check.name for check in found}


def test_what_the_cluster_does_not_have(commands: Commands) -> None:
    profile = Profile(partition="gpus", account="visions", qos="higher")
    found = by_name(check_cluster(profile))
    assert found["partition"].ok is False and found["partition"].advice == "did you mean gpu?"
    assert found["account"].ok is False and "vision" in found["account"].advice
    assert found["qos"].ok is False and "high, normal" in found["qos"].advice
    commands.says["sinfo"] = "gpu\nlong"
    commands.says["scontrol"] = "AccountingStorageEnforce = none"
    assert by_name(check_cluster(profile))["account"].ok is None, "nobody minds"
    assert "no default" in by_name(check_cluster(Profile()))["partition"].found


def test_what_cannot_be_known_is_no_fault(commands: Commands) -> None:
    commands.says |= {"sacctmgr": None, "sacct": None}
    found = by_name(check_cluster(Profile(account="vision")))
    assert found["account"].ok is None and found["accounting"].ok is None
    commands.says.clear()
    assert [check.ok for check in check_cluster(Profile())] == [None], "no Slurm here, and none was asked for"
    assert [check.ok for check in check_cluster(Profile(name="horeka"))] == [False]


def test_a_cluster_that_does_not_answer(commands: Commands) -> None:
    commands.says["sinfo"] = None
    assert [(check.name, check.ok) for check in check_cluster(Profile())] == [("commands", True), ("cluster", False)]


def on_a_node(store: Store, seen: dict[str, Any] | None) -> dict[str, Check]:
    with lease(store.root, "x"):
        return by_name(NodeCheck("", str(store.root), "x", needs_gpu=False).checks(seen))


def test_a_node_that_is_well(tmp_path: Path, commands: Commands) -> None:
    found = on_a_node(Store(tmp_path), {"time": 0.0, "versions": versions()})
    assert all(check.ok for check in found.values()), found
    assert set(found) == {"job", "code", "torch", "store", "locks", "scontrol"}


@pytest.mark.parametrize("odd", [{"python": "3.0.1"}, {"distill-bench": "0"}])
def test_a_node_with_other_code(odd: dict[str, str], tmp_path: Path, commands: Commands) -> None:
    found = on_a_node(Store(tmp_path), {"versions": {**versions(), **odd}})
    ((name, text),) = odd.items()
    assert [one for one in found if not found[one].ok] == ["code"] and f"{name} " in found["code"].found
    assert f"{text} here" in found["code"].found and found["code"].advice


def test_a_node_without_the_store_locks_or_controller(tmp_path: Path, commands: Commands) -> None:
    commands.says["scontrol"] = None
    found = by_name(NodeCheck("", str(Store(tmp_path).root), "x", needs_gpu=False).checks(None))
    assert {one for one in found if not found[one].ok} == {"store", "locks", "scontrol"}
    assert "not visible there" in found["store"].found and "can be taken there" in found["locks"].found


@pytest.mark.parametrize(
    ("time", "seen", "ok", "words"),
    [
        (100.2, {"time": 100.0}, True, "by -0.3 to 0.2 s"),
        (130.5, {"time": 100.0}, False, "30 s ahead"),
        (80.0, {"time": 100.0}, False, "20 s behind"),
        (100.2, {"time": 70.0}, True, "files that come late say nothing against the clocks"),
        (60.0, None, True, "nor do files that never came"),
    ],
)
def test_clocks(time: float, seen: dict[str, float] | None, ok: bool, words: str) -> None:
    check = node_check.clock({"time": time, "seen": seen}, 100.5)
    assert check.ok is ok and (words in check.found or words.startswith(("files", "nor")))


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Jobs run in a thread of this process; what they were asked for."""
    asked: list[Any] = []

    def sbatch(here: Journal, profile: Profile, array: Array, calls: list[NodeCheck]) -> list[str]:
        asked.append(array.resources)
        threading.Thread(target=calls[0], daemon=True).start()
        return ["5"]

    monkeypatch.setattr(node_check, "call_sbatch", sbatch)
    monkeypatch.setattr(queue, "queued", lambda: {"5": QueuedTask("RUNNING", "None", "n1", True)})
    monkeypatch.setattr(queue, "run_command", lambda *_, **__: "up")
    return asked


def test_one_job_for_each_kind_of_node(tmp_path: Path, visited: list[Any]) -> None:
    heavy, other = Resources(cells=("teacher",), gres="gpu:1", minutes=999), Resources(cells=("label",), gres="gpu:1")
    profile = Profile(resources={"heavy": heavy, "other": other})
    store, told = Store(tmp_path), []
    found = list(node_check.check_nodes(store, profile, 5.0, told.append))
    assert [(one.gres, one.minutes) for one in visited] == [("gpu:1", 10), (None, 10)]
    assert list(dict.fromkeys(names for names, _ in found)) == ["heavy, other", "default"]
    wrong = [(names, check.name) for names, check in found if not check.ok]
    assert wrong == [], found
    assert not list((tmp_path / "slurm").iterdir()) and not list((tmp_path / "leases").iterdir())


def test_a_job_that_is_refused_or_does_not_start(
    tmp_path: Path, visited: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[str] = []
    monkeypatch.setattr(queue, "cancel", cancelled.extend)
    monkeypatch.setattr(node_check, "call_sbatch", lambda *_: ["6"])
    for reason, ok in (("Resources", None), ("PartitionDown", False)):
        monkeypatch.setattr(queue, "queued", lambda reason=reason: {"6": QueuedTask("PENDING", reason, "", False)})
        ((_, check),) = node_check.check_nodes(Store(tmp_path), Profile(), 0.0, lambda _: None)
        assert (check.ok, reason in check.found) == (ok, True)
    assert cancelled == ["6", "6"], "nothing is left in the queue"

    def refused(*_: Any) -> None:
        raise UserError("Slurm refused it, and nothing is left in the queue: Invalid account; bench doctor says more")

    monkeypatch.setattr(node_check, "call_sbatch", refused)
    ((_, check),) = node_check.check_nodes(Store(tmp_path), Profile(), 0.0, lambda _: None)
    assert (check.ok, check.found) == (False, "sbatch refuses it: Invalid account")


def test_a_job_that_ends_without_a_word(tmp_path: Path, visited: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def sbatch(here: Journal, *_: Any) -> list[str]:
        (here.folder / "7_0_log.err").write_text("bash: module: command not found\n")
        return ["7"]

    monkeypatch.setattr(node_check, "call_sbatch", sbatch)
    monkeypatch.setattr(queue, "queued", dict)
    monkeypatch.setattr(queue, "ended", lambda _: {"7": EndedTask("FAILED", "FAILED (exit code 127:0)")})
    monkeypatch.setattr(node_check, "UNSEEN", 0.0)
    ((_, check),) = node_check.check_nodes(Store(tmp_path), Profile(), 0.0, lambda _: None)
    assert check.ok is False
    assert "FAILED (exit code 127:0)" in check.found and "module: command not found" in check.found
    (folder,) = (tmp_path / "slurm").iterdir()
    assert str(folder) in check.advice, "its log is kept"


def test_the_screen_and_the_exit_code(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor", "--no-job"]) == 0
    shown = capsys.readouterr().out
    assert "✓ partition" not in shown and "✓ cluster" in shown and "all is well" in shown
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").write_text('partition = "gpux"')
    assert main(["doctor", "--no-job", "--profile", "mine"]) == 1
    shown = capsys.readouterr().out
    assert "✗ partition  there is no gpux here" in shown and "→ did you mean gpu?" in shown
    assert "1 of " in shown and max(map(len, shown.splitlines())) <= 80
    assert main(["doctor", "--profile", "yours"]) == 2
    assert "unknown profile 'yours'" in capsys.readouterr().err
