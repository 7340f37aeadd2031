"""Options of a computation that no identity depends on."""

from __future__ import annotations

from pathlib import Path

from bench.api import BaseConfig


class Options(BaseConfig):
    """Options of a worker: places, device, threads."""

    store: Path
    data_root: Path | None = None
    device: str = "auto"  # "auto": an accelerator where there is one
    threads: int = 1  # bit-equal results need the same number of CPU threads
    contents: Path | None = None  # what the data set's image files hold, as the store keeps it
    allow_overlap: bool = False  # compute even where many test images are among the training or the synthetic ones
    portable: bool = True  # kernels of one instruction set on all processors
    code: dict[str, str] | None = None  # of the process that requested it, which may differ from the one that computes
