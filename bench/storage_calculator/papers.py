"""Numbers that papers print about storage, and the units in which they are true (``papers.toml``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.api.stored.size import fkd_bytes, logit_bytes
from bench.errors import UserError
from bench.storage_calculator.request import BATCH_SIZE, EPOCHS, IMAGE_SIZE, PAPERS, RequestedMethod, StorageRequest
from bench.storage_calculator.sizes import image_bytes, network_size


@dataclass(frozen=True)
class Reading:
    """One way to understand a printed number: its value, and the unit or division behind it."""

    value: float
    unit: str
    fits: bool


@dataclass(frozen=True)
class Claim:
    """A number that a paper prints, and its readings."""

    source: str
    what: str
    printed: str
    readings: tuple[Reading, ...]


def claims() -> list[Claim]:
    """Return all claims but those about methods that are not installed."""
    found = []
    for facts in PAPERS["claims"]:
        try:
            value = _quantity(facts["of"]) - (_quantity(facts["less"]) if "less" in facts else 0)
            value /= _quantity(facts["per"]) if "per" in facts else 1
        except UserError:
            continue
        readings = tuple(Reading(value / by, unit, _fits(value / by, facts)) for unit, by in facts["in"].items())
        found.append(Claim(facts["source"], facts["what"], f"{facts['printed']} {facts['unit']}".strip(), readings))
    return found


def _fits(value: float, facts: dict[str, Any]) -> bool:
    text = facts["printed"]
    if "close" in facts:
        return bool(abs(value / float(text) - 1) < facts["close"])
    form = f".{facts['figures']}g" if "figures" in facts else f".{len(text.partition('.')[2])}{'fe'['e' in text]}"
    return f"{value:{form}}" == f"{float(text):{form}}"


def _quantity(kind: dict[str, tuple[Any, int]]) -> float:
    """Return one quantity of ``papers.toml``, in bytes or numbers; refuse one that is not known."""
    ((name, (what, of)),) = kind.items()
    if name == "projector":
        (method,) = RequestedMethod.all(StorageRequest(classes=of, methods=(what,)))
        if (size := method.method.label_size(method.point(1))) is None:
            raise UserError(f"the size of the label model of {what} is not known")
        return size.numbers
    if name == "teacher":
        return network_size(what, of, IMAGE_SIZE).parameters
    if name == "files":
        return fkd_bytes(what, of, EPOCHS, BATCH_SIZE)
    return logit_bytes(what, of, EPOCHS) if name == "logits" else image_bytes(what, of)
