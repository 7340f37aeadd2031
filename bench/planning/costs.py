"""What computing costs as it is printed: ``costs.toml`` beside this file. Torch-free."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

from bench.api import BaseConfig
from bench.planning.protocols import read_settings
from bench.store.cell import Stage


class Student(BaseConfig):
    """Seconds of one iteration and memory of a method's student training."""

    method: str
    batch_size: int
    seconds: float
    mebibytes: int

    @property
    def milliseconds_per_image(self) -> float:
        return 1e3 * self.seconds / self.batch_size


class Job(BaseConfig):
    """Hours of a whole stage ``of`` these sizes."""

    method: str
    stage: Stage
    hours: float
    of: dict[str, int]


class Passes(BaseConfig):
    """A stage that shows so many images to a network once."""

    method: str
    stage: Stage
    over: tuple[str, ...]  # the product of these is the number of images
    network: Literal["teachers", "clip"]
    backward: bool


class Costs(BaseConfig):
    """All of ``costs.toml``."""

    against: str  # the method that the other students are held against
    students: tuple[Student, ...]
    jobs: tuple[Job, ...]
    passes: tuple[Passes, ...]
    multiplications: dict[str, float]


@cache
def costs() -> Costs:
    """What is printed."""
    text = files("bench.planning").joinpath("costs.toml").read_text(encoding="utf-8")
    return read_settings(Costs, tomllib.loads(text), "costs.toml")
