"""The codec of stored soft labels, as written on the command line: ``prune10+topk10+fp16``.

Three choices, each optional, in any order: which batches are kept (``pruneN``), which logits of a view
(``topkK``, ``renormK``), and in what number format (``fp32``, ``fp16``, ``int8``, or one of the entry-point group
``bench.codecs``). Torch-free: grids are planned with it, and ``bench.kit.labels`` does the work.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, field_validator

from bench.api.config import BaseConfig
from bench.api.plugins import Group
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS = ("fp32", "fp16", "int8")
KNOWN = (*NUMBERS, "topkK", "renormK", "pruneN", "coords")


class NumberFormat(ABC):
    """A way to write rows of logits, from another package; its entry point's name is that in ``stored:NAME``.

    Raise ``version`` when what it writes changes: it is part of the identity of stored labels.
    """

    title: ClassVar[str]
    version: ClassVar[int] = 1

    @abstractmethod
    def columns(self, width: int) -> Mapping[str, tuple[str, int]]:
        """Return the tensors that store rows of ``width`` logits: name → (safetensors dtype, numbers per row)."""

    @abstractmethod
    def encode(self, logits: Tensor) -> Mapping[str, Tensor]:
        """Encode float32 logits (B, width) as the tensors of :meth:`columns`, each (B, numbers per row)."""

    @abstractmethod
    def decode(self, parts: Mapping[str, Tensor], width: int) -> Tensor:
        """Decode what :meth:`encode` returned: float32 (B, width), on the same device."""


FORMATS: Group[type[NumberFormat]] = Group("bench.codecs", "label codec", NumberFormat, ["title"])


class LabelCodec(BaseConfig):
    """The parts of a schedule's logits that are stored.

    ``prune``: one batch in so many is kept, drawn at random, and a student's epochs draw from the kept ones (LPLD,
    soft-label-pruning-for-dataset-distillation). ``keep``: logits a view, the largest; 0: all. The other classes
    share what probability is left (FKD's marginal smoothing, ``topk``), or get none (LPQLD's marginal
    re-normalisation, ``renorm``). ``coords``: write FKD's coordinates of every view too, which our views do not
    need, for a fair weighing against its files.
    """

    prune: int = Field(1, ge=1)
    keep: int = Field(0, ge=0)
    renorm: bool = False
    numbers: str = "fp16"  # one of NUMBERS, or the name of a plug-in
    coords: bool = False

    @field_validator("numbers")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NUMBERS and name not in FORMATS:
            raise ValueError(f"expected one of {', '.join([*NUMBERS, *FORMATS])}")
        return name

    @property
    def version(self) -> int:
        """The version of the number format."""
        return 1 if self.numbers in NUMBERS else FORMATS.get(self.numbers).version

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the user wrote.

        Raises:
            UserError: an unknown part, or two that exclude each other.
        """
        found: dict[str, object] = {}
        for part in text.split("+"):
            for name, value in _read(part, text).items():
                if name in found:
                    raise UserError(f"labels stored:{text}: {part} says {name} a second time")
                found[name] = value
        return cls.model_validate(found)

    def check(self, classes: int, epochs: int, where: str) -> None:
        """Refuse what a data set and a schedule cannot give.

        Raises:
            UserError: more logits than classes, or fewer batches kept than one epoch has.
        """
        if self.keep > classes:
            raise UserError(f"labels stored:{self}: {where} has {classes} classes; keep at most so many logits")
        if self.prune > epochs:
            raise UserError(
                f"labels stored:{self}: keeping one batch in {self.prune} of {epochs} epochs leaves less than one "
                f"epoch; prune{epochs} is the most on {where}"
            )

    def __str__(self) -> str:
        selection = f"{'renorm' if self.renorm else 'topk'}{self.keep}" if self.keep else ""
        parts = [f"prune{self.prune}" if self.prune > 1 else "", selection, self.numbers]
        return "+".join(part for part in [*parts, "coords" if self.coords else ""] if part)


def _read(part: str, text: str) -> dict[str, object]:
    if part in NUMBERS or part in FORMATS:
        return {"numbers": part}
    if part == "coords":
        return {"coords": True}
    match = re.fullmatch(r"(prune|topk|renorm)([1-9]\d{0,6})", part)
    if part == "prune1":
        raise UserError(f"labels stored:{text}: prune1 keeps every batch, so it changes nothing; leave it out")
    if match is None:
        raise unknown(f"part of the codec stored:{text}", part, [*KNOWN, *FORMATS])
    name, number = match[1], int(match[2])
    return {"prune": number} if name == "prune" else {"keep": number, "renorm": name == "renorm"}
