"""Protocols: TOML files of an evaluator's package, or a user's own file, read and chosen."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bench.contract import DatasetInfo, Evaluator, Protocol, Settings
from bench.errors import UserError, unknown

S = TypeVar("S", bound=Settings)


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
        raise UserError(f"{where}: {place}: {first['msg']}, not {first['input']!r}") from None


def _keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    """The dotted names of the fields beside an unknown one."""
    for part in path:
        model = model.model_fields[str(part)].annotation
    return [".".join([*map(str, path), name]) for name in model.model_fields]


def all_protocols(evaluator: type[Evaluator]) -> dict[str, Protocol]:
    """Every protocol an evaluator ships, by name."""
    found = {}
    for path in sorted(files(evaluator.protocols).iterdir(), key=lambda entry: entry.name):
        if path.name.endswith(".toml"):
            protocol = read_settings(evaluator.Config, tomllib.loads(path.read_text()), path.name)
            found[protocol.name] = protocol
    return found


def choose(evaluator: type[Evaluator], wanted: str, dataset: DatasetInfo, method: str) -> Protocol:
    """The protocol that ``--protocol wanted`` means for a data set and a method.

    Args:
        wanted: ``common``, ``official``, the name of a protocol, or the path of a TOML file.

    Raises:
        UserError: there is none, or the file can't be read.
    """
    if wanted.endswith(".toml"):
        try:
            values = tomllib.loads(Path(wanted).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"the protocol file {wanted} can't be read: {error}") from None
        return read_settings(evaluator.Config, values, wanted)
    known = all_protocols(evaluator)
    if wanted not in ("common", "official"):
        if wanted not in known:
            raise unknown("protocol", wanted, ["common", "official", *known])
        return known[wanted]
    fitting = [
        protocol
        for protocol in known.values()
        if protocol.track == wanted
        and (not protocol.methods or method in protocol.methods)
        and (not protocol.datasets or dataset.name in protocol.datasets)
    ]
    if not fitting:
        raise UserError(
            f"there is no {wanted} protocol for {method} on {dataset.name}; "
            f"name one of {', '.join(known)} or a TOML file with --protocol"
        )
    return max(fitting, key=lambda protocol: (bool(protocol.datasets), bool(protocol.methods)))
