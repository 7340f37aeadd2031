"""What a cluster is asked for: a TOML file, ``--profile NAME``.

::

    partition = "gpu"                       # of every task, unless its resource class says otherwise
    account = "vision"
    setup = ["module load cuda/12.4"]       # shell lines before each task
    throttle = 64                           # tasks of a stage that run at a time

    [resources.heavy]                       # a resource class, of any name
    cells = ["teacher", "distill:sre2l"]    # a stage, one plug-in's cells of a stage, or "report"
    gres = "gpu:4"
    processes = 4                           # share one cell through torch.distributed
    cpus = 12                               # of each process
    memory_gb = 64
    minutes = 1440

What nothing says is left to sbatch, which also reads SBATCH_PARTITION, SBATCH_ACCOUNT and so on, over all of this.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from bench.api import BaseConfig
from bench.errors import UserError, unknown
from bench.planning.protocols import read_settings
from bench.store.cell import STAGES, Cell

REPORT = "report"  # the last job of a run, which writes the boards
_MINUTES = {"teacher": 24 * 60, "prepare": 24 * 60, "distill": 24 * 60, "label": 24 * 60, "evaluate": 8 * 60}
# A job of ten minutes or less counts as timed out whenever it is preempted (submitit, SignalHandler.has_timed_out).
_REPORT_MINUTES = 15


class Ask(BaseConfig):
    """What sbatch is asked for."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    cpus: int | None = Field(None, ge=1)  # of each process; at least --threads
    memory_gb: float | None = Field(None, gt=0)  # of each node
    minutes: int | None = Field(None, ge=1)


class Resources(Ask):
    """A resource class: what the tasks of some cells get."""

    cells: tuple[str, ...] = ()  # "teacher", "distill:sre2l", "report"
    processes: int = Field(1, ge=1)  # that share a cell, where its work can be shared; all on one node
    pack: int | None = Field(None, ge=1)  # cells in one task, one after the other; None: see Profile.pack_minutes

    @field_validator("cells")
    @classmethod
    def _are_stages(cls, cells: tuple[str, ...]) -> tuple[str, ...]:
        for name in cells:
            if name.partition(":")[0] not in (*STAGES, REPORT):
                raise ValueError(f"expected a stage ({', '.join(STAGES)}), STAGE:PLUG-IN or report, found {name}")
        return cells


class Profile(Ask):
    """How to use a cluster. What is set here holds for every resource class that doesn't set it itself."""

    name: str | None = None  # as ``--profile`` finds it again; None: the empty one
    wckey: str | None = None
    setup: tuple[str, ...] = ()
    max_array: int | None = Field(None, ge=1)  # tasks of an array; None: what the cluster allows (MaxArraySize)
    throttle: int | None = Field(None, ge=1)  # tasks of a stage and class at a time
    warning_seconds: int = Field(120, ge=10)  # between USR2 and the end of a job, see warning_of
    requeues: int = Field(100, ge=0)  # of a task that runs into its time limit and goes on from its checkpoint
    pack_minutes: float = Field(10.0, ge=0)  # cells known to be shorter are put together in tasks up to this long
    resources: dict[str, Resources] = Field(default_factory=dict)

    def class_of(self, stage: str, by: str = "") -> str:
        """The resource class of a stage's cells: the one that names STAGE:BY, else the one that names the stage."""
        for wanted in (f"{stage}:{by}", stage):
            for name, resources in self.resources.items():
                if wanted in resources.cells:
                    return name
        return "default"

    def of_cell(self, cell: Cell) -> str:
        """The resource class of a cell."""
        return self.class_of(cell.stage, cell.by)

    def resources_of(self, name: str, stage: str) -> Resources:
        """What a resource class gets in a stage, with what the profile says of all and our own time limits."""
        chosen = self.resources.get(name, Resources())
        general = {field: getattr(self, field) for field in Ask.model_fields}
        general["minutes"] = self.minutes or _MINUTES.get(stage, _REPORT_MINUTES)
        own = {field: value for field in Ask.model_fields if (value := getattr(chosen, field)) is not None}
        return chosen.model_copy(update={**general, **own})

    def warning_of(self, resources: Resources) -> int:
        """Seconds between the warning and the end of a job: of a short one, no more than a quarter of its time."""
        return min(self.warning_seconds, (resources.minutes or _REPORT_MINUTES) * 60 // 4)

    def with_more(self, memory_gb: float | None, minutes: int | None) -> Profile:
        """The same with other limits for every resource class: what a retry asks for."""
        more = {name: v for name, v in (("memory_gb", memory_gb), ("minutes", minutes)) if v is not None}
        resources = {name: one.model_copy(update=more) for name, one in self.resources.items()}
        return self.model_copy(update={**more, "resources": resources})


def folders() -> list[Path]:
    """Where ``NAME.toml`` is looked for."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [Path("profiles"), home / "distill-bench" / "profiles"]


def load(name: str | None) -> Profile:
    """The profile called ``name``, or that of a file if the name ends in ``.toml``; the empty one for None.

    Raises:
        UserError: there is none, or something in it is not what it should be.
    """
    if name is None:
        return Profile()
    if name.endswith(".toml"):
        path = Path(name)
    else:
        there = {path.stem: path for folder in reversed(folders()) for path in folder.glob("*.toml")}
        if name not in there:
            if there:
                raise unknown("profile", name, there)
            raise UserError(f"--profile {name}: no profiles in {' or '.join(map(str, folders()))}; see bench doctor -h")
        path = there[name]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--profile {name}: {path}: {error.strerror}; expected a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--profile {name}: {path} is not TOML: {error}") from None
    return _read(values, path).model_copy(update={"name": str(path.absolute())})


def _read(values: dict[str, Any], path: Path) -> Profile:
    classes = values.pop("resources", {})
    if not (isinstance(classes, dict) and all(isinstance(one, dict) for one in classes.values())):
        raise UserError(f"{path}: resources: expected tables such as [resources.heavy]")
    resources = {name: read_settings(Resources, one, f"{path}: [resources.{name}]") for name, one in classes.items()}
    named = [cells for one in resources.values() for cells in one.cells]
    if twice := sorted({cells for cells in named if named.count(cells) > 1}):
        raise UserError(f"{path}: {', '.join(twice)} stands in more than one resource class; each belongs to one")
    profile = read_settings(Profile, values, str(path))
    return profile.model_copy(update={"resources": resources})
