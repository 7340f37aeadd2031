"""Protocols: TOML files of installed packages, or a file by its path; read, chosen and changed."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bench.api import BaseConfig, DatasetInfo, Evaluator, Protocol, registry
from bench.api.plugins import origin, warn
from bench.errors import UserError, unknown

# one recipe for all methods, or each paper's own, whose names begin so
COMMON, OFFICIAL = "common", "official"
LONGEST = 1 << 20  # bytes of a file
USUAL = "classification"  # the evaluator of a protocol that names none

_NAME = re.compile(r"[\w.+-]+", re.ASCII)
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
        place = ".".join(part for part in map(str, first["loc"]) if not part.startswith("constrained-"))
        if first["type"] == "extra_forbidden":
            raise unknown(f"key in {where}", place, _keys(model, first["loc"][:-1])) from None
        if first["type"] == "missing":
            raise UserError(f"{where}: {place} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"{where}: {place}: {message}, not {repr(first['input'])[:200]}" if place else f"{where}: {message}"
        ) from None


def _keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    """List the dotted names of the fields next to an unknown one."""
    for part in path:
        model = model.model_fields[str(part)].annotation
    return [".".join([*map(str, path), name]) for name in model.model_fields]


@cache
def all_protocols() -> dict[str, Protocol]:
    """Every usable protocol of the group ``bench.protocols``, name to protocol; others are named on stderr."""
    found: dict[str, Protocol] = {}
    for plugin, package in registry.PROTOCOLS.usable.items():
        for path in sorted(files(package).iterdir(), key=lambda entry: entry.name):
            if not path.name.endswith(".toml"):
                continue
            try:
                protocol = _protocol(read_toml(path, "protocol"), path.name)
                if found.setdefault(protocol.name, protocol) is not protocol:
                    raise UserError("another has the same name")
            except UserError as error:
                warn(f"protocol {path.name} of {origin(registry.PROTOCOLS.point(plugin))} is left out: {error}")
    return found


def evaluator_of(protocol: Protocol) -> Evaluator:
    """Make the evaluator that trains and tests under a protocol."""
    return registry.evaluator(protocol.evaluator)()


def choose(wanted: str, dataset: DatasetInfo, method: str) -> Protocol:
    """Choose the protocol that ``--protocol wanted`` means for a data set and a method.

    Args:
        wanted: ``common``, ``official``, the name of a protocol, or the path of a TOML file.

    Raises:
        UserError: there is none, or the file can't be read.
    """
    if wanted.endswith(".toml"):
        return _own(_protocol(read_toml(Path(wanted), "protocol"), wanted), wanted)
    known = all_protocols()
    if wanted not in (COMMON, OFFICIAL):
        if wanted not in known:
            raise unknown("protocol", wanted, [COMMON, OFFICIAL, *known])
        return known[wanted]
    fitting = [
        one
        for one in known.values()
        if one.track == wanted
        and registry.evaluator(one.evaluator).task == dataset.task
        and method in (one.methods or (method,))
        and dataset.name in (one.datasets or (dataset.name,))
    ]
    if not fitting:
        raise UserError(
            f"there is no {wanted} protocol for {method} on {dataset.name}; "
            f"name one of {', '.join(known)} or a TOML file with --protocol"
        )
    return max(fitting, key=lambda protocol: (bool(protocol.datasets), bool(protocol.methods)))


def _own(protocol: Protocol, where: str) -> Protocol:
    """Return the protocol of a user's file; refuse one that passes for another.

    Raises:
        UserError: its name reads like a changed protocol's, or it has name and version of an installed one and differs.
    """
    if not _NAME.fullmatch(protocol.name):
        raise UserError(f"{where}: the name {protocol.name!r} may hold letters, digits and . _ + -; name it otherwise")
    nearest = {name.casefold(): one for name, one in all_protocols().items()}.get(protocol.name.casefold())
    if nearest is None or nearest.version != protocol.version:
        return protocol
    ours, theirs = protocol.model_dump(mode="json"), nearest.model_dump(mode="json")
    unlike = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if unlike:
        key = unlike[0]
        raise UserError(
            f"{where} has name and version of the installed {nearest.name}, but {key} is {ours.get(key)!r}, not "
            f"{theirs.get(key)!r}; give it a name of its own, or --set protocol.{key}=…"
        )
    return protocol


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
    name = f"{protocol.name}[{_in_brackets(changes)}]"
    return read_settings(config, {**values, "name": name}, f"the settings of protocol {protocol.name}")


def _in_brackets(changes: dict[str, Any]) -> str:
    """Write the text in brackets behind a name: ``small,epochs=1:100 10:40``."""
    shown = [str(changes["form"])] if "form" in changes else []
    for key, value in sorted(changes.items()):
        if isinstance(value, dict):
            value = " ".join(f"{one}:{setting}" for one, setting in value.items())
        if key != "form":
            shown.append(f"{key}={value}")
    return ",".join(shown)


def unchanged(name: str) -> str:
    """Return the name of a protocol without its changes."""
    return name.partition("[")[0]


def read_toml(path: Traversable, kind: str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: it can't be read, or is no TOML; ``kind`` is the word for what it should describe.
    """
    try:
        if isinstance(path, Path) and path.exists() and not (path.is_file() and path.stat().st_size < LONGEST):
            raise ValueError("expected a regular file of less than a megabyte")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the {kind} file {path} can't be read: {reason}") from None


def _protocol(values: dict[str, Any], where: str) -> Protocol:
    name = values.get("evaluator", USUAL)
    if name not in registry.EVALUATORS:
        error = unknown("evaluator", name, registry.EVALUATORS)
        raise UserError(f"{error}; if the code was updated, install it again: pip install -e .")
    return read_settings(registry.evaluator(name).Config, values, where)
