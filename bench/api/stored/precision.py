"""The precision in which a label model is stored, as written on the command line: ``int8``, ``int4+group64``. No torch.

Whole numbers are symmetric. Each scale, in fp16, belongs to a row of a matrix (of tensors with more axes, to a place on
the first); with ``rank`` to a rank, which is a row of a low-rank factor A and a column of B; with ``group64`` to 64
numbers along a row. Vectors and single numbers stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Self

from bench.errors import unknown

FACTORS = (".A", ".B")  # ends of the names of low-rank factors (r, in) and (out, r), whose product B A is what counts
GROUP = 64
PRECISIONS = ("fp16", "int8", "int4", "int8+rank", "int4+rank", "int8+group64", "int4+group64")


class Precision(NamedTuple):
    """A number format, and what a scale belongs to."""

    numbers: Literal["fp16", "int8", "int4"]
    per: Literal["row", "rank", "group64"] = "row"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the user wrote.

        Raises:
            UserError: an unknown precision.
        """
        if text not in PRECISIONS:
            raise unknown("precision in --labels", f"online:{text}", [f"online:{name}" for name in PRECISIONS])
        return cls(*text.split("+"))  # type: ignore[arg-type]

    def scales(self, name: str, shape: Sequence[int]) -> int:
        """Return how many scales a tensor has."""
        rows, width = shape[0], math.prod(shape[1:])
        if self.per == "rank" and name.endswith(FACTORS[1]):
            return width
        return rows * math.ceil(width / GROUP) if self.per == "group64" else rows

    def payload(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Return the bytes of float32 tensors of these shapes (name to shape) when they are stored so."""
        total = 0
        for name, shape in shapes.items():
            if self.numbers == "fp16" or len(shape) < 2:
                total += math.prod(shape) * (2 if self.numbers == "fp16" else 4)
                continue
            rows, width = shape[0], math.prod(shape[1:])
            total += rows * (width if self.numbers == "int8" else -(-width // 2)) + 2 * self.scales(name, shape)
        return total
