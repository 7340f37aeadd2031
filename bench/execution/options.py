"""How to compute, as against what: none of it enters an identity."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """What a worker must know beside its cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    data_root: Path | None = None
    device: str = "auto"  # "auto": an accelerator where there is one
    threads: int = 1  # results are the same to the last bit for the same number of CPU threads
    code: dict[str, str] | None = None  # which code asked for it, where that may be another one than computes
