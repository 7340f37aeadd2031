"""A finished run on digits that takes seconds, for the verbs that look at what is there."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.store.artifacts import Store
from bench.store.record import Record
from tests.conftest import TINY_PROTOCOL, environment
from tests.processes import run_command

TEACHER = ("teacher.arch=convnet2-w8", "teacher.epochs=4", "teacher.lr=0.05")


@dataclass(frozen=True)
class Run:
    """A folder with a protocol, a store and boards, and the command line there."""

    place: Path

    @property
    def store(self) -> Store:
        return Store(self.place / ".bench")

    def bench(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``python -m bench …`` in the folder."""
        return run_command(list(map(str, arguments)), self.place, environment())

    def grid(self, method: str, *more: str | Path) -> subprocess.CompletedProcess[str]:
        """``bench run`` of one method, with what all runs here share."""
        return self.bench(*self.words(method, *more))

    def words(self, method: str, *more: str | Path) -> list[str | Path]:
        """Its arguments."""
        settings = [part for setting in TEACHER for part in ("--set", setting)]
        return [
            "run", "--methods", method, "--ipc", "2", "--students", "convnet2-w8", "--protocol",
            self.place / "tiny.toml", "--cluster", "inline", *settings, *more,
        ]  # fmt: skip

    def cell(self, start: str, store: Path | None = None) -> str:
        """The one cell whose id begins so."""
        found = [path.name for path in ((store or self.place / ".bench") / "cells").iterdir()]
        (one,) = [name for name in found if name.startswith(start)]
        return one

    def record(self, start: str, store: Path | None = None) -> Record:
        """Its record."""
        record = Store(store or self.place / ".bench").record(self.cell(start, store))
        assert record is not None
        return record

    def rewritten(self, store: Path, start: str, **changes: Any) -> None:
        """Change what the record of a cell says of its run and its result."""
        record = self.record(start, store)
        run = record.run.model_copy(
            update={"environment": {**record.run.environment, **changes.pop("environment", {})}}
        )
        record = record.model_copy(update={"run": run, "result": {**record.result, **changes}})
        (store / "cells" / record.id / "record.json").write_text(record.text)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """RDED on digits at IPC 2 with stored and hard labels, two seeds, without baselines. To be looked at only."""
    run = Run(tmp_path_factory.mktemp("finished"))
    (run.place / "tiny.toml").write_text(TINY_PROTOCOL)
    done = run.grid("rded", "--seeds", "0,1", "--labels", "stored:fp16,hard", "--no-baselines")
    assert done.returncode == 0, done.stdout + done.stderr
    return run
