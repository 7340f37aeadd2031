"""The bits of a small grid, computed with portable kernels: the same on every x86-64 processor that has AVX2.

    python -m tests.golden.portable > tests/golden/portable.json

A teacher, RDED's images, stored labels and a student of digits: digests of their tensors, image files and metrics.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

import torch

from tests.conftest import command, environment
from tests.golden.compare_checkouts import outcomes

GRID = ["--methods", "rded", "--ipc", "1", "--seeds", "0", "--labels", "stored:fp16", "--no-baselines"]
GRID += ["--set", "protocol.epochs=4", "--set", "protocol.tests=1", "--set", "teacher.epochs=1"]
GRID += ["--cluster", "inline", "--device", "cpu", "--store", "store", "--out", "boards"]


def bits(place: Path) -> dict[str, dict[str, str]]:
    """Run the grid in ``place`` and return a digest per stage, by the version of torch."""
    subprocess.run(command(["run", *GRID]), cwd=place, env=environment(), check=True, capture_output=True)
    found = {stage: json.dumps(sorted(made)).encode() for stage, made in outcomes(place / "store").items()}
    return {torch.__version__: {stage: hashlib.sha256(text).hexdigest()[:20] for stage, text in found.items()}}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(bits(Path(folder)), indent=1, sort_keys=True))
