"""The codec of stored soft labels, as the command line has it: ``prune10+topk10+fp16``.

Three choices, each optional, in any order: which batches are kept (``pruneN``), which logits of a view
(``topkK``, ``renormK``), and as what numbers (``fp32``, ``fp16``, ``int8``). Torch-free: grids are planned with
it, and ``bench.kit.labels`` does the work.
"""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field

from bench.api.config import BaseConfig
from bench.errors import UserError, unknown

KNOWN = ("fp32", "fp16", "int8", "topkK", "renormK", "pruneN", "coords")


class LabelCodec(BaseConfig):
    """The part of the logits of a schedule of views that is kept, and its number format.

    ``prune``: one batch in so many is kept, drawn at random, and a student's epochs draw from the kept ones (LPLD,
    soft-label-pruning-for-dataset-distillation). ``keep``: logits a view, the largest; 0: all. The other classes
    share what probability is left (FKD's marginal smoothing, ``topk``), or get none (LPQLD's marginal
    re-normalisation, ``renorm``). ``coords``: write FKD's coordinates of every view too, which our views do not
    need, for a fair weighing against its files.
    """

    prune: int = Field(1, ge=1)
    keep: int = Field(0, ge=0)
    renorm: bool = False
    numbers: Literal["fp32", "fp16", "int8"] = "fp16"
    coords: bool = False

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
    if part in ("fp32", "fp16", "int8"):
        return {"numbers": part}
    if part == "coords":
        return {"coords": True}
    match = re.fullmatch(r"(prune|topk|renorm)([1-9]\d{0,6})", part)
    if match is None:
        raise unknown(f"part of the codec stored:{text}", part, KNOWN)
    name, number = match[1], int(match[2])
    return {"prune": number} if name == "prune" else {"keep": number, "renorm": name == "renorm"}
