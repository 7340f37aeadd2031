"""The bits of a small grid, computed with portable kernels, and the vendor of the processor.

    python -m tests.golden.portable > tests/golden/portable.json

A teacher, RDED's images, stored labels and a student of digits: digests of their tensors, image files and metrics.
"""

from __future__ import annotations

import hashlib
import json
import re
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
    """Run the grid in ``place`` and return a digest per stage and the processor's vendor, by the version of torch."""
    subprocess.run(command(["run", *GRID]), cwd=place, env=environment(), check=True, capture_output=True)
    found = {stage: json.dumps(sorted(made)).encode() for stage, made in outcomes(place / "store").items()}
    digests = {stage: hashlib.sha256(text).hexdigest()[:20] for stage, text in found.items()}
    return {torch.__version__: digests | {"vendor": vendor()}}


def vendor() -> str:
    """Return the vendor of the processor, as Linux names it; "" elsewhere."""
    path = Path("/proc/cpuinfo")
    found = (
        re.search(r"^vendor_id\s*: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.exists() else None
    )
    return found[1] if found else ""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(bits(Path(folder)), indent=1, sort_keys=True))
