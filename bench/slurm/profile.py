"""Profiles of clusters, ``--profile NAME``: TOML files that say which resources to request (see ``bench doctor -h``).

What is not set is left to sbatch, whose variables (SBATCH_PARTITION, SBATCH_ACCOUNT, …) override the profile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from bench.api import BaseConfig
from bench.api.catalogue import own_folder
from bench.errors import UserError, unknown
from bench.planning.protocols import read_settings, read_toml
from bench.slurm.profile_values import (
    Cells,
    Count,
    Duration,
    Gigabytes,
    Gres,
    Line,
    Minutes,
    ShellLines,
    Whole,
    in_our_words,
)
from bench.store.cell import STAGES

_MINUTES = {"teacher": 24 * 60, "prepare": 24 * 60, "distill": 24 * 60, "label": 24 * 60, "evaluate": 8 * 60}
# A job of ten minutes or less counts as timed out whenever it is preempted (submitit, SignalHandler.has_timed_out).
_REPORT_MINUTES = 15


class ResourceRequest(BaseConfig):
    """The resources to request from sbatch, whose own names are understood too."""

    _translate = model_validator(mode="before")(in_our_words)

    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    exclude: Line | None = None  # nodes
    nodelist: Line | None = None
    reservation: Line | None = None
    gres: Gres | None = None  # its accelerators are for all processes of a task, see Resources.scaled
    processes: Count | None = None  # per cell whose work can be shared; all on one node; None: 1
    tasks: Count | None = None  # per cell of independent blocks, each of one process on any node; None: 1
    cpus: Count | None = None  # per process; at least --threads
    memory_gb: Gigabytes | None = None  # per node
    minutes: Minutes | None = None


class Resources(ResourceRequest):
    """A resource class: the resources of the tasks of some cells."""

    cells: tuple[Cells, ...] = ()  # "teacher", "distill:METHOD", "report"
    pack: Count | None = None  # cells per task, one after the other; None: see Profile.pack_minutes

    def scaled(self, processes: int) -> Resources:
        """Return the resources of a task of so many processes: an accelerator each, if ``gres`` requests any."""
        entries = [entry.split(":") for entry in (self.gres or "").split(",")]
        for entry in entries:
            count = entry.pop() if entry[-1].isdecimal() else "1"
            if entry[0] in ("gpu", "gres/gpu") and count != "0":
                count = str(processes)
            entry.append(count)
        gres = ",".join(map(":".join, entries)) if self.gres else self.gres
        return self.model_copy(update={"gres": gres, "processes": processes})


class Profile(ResourceRequest):
    """The settings of a cluster. A resource class inherits every value that it doesn't set."""

    name: Line | None = None  # its path; None: the empty profile
    wckey: Line | None = None
    setup: ShellLines = ()
    max_array: Count | None = None  # tasks per array; None: what the cluster allows (MaxArraySize)
    throttle: Count | None = None  # tasks of a stage and class that run at the same time
    warning_seconds: Whole = Field(120, ge=10)  # between USR2 and the end of a job, see warning_of
    requeues: Whole = 100  # of a task that reaches its time limit and resumes from its checkpoint
    pack_minutes: Duration = 10.0  # cells known to be shorter are packed into tasks up to this long
    resources: dict[str, Resources] = Field(default_factory=dict)

    def class_of(self, stage: str, by: str = "") -> str:
        """Return the resource class of a stage's cells: the one that lists STAGE:BY, else the one with the stage."""
        for wanted in (f"{stage}:{by}", stage):
            for name, resources in self.resources.items():
                if wanted in resources.cells:
                    return name
        return "default"

    def resources_of(self, name: str, stage: str) -> Resources:
        """Return the resources of a class in a stage, inherited values and our default time limits included."""
        chosen = self.resources.get(name, Resources())
        default = {"minutes": self.minutes or _MINUTES.get(stage, _REPORT_MINUTES), "processes": self.processes or 1}
        values = {field: getattr(self, field) for field in ResourceRequest.model_fields} | default
        return chosen.model_copy(update=values | chosen.model_dump(exclude_none=True))

    def classes(self) -> dict[str, Resources]:
        """Return every resource class in use, with its resources in the first stage that uses it."""
        used: list[tuple[str, str]] = [(self.class_of(stage), stage) for stage in STAGES]
        used += [(name, one.cells[0].partition(":")[0]) for name, one in self.resources.items() if one.cells]
        found: dict[str, Resources] = {}
        for name, stage in used:
            found.setdefault(name, self.resources_of(name, stage))
        return found

    def warning_of(self, resources: Resources) -> int:
        """Return the seconds between the warning and the end of a job: at most a quarter of its time limit."""
        return min(self.warning_seconds, (resources.minutes or _REPORT_MINUTES) * 60 // 4)

    def with_limits(
        self, memory_gb: float | None = None, minutes: int | None = None, processes: int | None = None
    ) -> Profile:
        """Return the profile with other limits for every resource class, as the flags of a run or a retry say."""
        given = {"memory_gb": memory_gb, "minutes": minutes, "processes": processes}
        limits = {name: value for name, value in given.items() if value is not None}
        resources = {name: one.model_copy(update=limits) for name, one in self.resources.items()}
        return self.model_copy(update={**limits, "resources": resources})


def folders() -> list[Path]:
    """Return the folders that hold profiles; a user without a home folder has none but that of $XDG_CONFIG_HOME."""
    own = own_folder("config")
    return [Path("profiles"), *([own / "profiles"] if own else [])]


def load(name: str | None) -> Profile:
    """Read the profile called ``name``, or a file if ``name`` ends in ``.toml``; None is the empty profile.

    Raises:
        UserError: it doesn't exist, or a value is invalid.
    """
    if name is None:
        return Profile()
    if name.endswith(".toml"):
        path = Path(name)
    else:
        known = {path.stem: path for folder in reversed(folders()) for path in folder.glob("*.toml")}
        if name not in known:
            if known:
                raise unknown("profile", name, known)
            places = " or ".join(map(str, folders()))
            raise UserError(
                f"--profile {name}: no profiles in {places} ($XDG_CONFIG_HOME chooses another folder); name a TOML "
                "file, see bench doctor --help"
            )
        path = known[name]
    return _parse(read_toml(path, "profile"), path).model_copy(update={"name": str(path.absolute())})


def _parse(values: dict[str, Any], path: Path) -> Profile:
    tables = values.pop("resources", {})
    if not (isinstance(tables, dict) and all(isinstance(one, dict) for one in tables.values())):
        raise UserError(f"{path}: resources: expected tables such as [resources.heavy]")
    resources = {name: read_settings(Resources, one, f"{path}: [resources.{name}]") for name, one in tables.items()}
    if idle := [name for name, one in resources.items() if not one.cells]:
        raise UserError(f'{path}: [resources.{idle[0]}] is of no cells; add a line such as cells = ["distill"]')
    listed = [cells for one in resources.values() for cells in one.cells]
    if twice := sorted({cells for cells in listed if listed.count(cells) > 1}):
        raise UserError(f"{path}: {', '.join(twice)} is in more than one resource class; each belongs to one")
    profile = read_settings(Profile, values, str(path))
    return profile.model_copy(update={"resources": resources})
