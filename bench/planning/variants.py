"""Methods with settings of their own in brackets, ``hello[conv_rank=4]``, as boards and requests name them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.errors import UserError

_OPEN, _CLOSE = "[{(", "]})"


class Variant(NamedTuple):
    """A method, and its settings that differ from the usual."""

    method: str
    settings: dict[str, Any]


def read(text: str) -> Variant:
    """Read ``hello[conv_rank=4,init=random]``: the method and its settings; values are JSON, or else plain text.

    Raises:
        UserError: a text of another form.
    """
    method, bracket, inner = text.partition("[")
    if not bracket:
        return Variant(text, {})
    if not inner.endswith("]"):
        raise UserError(f"{text}: expected METHOD[FIELD=VALUE,…], e.g. hello[conv_rank=4]")
    settings = {}
    for part in split(inner[:-1]):
        name, equals, value = part.partition("=")
        if not (equals and name):
            raise UserError(f"{text}: expected METHOD[FIELD=VALUE,…], e.g. hello[conv_rank=4]")
        settings[name] = plain_value(value)
    return Variant(method, settings)


def shown(method: str, settings: Mapping[str, Any], others: Mapping[str, Any] | None = None) -> str:
    """Write the board's name: settings in brackets, sorted, then ``others`` as they come; none, no brackets."""
    both = [*sorted(settings.items()), *(others or {}).items()]
    inner = ",".join(f"{key}={value}" for key, value in both)
    return f"{method}[{inner}]" if inner else method


def split(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes; blanks around the parts and empty parts are dropped."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        if not quoted:
            depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def plain_value(text: str) -> Any:
    """Read a value as people type it: JSON, or else plain text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
