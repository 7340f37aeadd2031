"""Registered methods, evaluators and packages of protocols.

Importing this module, or any plug-in that it loads, imports no torch.
"""

from __future__ import annotations

from types import ModuleType

from bench.api.evaluator import Evaluator
from bench.api.method import Distiller
from bench.api.plugins import Group

METHODS: Group[type[Distiller]] = Group("bench.methods", "method", Distiller, ["info"])
EVALUATORS: Group[type[Evaluator]] = Group("bench.evaluators", "evaluator", Evaluator, ["name", "version", "Config"])
PROTOCOLS: Group[ModuleType] = Group("bench.protocols", "package of protocols", ModuleType)


def method(name: str) -> type[Distiller]:
    """Return the method called ``name``: of ``external:NAME`` the method ``external``, whose settings name the set."""
    return METHODS.get(name.partition(":")[0])


def method_names() -> tuple[str, ...]:
    """Return the names of all usable methods."""
    return tuple(METHODS.usable)


evaluator = EVALUATORS.get
