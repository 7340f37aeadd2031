"""Protocols: TOML files of installed packages, or a file by its path; read, chosen and changed."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bench.api import BaseConfig, DatasetInfo, Evaluator, Protocol, registry
from bench.api.plugins import warn
from bench.errors import UserError, unknown

# one recipe for all methods, or each paper's own, whose names begin so
COMMON, OFFICIAL = "common", "official"
USUAL = "classification"  # the evaluator of a protocol that names none

S = TypeVar("S", bound=BaseConfig)


def read_settings(model: type[S], values: dict[str, Any], where: str) -> S:
    """Validate plain values as settings.

    Raises:
        UserError: an unknown key, with the nearest valid one, or a value of the wrong kind, in one line.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise unknown(f"key in {where}", place, _keys(model, first["loc"][:-1])) from None
        if first["type"] == "missing":
            raise UserError(f"{where}: {place} is missing") from None
        raise UserError(f"{where}: {place}: {first['msg']}, not {first['input']!r}") from None


def _keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    """List the dotted names of the fields beside an unknown one."""
    for part in path:
        model = model.model_fields[str(part)].annotation
    return [".".join([*map(str, path), name]) for name in model.model_fields]


@cache
def all_protocols() -> dict[str, Protocol]:
    """Every usable protocol of the packages in the group ``bench.protocols``, by name; others are named on stderr."""
    found: dict[str, Protocol] = {}
    for plugin, package in registry.PROTOCOLS.usable.items():
        for path in sorted(files(package).iterdir(), key=lambda entry: entry.name):
            if not path.name.endswith(".toml"):
                continue
            try:
                protocol = _read(path.read_text(encoding="utf-8"), path.name)
            except (OSError, ValueError, UserError) as error:
                reason = str(error)
            else:
                reason = "" if found.setdefault(protocol.name, protocol) is protocol else "another has the same name"
            if reason:
                warn(f"protocol {path.name} of {registry.PROTOCOLS.origin(plugin)} is left out: {reason}")
    return found


def evaluator_of(protocol: Protocol) -> Evaluator:
    """Make the evaluator that trains and tests under a protocol.

    Raises:
        UserError: no evaluator is called that.
    """
    return registry.evaluator(protocol.evaluator)()


def choose(wanted: str, dataset: DatasetInfo, method: str) -> Protocol:
    """Choose the protocol that ``--protocol wanted`` means for a data set and a method.

    Args:
        wanted: ``common``, ``official``, the name of a protocol, or the path of a TOML file.

    Raises:
        UserError: there is none, or the file can't be read.
    """
    if wanted.endswith(".toml"):
        try:
            return _read(Path(wanted).read_text(encoding="utf-8"), wanted)
        except (OSError, ValueError) as error:
            raise UserError(f"the protocol file {wanted} can't be read: {error}") from None
    known = all_protocols()
    if wanted not in (COMMON, OFFICIAL):
        if wanted not in known:
            raise unknown("protocol", wanted, [COMMON, OFFICIAL, *known])
        return known[wanted]
    fitting = [
        protocol
        for protocol in known.values()
        if protocol.track == wanted
        and registry.evaluator(protocol.evaluator).task == dataset.task
        and (not protocol.methods or method in protocol.methods)
        and (not protocol.datasets or dataset.name in protocol.datasets)
    ]
    if not fitting:
        raise UserError(
            f"there is no {wanted} protocol for {method} on {dataset.name}; "
            f"name one of {', '.join(known)} or a TOML file with --protocol"
        )
    return max(fitting, key=lambda protocol: (bool(protocol.datasets), bool(protocol.methods)))


def changed(protocol: Protocol, changes: dict[str, Any]) -> Protocol:
    """Set some fields of a protocol and say so in its name: ``common[epochs=30]``.

    Another evaluator reads the same fields as its own: ``official-rded[evaluator=efficiency]``.

    Raises:
        UserError: an unknown field, a value of the wrong kind, or an evaluator that has no use for the fields.
    """
    if not changes:
        return protocol
    values = {**protocol.model_dump(mode="json"), **changes}
    config = registry.evaluator(changes["evaluator"]).Config if "evaluator" in changes else type(protocol)
    name = f"{protocol.name}[{in_brackets(changes)}]"
    return read_settings(config, {**values, "name": name}, f"the settings of protocol {protocol.name}")


def in_brackets(changes: dict[str, Any]) -> str:
    """Write the text in brackets behind a name: ``small,epochs=1:100 10:40``."""
    shown = [f"{key}={_in_short(value)}" for key, value in sorted(changes.items()) if key != "form"]
    return ",".join([*([str(changes["form"])] if "form" in changes else []), *shown])


def _in_short(value: Any) -> str:
    """``1:100 10:40`` of a table."""
    return " ".join(f"{key}:{one}" for key, one in value.items()) if isinstance(value, dict) else str(value)


def unchanged(name: str) -> str:
    """Return the name of a protocol without its changes."""
    return name.partition("[")[0]


def _read(text: str, where: str) -> Protocol:
    values = tomllib.loads(text)
    name = values.get("evaluator", USUAL)
    if name not in registry.EVALUATORS:
        error = unknown("evaluator", name, registry.EVALUATORS)
        raise UserError(f"{error}; if the code was updated, install it again: pip install -e .")
    evaluator = registry.evaluator(name)
    return read_settings(evaluator.Config, values, where)
