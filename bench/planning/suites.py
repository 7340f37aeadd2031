"""Suites: the experiments of a paper as grids, TOML files in ``bench/suites`` or by path, each with the trends that
its authors report. Torch-free."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from bench.api import BaseConfig, catalogue
from bench.errors import UserError, unknown
from bench.planning.grid import Request
from bench.planning.plan import shared_settings
from bench.planning.protocols import read_settings
from bench.planning.variants import read

WEIGHED = "storage"  # the suite that is arithmetic, without a grid: bench.storage_calculator
LARGE_IMAGES = 128  # px from which on students of ImageNet size are what is meant
SMALL = {"form": "small"}  # what marks the protocols of a small form, by their name


class Asked(BaseConfig):
    """What one form of a suite asks for: the fields of a request, for each of several data sets. None: as a request
    has it, or in the small form as the full one has it."""

    datasets: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    ipc: tuple[int, ...] | None = None
    students: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    student_seeds: tuple[int, ...] | None = None
    protocols: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    baselines: bool | None = None
    clip: str | None = None
    set: dict[str, dict[str, Any]] = Field(default_factory=dict)  # "hello" -> "epochs" -> value, as --set

    def given(self) -> dict[str, Any]:
        """The fields that were said but ``set``, by the names of a request's; ``datasets`` beside them."""
        return {name: value for name, value in self if value is not None and name != "set"}


class Which(BaseConfig):
    """Rows of a board: by the method as it was asked for (``hello[adapt=head]``) and, where it matters, more."""

    method: str
    labels: str | None = None
    student: str | None = None
    ipc: int | None = None


class Trend(BaseConfig):
    """Something the authors report: rows like ``more`` do better than rows like ``less`` beside them.

    ``printed`` are the two numbers they print, in percent, at ``ipc`` and with ``student``; where ``printed`` is the
    other way round, so is their finding.
    """

    claim: str
    more: Which
    less: Which
    printed: tuple[float, float] | None = None
    dataset: str | None = None  # that ``printed`` is of
    ipc: int | None = None  # only rows of this IPC; None: of any
    student: str | None = None  # only rows of this student and its kin; None: of any
    kin: tuple[str, ...] = ()  # students of small images that stand for it in a small form

    @field_validator("more", "less", mode="before")
    @classmethod
    def _by_method(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value


class Suite(BaseConfig):
    """One experiment: ``full`` as its authors did it, what differs in it for data sets of ``small_images``, which know
    no students of ImageNet size, and what differs in ``small``, which two cores can do."""

    title: str
    source: str  # where it is printed
    about: str
    full: Asked
    small_images: Asked = Asked()
    small: Asked
    trends: tuple[Trend, ...] = ()

    def requests(self, name: str, *, small: bool, given: Mapping[str, Any]) -> list[Request]:
        """What to compute, a request a data set.

        Args:
            given: what the user asks for otherwise: fields of a request; ``overrides`` are added to the suite's.
        """
        datasets = (self.small.datasets if small else None) or self.full.datasets or ()
        if "dataset" in given:
            datasets = (given["dataset"],)
        return [self._request(name, dataset, small, given) for dataset in datasets]

    def _request(self, name: str, dataset: str, small: bool, given: Mapping[str, Any]) -> Request:
        layers = [self.full]
        if catalogue.dataset(dataset).image_size < LARGE_IMAGES:
            layers.append(self.small_images)
        if small:
            layers.append(self.small)
        asked: dict[str, Any] = {}
        for layer in layers:
            asked |= layer.given()
        asked |= given
        asked.pop("datasets", None)
        concerned = {*shared_settings(), *(read(method).method for method in asked["methods"])}
        theirs = [{part: layer.set[part] for part in layer.set if part in concerned} for layer in layers]
        # last, so that nothing given takes the mark away
        overrides = _overlaid(*theirs, given.get("overrides", {}), {"protocol": SMALL} if small else {})
        suite_name = Path(name).stem if name.endswith(".toml") else name
        return Request(**{**asked, "dataset": dataset, "overrides": overrides, "suite": suite_name})


def _overlaid(*layers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings of methods, later ones over earlier ones."""
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for name, values in layer.items():
            found[name] = {**found.get(name, {}), **values}
    return found


def names() -> tuple[str, ...]:
    """The names of all suites that are grids, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in files("bench.suites").iterdir()
                        if entry.name.endswith(".toml")))  # fmt: skip


@cache
def suite(name: str) -> Suite:
    """Read the suite called ``name``, or the TOML file at the path ``name``.

    Raises:
        UserError: there is none, its file is broken, or a file has the name of a suite of this package.
    """
    if name.endswith(".toml"):
        return _from_path(Path(name))
    if name not in names():
        raise unknown("suite", name, (*names(), WEIGHED))
    file = files("bench.suites") / f"{name}.toml"
    return read_settings(Suite, tomllib.loads(file.read_text(encoding="utf-8")), f"{name}.toml")


def _from_path(path: Path) -> Suite:
    if path.stem in (*names(), WEIGHED):
        raise UserError(f"{path}: {path.stem} is a suite of this package, whose boards it would share; rename the file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the suite file {path} can't be read: {error}") from None
    return read_settings(Suite, values, path.name)
