"""The codec of stored soft labels, as written on the command line: ``prune10+topk10+fp16``.

Three choices, each optional, in any order: which batches are kept (``pruneN``, ``poolS``), what of a view is written
(``topkK``, ``renormK``, ``vqM``, ``lowrankR``, ``featuresD``; else all logits), and in what number format (``fp32``,
``fp16``, ``int8``, ``int4``, or one of the entry-point group ``bench.codecs``). Torch-free: grids are planned with it,
and ``bench.kit.labels`` does the work.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from bench.api.config import BaseConfig
from bench.api.plugins import Group
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS = ("fp32", "fp16", "int8", "int4")
_SIZED = ("topk", "renorm", "vq", "lowrank", "features", "prune", "pool")  # followed by a number
_OTHERS = ("topkK", "renormK", "vqM", "lowrankR", "perclass", "perimage", "rpca", "featuresD")
KNOWN = (*NUMBERS, *_OTHERS, "pruneN", "poolS", "coords")


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
    soft-label-pruning-for-dataset-distillation). ``pool``: the batches of so many whole epochs are kept, and shown in a
    new order each time they are used up (HALD); 0: all. ``keep``: logits a view, the largest; 0: all. The other classes
    share what probability is left (FKD's marginal smoothing, ``topk``), or get none (LPQLD's marginal
    re-normalisation, ``renorm``). ``fit``: instead of logits, what a fitted part decodes: ``size`` indices of a
    vector-quantised autoencoder (``vq``), as many coefficients of a low-rank basis (``lowrank``; of one for all views,
    or for each class or image; ``rpca``: without sparse errors), or the penultimate features (``features``).
    ``coords``: write FKD's coordinates of every view too, which our views do not need, for a fair weighing against its
    files.
    """

    prune: int = Field(1, ge=1)
    keep: int = Field(0, ge=0)
    renorm: bool = False
    numbers: str = "fp16"  # one of NUMBERS, or the name of a plug-in
    coords: bool = False
    pool: int = Field(0, ge=0)
    fit: Literal["", "vq", "lowrank", "features"] = ""
    size: int = Field(0, ge=0)
    per: Literal["", "class", "image"] = ""
    rpca: bool = False

    @field_validator("numbers")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NUMBERS and name not in FORMATS:
            raise ValueError(f"expected one of {', '.join([*NUMBERS, *FORMATS])}")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.prune > 1 and self.pool:
            raise UserError(f"labels stored:{self}: prune and pool both say which batches are kept; choose one")
        if (self.per or self.rpca) and self.fit != "lowrank":
            raise UserError(f"labels stored:{self}: perclass, perimage and rpca are for lowrankR; add that")
        if self.fit == "vq" and self.numbers != "fp16":
            raise UserError(
                f"labels stored:{self}: vqM writes indices, and its decoder in fp16; leave out {self.numbers}"
            )
        return self

    def facts(self) -> dict[str, Any]:
        """Return all fields of a plain codec, and of others those that differ: what a ``source.json`` says."""
        plain = {"prune", "keep", "renorm", "numbers", "coords"}
        return self.model_dump(mode="json", include=plain) | self.non_default_fields()

    def kept(self, epochs: int) -> float:
        """Return about how many epochs' worth of views are stored of a schedule."""
        return self.pool or epochs / self.prune

    def complete(self, classes: int) -> bool:
        """Return whether all logits come back; not all classes do, or not what a view's logits share."""
        return self.fit not in ("vq", "lowrank") and (not self.renorm or self.keep in (0, classes))

    @property
    def version(self) -> int:
        """The version of the number format."""
        return 1 if self.numbers in NUMBERS else FORMATS.get(self.numbers).version

    @property
    def batches(self) -> Hashable:
        """The choice of the batches it has labels of, where logits of them are all it needs; else None."""
        return None if self.fit == "features" else (self.prune, self.pool)

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
        if "keep" in found and "fit" in found:
            raise UserError(f"labels stored:{text}: two ways to write a view; choose one")
        return cls.model_validate(found)

    def check(self, classes: int, epochs: int, where: str, mix: str = "none") -> None:
        """Refuse what a data set and a schedule, whose views are mixed as ``mix`` says, cannot give.

        Raises:
            UserError: more logits than classes, fewer batches kept than one epoch has, or a basis for each image of
                views that are not of one image.
        """
        if self.keep > classes:
            raise UserError(f"labels stored:{self}: {where} has {classes} classes; keep at most so many logits")
        if self.fit == "lowrank" and self.size > classes:
            raise UserError(f"labels stored:{self}: {where} has {classes} classes; lowrank{classes} is all there is")
        if self.per and mix != "none":
            raise UserError(
                f"labels stored:{self}: views on {where} are mixed ({mix}), so their labels are of no one {self.per}; "
                f"choose lowrank{self.size}, or a protocol with mix none"
            )
        if self.per == "image" and self.size > self.kept(epochs):
            raise UserError(
                f"labels stored:{self}: an image has about {self.kept(epochs):g} stored labels, so that is the most"
            )
        if self.pool > epochs:
            raise UserError(f"labels stored:{self}: {where} has {epochs} epochs; pool{epochs} is all there is")
        if self.prune > epochs:
            raise UserError(
                f"labels stored:{self}: keeping one batch in {self.prune} of {epochs} epochs leaves less than one "
                f"epoch; prune{epochs} is the most on {where}"
            )

    def check_static(self) -> None:
        """Refuse what one label per image does not have.

        Raises:
            UserError: batches, coordinates, or enough rows to fit something to.
        """
        if self.prune > 1 or self.pool or self.coords:
            raise UserError(f"labels static:{self}: one label an image has no batches to prune and no coordinates")
        if self.fit:
            raise UserError(f"labels static:{self}: one label an image is too few to fit {self.fit} to; choose topkK")

    def __str__(self) -> str:
        batches = f"prune{self.prune}" if self.prune > 1 else f"pool{self.pool}" if self.pool else ""
        selection = f"{'renorm' if self.renorm else 'topk'}{self.keep}" if self.keep else ""
        fitted = [f"{self.fit}{self.size}" if self.fit else "", f"per{self.per}" if self.per else ""]
        parts = [batches, selection, *fitted, "rpca" if self.rpca else "", self.numbers]
        return "+".join(part for part in [*parts, "coords" if self.coords else ""] if part)


def _read(part: str, text: str) -> dict[str, object]:
    if part in NUMBERS or part in FORMATS:
        return {"numbers": part}
    if part in ("coords", "rpca"):
        return {part: True}
    if part in ("perclass", "perimage"):
        return {"per": part.removeprefix("per")}
    match = re.fullmatch(rf"({'|'.join(_SIZED)})([1-9]\d{{0,6}})", part)
    if part == "prune1":
        raise UserError(f"labels stored:{text}: prune1 keeps every batch, so it changes nothing; leave it out")
    if match is None:
        raise unknown(f"part of the codec stored:{text}", part, [*KNOWN, *FORMATS])
    name, number = match[1], int(match[2])
    if name in ("topk", "renorm"):
        return {"keep": number, "renorm": name == "renorm"}
    return {name: number} if name in ("prune", "pool") else {"fit": name, "size": number}
