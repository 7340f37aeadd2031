"""Suites: the experiments of a paper as grids, with the trends that its authors report. Torch-free.

They are TOML files in ``bench/suites``, or a user's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from bench.api import BaseConfig, catalogue
from bench.errors import UserError, unknown
from bench.planning.grid import Axes, Request
from bench.planning.plan import shared_settings
from bench.planning.protocols import read_settings, read_toml
from bench.planning.variants import read

STORAGE = "storage"  # the suite that is arithmetic, without a grid: bench.storage_calculator
LARGE_IMAGES = 128  # px from which on students of ImageNet size are meant
SMALL = {"form": "small"}  # marks the protocols of a small form, by their name


class Form(Axes):
    """One form of a suite: a request for each of several data sets; what is left out is as in the form before."""

    datasets: tuple[str, ...] = ()
    set: dict[str, dict[str, Any]] = Field(default_factory=dict)  # "hello" -> "epochs" -> value, as --set
    knobs: tuple[Form, ...] = ()  # where not every method has all labels: each is a request of its own, on one board

    def given(self) -> dict[str, Any]:
        """Return the fields that are set but ``set`` and ``knobs``, by the names of a request's, and ``datasets``."""
        return self.model_dump(include=self.model_fields_set - {"set", "knobs"})


class Which(BaseConfig):
    """Rows of a board: by the method as it is requested (``hello[adapt=head]``) and, where it matters, more."""

    method: str
    labels: str | None = None
    student: str | None = None
    ipc: int | None = None


class Trend(BaseConfig):
    """Something the authors report: rows like ``more`` do better than rows like ``less`` that differ in nothing else.

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
    """One experiment: ``full`` as its authors did it, and what differs in its other forms.

    ``small_images`` is for data sets that have no students of ImageNet size, ``small`` for two cores.
    """

    title: str
    source: str = ""  # where it is printed
    about: str = ""
    full: Form
    small_images: Form = Form()
    small: Form = Form()
    trends: tuple[Trend, ...] = ()

    def requests(self, name: str, *, small: bool, given: Mapping[str, Any]) -> list[Request]:
        """Return what to compute, one request per data set and knob.

        Args:
            given: the user's own fields of a request, which override the suite's; ``overrides`` are added to them.

        Raises:
            UserError: nothing names a data set, or methods.
        """
        usual = self.full.given() | (self.small.given() if small else {})
        datasets = (given["dataset"],) if "dataset" in given else usual.get("datasets")
        for field, flag, there in (("datasets", "dataset", datasets), ("methods", "methods", usual.get("methods"))):
            if not there and flag not in given and not (field == "methods" and self.full.knobs):
                raise UserError(f"suite {name} names no {field}; add full.{field}, or --{flag}")
        knobs = (small and self.small.knobs) or self.full.knobs or (Form(),)
        return [self._request(name, dataset, small, given, knob) for dataset in datasets or () for knob in knobs]

    def _request(self, name: str, dataset: str, small: bool, given: Mapping[str, Any], knob: Form) -> Request:
        layers = [self.full]
        if catalogue.dataset(dataset).image_size < LARGE_IMAGES:
            layers.append(self.small_images)
        if small:
            layers.append(self.small)
        layers.append(knob)
        fields: dict[str, Any] = {}
        for layer in layers:
            fields |= layer.given()
        fields |= given
        fields.pop("datasets", None)
        concerned = {*shared_settings(), *(read(method).method for method in fields["methods"])}
        changes = [pair for layer in layers for pair in layer.set.items() if pair[0] in concerned]
        changes += given.get("overrides", {}).items()
        if small:  # last, so that nothing given takes the mark away
            changes.append(("protocol", SMALL))
        overrides: dict[str, dict[str, Any]] = {}
        for part, values in changes:
            overrides[part] = overrides.get(part, {}) | values
        return Request(**{**fields, "dataset": dataset, "overrides": overrides, "suite": name})


def names() -> tuple[str, ...]:
    """Return the names of all installed suites that are grids, sorted."""
    found = (entry.name for entry in files("bench.suites").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def name_of(text: str) -> str:
    """Return the name of a suite that ``--suite`` gives as a name or a path: that of its boards."""
    return Path(text).stem if text.endswith(".toml") else text


@cache
def suite(text: str) -> Suite:
    """Read the suite called ``text``, or the TOML file at that path.

    Raises:
        UserError: there is none, its file is broken (where, and what was expected), or its name is taken.
    """
    known, own = (*names(), STORAGE), text.endswith(".toml")
    if own and name_of(text) in known:
        raise UserError(f"{text}: {name_of(text)} is the name of an installed suite; name the file otherwise")
    if not own and text not in names():
        raise unknown("suite", text, known)
    path = Path(text) if own else files("bench.suites").joinpath(f"{text}.toml")
    return read_settings(Suite, read_toml(path, "suite"), text if own else path.name)
