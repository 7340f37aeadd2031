"""Leakage: test images among the training images, and among synthetic ones, found by their decoded pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from bench.api import Dataset, Images, Split
from bench.files import replaced
from bench.kit.data.contents import BROKEN, HASH
from bench.kit.data.dataset import FileDataset, Resident
from bench.kit.data.decoding import MOST_CHECKED

# Of the test images, or of the synthetic ones. Copies can move a top-1 by their share at most, and one point is what
# boards of five seeds tell apart; the exact copies within the field's own sets are fewer.
MOST = 0.01
SIDE = 8  # pixels of the thumbnails by which copies are known that were encoded or resized again
NEAR = 4.0  # of 255, root mean square: JPEG changes a 16-px digit by 2, and the likest other one is 11 away
FLAT = 0.1  # of the thumbnail's own contrast, so that flat images are not all alike
_AT_ONCE = 4096


@final
@dataclass(frozen=True)
class Leakage:
    """Perceptual hashes of a data set's images, by which copies of test images are found."""

    test: NDArray[np.uint8]  # hashes (M, HASH) of test images as they are tested, and as they are where they are small
    test_thumbs: NDArray[np.uint8]  # (M, 3 · SIDE²) of the same
    train: NDArray[np.uint8]  # the same of the training images; none where they are too many to be decoded for this
    train_thumbs: NDArray[np.uint8]
    counts: NDArray[np.int64]  # test images, and those of them that are training images, too

    @classmethod
    def of(cls, data: Dataset) -> Leakage:
        """Look at a data set; where more than ``MOST_CHECKED`` training images would be decoded, at their files alone.

        Raises:
            UserError: an image cannot be decoded.
        """
        test, size = data.test, data.info.image_size
        tested = [_looks(test, size, whole) for whole in ((True, False) if isinstance(test, Resident) else (False,))]
        hashes, thumbs = (np.concatenate(parts) for parts in zip(*tested, strict=True))
        if isinstance(data, FileDataset) and len(data.contents.parts["train"].stamps) >= MOST_CHECKED:
            files = data.contents.parts
            again = _isin(files["val"].hashes, files["train"].hashes)
            train = np.zeros((0, HASH), np.uint8), np.zeros((0, thumbs.shape[1]), np.uint8)
        else:
            train = _looks(data.train, size, isinstance(test, Resident))
            again = _isin(tested[0][0], train[0])
        return cls(hashes, thumbs, *train, np.array([len(test), again.sum()]))

    @property
    def refusal(self) -> str:
        """Reason to refuse the data set; empty: there is none."""
        count, copies = self.counts.tolist()
        return too_many(copies, count, "test images are training images, too")

    def among(self, images: Tensor) -> int:
        """Count the images, uint8 (N, 3, S, S), that are test images and no training images, perhaps mirrored."""
        looks = [_look(images), _look(images.flip(3))]
        copies = np.any([_isin(one, self.test) | _near(thumb, self.test_thumbs) for one, thumb in looks], axis=0)
        looks = [(one[copies], thumb[copies]) for one, thumb in looks]
        known = np.any([_isin(one, self.train) | _near(thumb, self.train_thumbs) for one, thumb in looks], axis=0)
        return int((~known).sum())

    def save(self, path: Path) -> None:
        """Write the file that :meth:`load` reads."""
        with replaced(path) as stream:
            np.savez(stream, allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Leakage | None:
        """Read what was saved; None where that is nothing readable."""
        try:
            with np.load(path) as held:
                return cls(*(held[field.name] for field in fields(cls)))
        except BROKEN:
            return None


def repeated(images: Images) -> int:
    """Count the images that are another of their set again, with all their extras."""
    tensors = [tensor.cpu().contiguous().numpy() for tensor in (images.pixels, *images.extras.values())]
    rows = {hashlib.blake2b(b"".join(one.tobytes() for one in row)).digest() for row in zip(*tensors, strict=True)}
    return len(images) - len(rows)


def too_many(copies: int, count: int, what: str) -> str:
    """Say that among ``count`` images there are more copies than a board may hold without a word; else empty."""
    if copies <= MOST * count:
        return ""
    return (
        f"{copies} of {count} {what}; more than {100 * MOST:g} % are refused, for accuracy on them is none on "
        "unseen images: remove the copies, or say --allow-overlap, which the records show"
    )


def _looks(split: Split, size: int, whole: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    looks = [_look(pixels) for pixels, _ in split.centered(size, "cpu", whole=whole)]
    hashes, thumbs = (np.concatenate(parts) for parts in zip(*looks, strict=True))
    return hashes, thumbs


def _look(images: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return hashes and thumbnails of images, uint8 (N, 3, S, S)."""
    plain = images.cpu().contiguous()
    hashes = b"".join(hashlib.blake2b(one.tobytes(), digest_size=HASH).digest() for one in plain.numpy())
    thumbs = [adaptive_avg_pool2d(some.float(), SIDE).round().flatten(1).byte() for some in plain.split(_AT_ONCE)]
    return np.frombuffer(hashes, np.uint8).reshape(-1, HASH), torch.cat(thumbs).numpy()


def _isin(hashes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    one, other = (np.ascontiguousarray(array).view(f"V{HASH}")[:, 0] for array in (hashes, others))
    found: NDArray[np.bool_] = np.isin(one, other)
    return found


def _near(thumbs: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say which thumbnails (N, 3 · SIDE²) are nearly one of the others."""
    near, ours = np.zeros(len(thumbs), bool), torch.from_numpy(thumbs).float()
    for some in torch.from_numpy(others).split(_AT_ONCE):
        theirs = some.float()
        contrast = theirs.unflatten(1, (3, -1)).var(2, correction=0).mean(1)
        limit = (FLAT**2 * contrast).clamp(max=NEAR**2)
        for first in range(0, len(ours), _AT_ONCE):
            mine = ours[first : first + _AT_ONCE]
            squares = mine.square().sum(1)[:, None] + theirs.square().sum(1) - 2 * mine @ theirs.T
            near[first : first + _AT_ONCE] |= (squares / mine.shape[1] <= limit).any(1).numpy()
    return near
