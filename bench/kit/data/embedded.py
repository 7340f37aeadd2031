"""``digits``: the data set that comes with scikit-learn, so that the benchmark runs with nothing to fetch.

The split is written down in ``digits_test.txt``. The 8x8 images are enlarged to the catalogue's size once, so
all that follows sees one size.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from bench.contract import DatasetInfo
from bench.kit.data import names
from bench.kit.data.dataset import Dataset, Resident

BRIGHTEST = 16  # load_digits counts the ink dots in 4x4 blocks


def test_indices() -> tuple[int, ...]:
    """The images of ``load_digits`` that are the test split, ascending."""
    lines = Path(__file__).with_name("digits_test.txt").read_text(encoding="utf-8").splitlines()
    return tuple(int(line) for line in lines if not line.startswith("#"))


def read_digits(info: DatasetInfo) -> Dataset:
    """The digits at ``info.image_size`` pixels: bilinear from 8x8, white ink on black."""
    source = load_digits()
    ink = torch.from_numpy(source.images).float()[:, None] * (255 / BRIGHTEST)
    enlarged = functional.interpolate(ink, size=info.image_size, mode="bilinear").round().to(torch.uint8)
    pixels = enlarged.expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(source.target).long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[list(test_indices())] = True
    ids = tuple(str(digit) for digit in source.target_names)
    return Dataset(
        info, names.DIGITS, ids, Resident(pixels[~test], labels[~test]), Resident(pixels[test], labels[test])
    )
