"""Double precision for tests that compare two ways to compute the same.

Processors add up in different orders, and optimizer steps magnify the last digits of float32. In double precision
rounding stays far below what the tests allow, so that they hold on any processor and still find every real difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def double_precision() -> Iterator[None]:
    """Create tensors and networks in float64, and load teachers into float64 networks, within the context."""
    import torch

    from bench.kit.teachers import trajectory

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    trajectory._frozen.cache_clear()
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        trajectory._frozen.cache_clear()
