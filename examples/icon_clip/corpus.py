"""Icons as pixels with their captions: drawn once from the npm package, then mapped from a file.

    corpus = draw_corpus(package, Path("runs/icon-clip"), limit=0, processes=2, report=print)

`pixels.npy` holds the drawings and `corpus.json`, written last, everything else: without it nothing is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import UserError
from examples.icon_clip.captions import one_name
from examples.icon_clip.pairs import training_pairs
from examples.icons_100.package import rasterise_many

SIZE = 32
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL makes grey


@dataclass(frozen=True)
class Corpus:
    """N icons with captions.

    `pixels` are grey uint8 (N, 32, 32), dark on white; `caption` (N,) are indices into `captions`, -1 for an icon that
    does not draw; `unseen` (N,) marks icons of the sets that icon-clip never trains on.
    """

    pixels: Tensor
    caption: NDArray[np.int64]
    captions: list[str]
    unseen: NDArray[np.bool_]


def draw_corpus(source: Path, folder: Path, limit: int, processes: int, report: Callable[[str], None]) -> Corpus:
    """Draw every icon of `training_pairs`, or read the drawings back where they are those of this source.

    Args:
        source: the npm package `@iconify/json`, as .tgz or unpacked folder.
        folder: where `pixels.npy` and `corpus.json` are, or will be.
        limit: number of icons to train on, chosen at random; 0: all.
        processes: number of processes that draw.
        report: called with a line of progress now and then.
    """
    pairs = training_pairs(source)
    order = np.random.default_rng(0).permutation(len(pairs.train))[: limit or None]
    icons = [*(pairs.train[i] for i in order), *pairs.unseen]
    key = hashlib.sha256("\n".join(f"{icon.set}:{icon.name}" for icon, _ in icons).encode()).hexdigest()
    index = folder / "corpus.json"
    if index.is_file() and json.loads(index.read_text(encoding="utf-8"))["key"] == key:
        return read_corpus(folder)
    index.unlink(missing_ok=True)
    named = [one_name(caption) for _, caption in icons]
    captions = sorted(set(named))
    number = {caption: position for position, caption in enumerate(captions)}
    caption = [number[name] for name in named]
    store = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=(len(icons), SIZE, SIZE))
    not_drawn: list[str] = []
    for row, pixels in enumerate(rasterise_many([icon for icon, _ in icons], SIZE, processes)):
        if isinstance(pixels, str):
            not_drawn.append(f"{icons[row][0].set}:{icons[row][0].name}: {pixels}")
            caption[row] = -1
        else:
            store[row] = np.round(pixels @ LUMA)
        if (row + 1) % 50_000 == 0:
            report(f"drawn {row + 1} of {len(icons)}")
    store.flush()
    report(f"drew {len(icons) - len(not_drawn)} icons; {len(not_drawn)} would not draw, {pairs.held_out} held out")
    facts: dict[str, Any] = {
        "key": key,
        "package": pairs.package.version,
        "train": len(order),
        "held_out": pairs.held_out,
        "not_drawn": not_drawn,
        "captions": captions,
        "caption": caption,
    }
    temporary = folder / "corpus.tmp"
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(index)
    return read_corpus(folder)


def read_corpus(folder: Path) -> Corpus:
    """Read what `draw_corpus` wrote to `folder`; the pixels stay on disk until they are used.

    Raises:
        UserError: nothing is there.
    """
    try:
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        # Copy on write: torch asks for memory that it may write to.
        pixels = torch.from_numpy(np.load(folder / "pixels.npy", mmap_mode="c"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: no drawn icons ({type(error).__name__}); run examples.icon_clip.train, which draws them"
        ) from None
    caption = np.array(facts["caption"], dtype=np.int64)
    return Corpus(pixels, caption, facts["captions"], np.arange(len(caption)) >= facts["train"])
