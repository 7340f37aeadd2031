"""``digits``: the data set that comes with scikit-learn, so that the benchmark runs with nothing to fetch.

Reads ``datasets/data/digits.csv.gz`` of the installed scikit-learn: a line has the 64 values of an image and
its class. The split is written down in ``digits_test.txt``. The 8x8 images are enlarged to the catalogue's
size once, so all that follows sees one size.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from bench.api import Dataset, DatasetInfo
from bench.errors import UserError
from bench.kit.data import names
from bench.kit.data.dataset import Resident

SIDE = 8
BRIGHTEST = 16  # a value counts the ink dots in a block of 4x4


def test_indices() -> tuple[int, ...]:
    """The lines of scikit-learn's file that are the test split, from 0, ascending."""
    lines = Path(__file__).with_name("digits_test.txt").read_text(encoding="utf-8").splitlines()
    return tuple(int(line) for line in lines if not line.startswith("#"))


def _digits_file() -> Path:
    """The file within scikit-learn; importing that package would take a second of every process."""
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise UserError("digits comes with scikit-learn, which is not installed whole; install scikit-learn again")


def read_digits(info: DatasetInfo) -> Dataset:
    """The digits at ``info.image_size`` pixels: bilinear from 8x8, white ink on black."""
    table = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=",", dtype=np.float32))
    ink = table[:, :-1].view(-1, 1, SIDE, SIDE) * (255 / BRIGHTEST)
    enlarged = functional.interpolate(ink, size=info.image_size, mode="bilinear").round().to(torch.uint8)
    pixels = enlarged.expand(-1, 3, -1, -1).contiguous()
    labels = table[:, -1].long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[list(test_indices())] = True
    ids = tuple(str(digit) for digit in range(info.classes))
    return Dataset(
        info, names.DIGITS, ids, Resident(pixels[~test], labels[~test]), Resident(pixels[test], labels[test])
    )
