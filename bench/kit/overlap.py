"""Leakage: test images among the training images, and among synthetic ones, found by their decoded pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.api import Dataset, Split
from bench.kit.data.contents import BROKEN, HASH, replaced
from bench.kit.data.dataset import MOST_CHECKED, FileDataset, Files
from bench.kit.data.decoding import processors

# Of the test images, or of the synthetic ones. Copies can move a top-1 by their share at most, and one point is what
# boards of five seeds tell apart; the exact copies within the field's own sets are fewer.
MOST = 0.01


@final
@dataclass(frozen=True)
class Leakage:
    """The copies of test images in the training split, and the hashes by which further ones are found."""

    count: int  # test images
    in_training: int  # of them: those that are training images, too
    hashes: NDArray[np.void]  # of the others: as they are, and as they are tested

    @classmethod
    def of(cls, data: Dataset) -> Leakage:
        """Compare the splits of a data set, by files where more than ``MOST_CHECKED`` would have to be decoded.

        Raises:
            UserError: an image cannot be decoded.
        """
        test = _hashes(data.test)
        if isinstance(data, FileDataset) and len(data.contents.parts["train"].stamps) >= MOST_CHECKED:
            train, tested = (data.contents.parts[name].hashes.view(f"V{HASH}")[:, 0] for name in ("train", "val"))
        else:
            train, tested = _hashes(data.train), test
        again = np.isin(tested, train)
        size = data.info.image_size
        shown = _array(_hash(one) for batch, _ in data.test.centered(size, "cpu") for one in batch)
        return cls(len(tested), int(again.sum()), np.unique(np.concatenate([test[~again], shown[~again]])))

    def refusal(self, name: str) -> str:
        """Say why a data set called ``name`` is refused; empty: it is not."""
        return too_many(self.in_training, self.count, f"test images of {name} are training images, too")

    def among(self, images: Iterable[Tensor]) -> int:
        """Count the images, uint8 (3, S, S), that are test images and no training images."""
        return int(np.isin(_array(map(_hash, images)), self.hashes).sum())

    def save(self, path: Path) -> None:
        """Write the file that :meth:`load` reads."""
        with replaced(path) as stream:
            np.savez(stream, counts=[self.count, self.in_training], hashes=self.hashes.view(np.uint8))

    @classmethod
    def load(cls, path: Path) -> Leakage | None:
        """Read what was saved; None where that is nothing readable."""
        try:
            with np.load(path) as held:
                count, in_training = held["counts"].tolist()
                return cls(count, in_training, held["hashes"].view(f"V{HASH}"))
        except BROKEN:
            return None


def too_many(copies: int, count: int, what: str) -> str:
    """Say that among ``count`` images there are more copies than a board may hold without a word; else empty."""
    if copies <= MOST * count:
        return ""
    return (
        f"{copies} of {count} {what}; more than {100 * MOST:g} % are refused, for accuracy on them is none on "
        "unseen images: remove the copies, or say --allow-overlap, which the records show"
    )


def _hashes(split: Split) -> NDArray[np.void]:
    """Hash the decoded images of a split."""
    if not isinstance(split, Files):
        return _array(_hash(split.image(index)) for index in range(len(split)))
    with ThreadPoolExecutor(processors()) as pool:
        return _array(pool.map(lambda index: _hash(split.image(index)), range(len(split))))


def _array(hashes: Iterable[bytes]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(hashes), f"V{HASH}")


def _hash(pixels: Tensor) -> bytes:
    plain = pixels.cpu().contiguous()
    return hashlib.blake2b(f"{tuple(plain.shape)}".encode() + plain.numpy().tobytes(), digest_size=HASH).digest()
