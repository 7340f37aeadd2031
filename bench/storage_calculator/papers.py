"""Numbers that papers print about storage, and the units in which they are true (``papers.toml``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.api.stored.size import fkd_bytes, logit_bytes
from bench.errors import UserError
from bench.storage_calculator.networks import network_size
from bench.storage_calculator.request import (
    BATCH_SIZE,
    EPOCHS,
    IMAGE_SIZE,
    PAPERS,
    RequestedMethod,
    StorageRequest,
)
from bench.storage_calculator.sizes import image_bytes


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

    @property
    def true_in(self) -> list[Reading]:
        """The readings that are printed the same."""
        return [one for one in self.readings if one.fits]


def claims() -> list[Claim]:
    """All claims but those about methods that are not installed."""
    found = []
    for facts in PAPERS["claims"]:
        try:
            value = _quantity(**facts["of"]) - (_quantity(**facts["less"]) if "less" in facts else 0)
            value /= _quantity(**facts["per"]) if "per" in facts else 1
        except UserError:
            continue
        readings = [Reading(value / by, unit, _fits(value / by, facts)) for unit, by in facts["in"].items()]
        printed = f"{facts['printed']} {facts['unit']}".strip()
        found.append(Claim(facts["source"], facts["what"], printed, tuple(readings)))
    return found


def _fits(value: float, facts: dict[str, Any]) -> bool:
    text = facts["printed"]
    if "close" in facts:
        return bool(abs(value / float(text) - 1) < facts["close"])
    decimals = len(text.partition(".")[2])
    form = f".{facts['figures']}g" if "figures" in facts else ".0e" if "e" in text else f".{decimals}f"
    return f"{value:{form}}" == f"{float(text):{form}}"


def _quantity(
    logits: tuple[int, int] | None = None, files: tuple[int, int] | None = None, images: tuple[int, int] | None = None,
    teacher: tuple[str, int] | None = None, projector: tuple[str, int] | None = None,
) -> float:  # fmt: skip
    """One quantity of ``papers.toml``, in bytes or numbers.

    Raises:
        UserError: the method is not installed, or does not know the size of its label model.
    """
    if logits:
        return logit_bytes(*logits, EPOCHS)
    if files:
        return fkd_bytes(*files, EPOCHS, BATCH_SIZE)
    if images:
        return image_bytes(*images)
    if teacher:
        return network_size(*teacher, IMAGE_SIZE).parameters
    assert projector is not None
    name, classes = projector
    (method,) = RequestedMethod.all(StorageRequest(classes=classes, methods=(name,)))
    if (size := method.method.label_size(method.point(1))) is None:
        raise UserError(f"the size of the label model of {name} is not known")
    return size.numbers
