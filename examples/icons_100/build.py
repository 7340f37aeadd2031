"""Build `icons-100`, a set of small images of many classes, from the npm package `@iconify/json`.

    npm pack @iconify/json@2.2.535
    python -m examples.icons_100.build --source iconify-json-2.2.535.tgz

It takes the package resvg-py. The class order is `bench/kit/data/icons_100.txt`, alphabetical, chosen by hand once from
the concepts that the most icon sets draw: things that one can point at.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.api.catalogue import default_data_root
from bench.errors import UserError
from bench.kit.data.image_folders import icons_100
from examples.icons_100.package import Icon, IconPackage, rasterise_many, read_package

ICONS_100 = icons_100()
SIZE = 64
SMALLEST_TRAIN, SMALLEST_TEST, SMALLEST_CLASS = 50, 10, 75

# Two renditions of a concept nearer than this (mean absolute difference of grey at 64x64, range 0..1) are one
# drawing: sets copy from each other and redraw the same icon one pixel wider.
SAME_DRAWING = 0.012

# Sets of one designer are one family, and a family is either train or test. A set's family is what stands before
# the first dash of its prefix, except where the family shares drawings under unlike prefixes.
FAMILY = {
    "material-symbols": "google", "material-symbols-light": "google", "ic": "google", "mdi": "google",
    "fa6-solid": "fa", "fa6-regular": "fa", "fa7-solid": "fa", "fa7-regular": "fa", "la": "fa",
    "sidekickicons": "heroicons", "famicons": "ion", "bxs": "bx", "boxicons": "bx",
    "uim": "uil", "uit": "uil", "uis": "uil", "lucide": "feather", "lucide-lab": "feather", "vadivam": "feather",
    "covid": "streamline",
}  # fmt: skip

# Never seen by icon-clip, so that its accuracy on known concepts in unknown handwriting can be measured.
UNSEEN_FAMILIES = frozenset(
    {"mingcute", "iconoir", "carbon", "majesticons", "teenyicons", "jam", "clarity", "basil", "flat", "vaadin"}
)
# The test split of icons-100: the unseen families and enough others for 20-25 % of the images.
TEST_FAMILIES = UNSEEN_FAMILIES | {"fa", "ooui", "osmic", "pepicons", "ph", "reicon", "si", "tabler", "uiw"}

Drawings = dict[str, list[tuple[Icon, NDArray[np.uint8]]]]
Progress = Callable[[int, int], None]


def family(prefix: str) -> str:
    """Return the family of designers that a set belongs to."""
    return FAMILY.get(prefix, prefix.split("-")[0])


def split_of(prefix: str) -> str:
    """Return the split of all icons of a set."""
    return "val" if family(prefix) in TEST_FAMILIES else "train"


def build_icons_100(source: Path, destination: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write `{train,val}/<concept>/<set>__<icon>.png`, 64x64, and `icons-100.json`; return what the latter says.

    The rule: an icon is a rendition of a concept when its name without style words is the concept; icons are taken
    in the order of `read_package`; one that draws nothing or what an earlier one of its concept drew
    (`SAME_DRAWING`) is dropped; families of `TEST_FAMILIES` are the test split, which is called `val`. The same
    package gives the same bytes. The folder appears whole or not at all; one that exists already is kept.
    `progress` is called with (icons drawn, icons to draw).

    Raises:
        UserError: the destination holds something else, or the package is not whole.
    """
    card = destination / "icons-100.json"
    if card.is_file():
        made: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))
        return made
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UserError(f"{destination}: holds something else than icons-100; name an empty or a new folder")
    package = read_package(source)
    drawings, not_drawn = _distinct_drawings(package, progress)
    counts = {
        concept: {"train": 0, "val": 0} | Counter(split_of(icon.set) for icon, _ in icons)
        for concept, icons in drawings.items()
    }
    for concept, of in counts.items():
        if of["train"] < SMALLEST_TRAIN or of["val"] < SMALLEST_TEST or sum(of.values()) < SMALLEST_CLASS:
            raise UserError(
                f"{source}: {concept} has {of['train']} train and {of['val']} test renditions, expected at least "
                f"{SMALLEST_TRAIN} and {SMALLEST_TEST}, {SMALLEST_CLASS} in all; use the whole package, version 2.2.535"
            )
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        lines = _write_images(drawings, temporary)
        used = sorted({icon.set for icons in drawings.values() for icon, _ in icons})
        report = {
            "name": "icons-100",
            "classes": list(ICONS_100),
            "image_size": SIZE,
            "train_images": sum(of["train"] for of in counts.values()),
            "test_images": sum(of["val"] for of in counts.values()),
            "counts": counts,
            "package": f"@iconify/json {package.version}",
            "sets": {prefix: package.sets[prefix] | {"split": split_of(prefix)} for prefix in used},
            "not_drawn": not_drawn,
            "sha256": hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest(),
        }
        (temporary / card.name).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        if destination.exists():
            destination.rmdir()
        temporary.replace(destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return report


def _distinct_drawings(package: IconPackage, progress: Progress | None) -> tuple[Drawings, list[str]]:
    """Return the icons kept per concept, with their pixels, and a line for each icon that does not draw."""
    drawings: Drawings = {concept: [] for concept in ICONS_100}
    named = ((icon.concept.replace(" ", "-"), icon) for icon in package.icons)
    order = {concept: place for place, concept in enumerate(ICONS_100)}
    wanted = sorted((pair for pair in named if pair[0] in order), key=lambda pair: order[pair[0]])
    greys: dict[str, list[NDArray[np.float32]]] = {concept: [] for concept in ICONS_100}
    not_drawn: list[str] = []
    drawn = rasterise_many([icon for _, icon in wanted], SIZE, os.cpu_count() or 1, progress)
    for (concept, icon), pixels in zip(wanted, drawn, strict=True):
        if isinstance(pixels, str):
            not_drawn.append(f"{icon.set}:{icon.name}: {pixels}")
            continue
        grey = pixels.mean(axis=2, dtype=np.float32) / np.float32(255)
        if greys[concept] and float(np.abs(np.stack(greys[concept]) - grey).mean(axis=(1, 2)).min()) < SAME_DRAWING:
            continue
        greys[concept].append(grey)
        drawings[concept].append((icon, pixels))
    return drawings, not_drawn


def _write_images(drawings: Drawings, folder: Path) -> list[str]:
    """Write the images; return a line per file: its relative path and the digest of its pixels."""
    lines = []
    for concept, icons in drawings.items():
        for icon, pixels in icons:
            path = folder / split_of(icon.set) / concept / f"{icon.set}__{icon.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()  # which no version of a PNG encoder changes
            lines.append(f"{path.relative_to(folder).as_posix()} {digest}")
    return lines


def main() -> None:
    """Build the data set where `--dataset icons-100` finds it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="@iconify/json, as .tgz or unpacked folder")
    parser.add_argument("--data-root", type=Path, help="folder of data sets; default: as of `bench`")
    options = parser.parse_args()
    folder = (options.data_root or default_data_root()).expanduser() / "icons-100"
    try:
        report = build_icons_100(
            options.source, folder, lambda done, total: print(f"{done:,} of {total:,} icons drawn")
        )
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(f"{folder}: {report['train_images']:,} training and {report['test_images']:,} test images")


if __name__ == "__main__":
    main()
