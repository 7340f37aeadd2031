"""Compare what two checkouts compute: teachers, images, labels and students of a small grid, to the bit.

    python tests/golden/compare_checkouts.py OLD NEW --work DIR

Each checkout runs the same commands with its own ``.venv`` (or this Python). Artifacts are compared by the digests of
their tensors and encoded images, students by their metrics, each as a multiset per stage: names of files, ids of cells
and the layout of the store may differ. Exits with 1 where anything differs. A checkout that was computed before is
not computed again unless its folder in DIR is removed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from safetensors.numpy import load_file

SHORT = ["teacher.epochs=9", "protocol.epochs=6"]
METHODS = ["sre2l.iterations=10", "g_vbsm.iterations=12", "hello.epochs=1"]
GRID = {
    "digits": [
        *("run", "--methods", "sre2l,g_vbsm,rded,hello", "--ipc", "1,2", "--seeds", "0,1"),
        *("--labels", "native,online,stored:prune2+topk3+int8,stored:renorm3+coords,static:fp16,teacher:int8,hard"),
        *(word for value in SHORT + METHODS for word in ("--set", value)),
    ],
    "folder": [
        *("run", "--methods", "rded,hello[image_update=true],sre2l[curriculum=0.5]", "--ipc", "1", "--seeds", "0,1"),
        *("--dataset", "folder:{folder}", "--students", "resnet18,convnet3-w16"),
        *(word for value in (*SHORT, "sre2l.iterations=4", "hello.epochs=1") for word in ("--set", value)),
        *("--set", "hello.update_steps=4"),
    ],
    "continual": [
        *("run", "--methods", "rded", "--ipc", "2", "--seeds", "0", "--protocol", "continual-5-digits"),
        *(word for value in SHORT for word in ("--set", value)),
    ],
    "segmentation": ["run", "--suite", "segmentation", "--small", "--ipc", "1", "--seeds", "0"],
}
METRICS = ("top1", "oracle_top1", "mean_iou", "curve", "accuracy", "steps", "image_bytes", "label_bytes")


def make_folder(place: Path) -> None:
    """Write a data set of three classes of noise on a tinted ground, 32 px."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for label, name in enumerate(("apple", "pear", "plum")):
            folder = place / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (32, 32, 3))
                pixels[..., label] += 100
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{index}.png")


def compute(checkout: Path, work: Path, names: list[str]) -> Path:
    """Run the grid in a checkout; return its store."""
    store = work / checkout.resolve().name
    folder = work / "fruit"
    if not folder.is_dir():
        make_folder(folder)
    python = checkout / ".venv" / "bin" / "python"
    for name in names:
        done = store / f"{name}.done"
        if done.exists():
            continue
        command = [text.format(folder=folder) for text in GRID[name]]
        command = [str(python if python.exists() else sys.executable), "-m", "bench", *command]
        command += ["--store", str(store / name), "--out", str(store / f"{name}-boards"), "--threads", "1"]
        subprocess.run(command, cwd=checkout, check=True, env={**os.environ, "COLUMNS": "100"})
        done.touch()
    return store


def tensors(path: Path) -> list[str]:
    """Digest the contents of one file of an artifact; nothing for JSON, whose words may change."""
    if path.suffix == ".safetensors":
        loaded = load_file(path)
        return [
            hashlib.sha256(repr((array.shape, str(array.dtype))).encode() + array.tobytes()).hexdigest()
            for array in loaded.values()
        ]
    return [] if path.suffix == ".json" else [hashlib.sha256(path.read_bytes()).hexdigest()]


def outcomes(store: Path) -> dict[str, Counter[str]]:
    """Collect digests per stage: one per artifact, and one per student of its metrics."""
    found: dict[str, Counter[str]] = {}
    for path in sorted(store.rglob("record.json")):
        record = json.loads(path.read_bytes())
        stage = record["cell"]["stage"]
        facts = [digest for file in sorted(path.parent.rglob("*")) if file.is_file() for digest in tensors(file)]
        if stage == "evaluate":
            result = record["result"]
            row = record["cell"]["row"]
            who = [str(row.get("method")).split("[")[0], row.get("ipc"), row.get("seed")]
            facts = [json.dumps([*who, {key: result[key] for key in METRICS if key in result}], sort_keys=True)]
        found.setdefault(stage, Counter())[json.dumps(sorted(facts))] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(GRID), help="which parts of the grid, default all")
    args = parser.parse_args()
    names = args.only.split(",")
    stores = [compute(checkout, args.work, names) for checkout in args.checkouts]
    differ = False
    for name in names:
        first, *others = [outcomes(store / name) for store in stores]
        for stage, counted in first.items():
            print(f"{name:<13} {stage:<9} {sum(counted.values()):>4} artifacts, {len(counted)} different", end="")
            for other in others:
                missing, extra = counted - other.get(stage, Counter()), other.get(stage, Counter()) - counted
                differ |= bool(missing or extra)
                if missing or extra:
                    print(f"; {sum(missing.values())} not found, {sum(extra.values())} new", end="")
                    for label, some in (("old", missing), ("new", extra)):
                        for text in sorted(some)[:3]:
                            print(f"\n    {label}: {text[:300]}", end="")
                else:
                    print("; equal", end="")
            print()
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
