"""Counter-based random numbers of the views, so that any of them can be drawn again on its own.

The generator is Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Its
raw 64-bit words are fixed by the algorithm, so the draws depend neither on the version of torch or numpy nor
on what was drawn before. The key is (seed, purpose) and the counter is (block, 0, epoch, 0), to which numpy
adds one before it draws.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WORDS_PER_BLOCK = 4  # Philox-4x64 makes four words from one counter value
NEXT_EPOCH = 1 << 128  # from one value of the third counter word to the next
GAP = 64  # rows that are drawn and thrown away in less time than it takes to set the generator up again


class Purpose(IntEnum):
    """Purpose of a table of draws.

    Each has a key of its own, so that switching one augmentation on or off leaves the others as they were. Values and
    widths are part of every stored label: never change them.
    """

    IMAGE = 1  # a row per image, columns as in `Column`
    CROP = 2  # a row per image: area and aspect of ten tries, top, left
    SHUFFLE = 3  # a row per image: a draw for each row strip and column strip, in pairs
    BATCH = 4  # a row per batch: weight of the mix, centre of its box (row, column), one to spare
    ORDER = 5  # one row: an order of a whole set, from which samples are taken


class Column(IntEnum):
    """Columns of the IMAGE table; the others are spare."""

    ORDER = 0
    FLIP = 1
    PARTNER = 2
    DOWN = 3
    RIGHT = 4


IMAGE_WIDTH = 8
BATCH_WIDTH = 4


def span_uniforms(seed: int, purpose: Purpose, epochs: range, count: int, width: int, first: int = 0) -> Floats:
    """Draw uniforms in [0, 1): rows ``first`` to ``first + count`` of the tables of successive epochs.

    One table comes below the other, float64 (epochs * count, width). Row i of a table belongs to image (or batch) i,
    whatever else is drawn. A double holds the upper 53 bits of a word.
    """
    block, skip = divmod(first * width, WORDS_PER_BLOCK)
    words = skip + count * width
    generator = np.random.Philox(
        key=np.array([seed, purpose], dtype=np.uint64),
        counter=np.array([block, 0, epochs.start, 0], dtype=np.uint64),
    )
    tables = []
    for _ in epochs:
        tables.append(generator.random_raw(words)[skip:])
        generator.advance(NEXT_EPOCH - -(-words // WORDS_PER_BLOCK))  # several times as fast as a new one
    joined = tables[0] if len(tables) == 1 else np.concatenate(tables)
    draws: Floats = np.multiply(joined >> np.uint64(11), 2.0**-53, dtype=np.float64)
    return draws.reshape(len(epochs) * count, width)


def uniforms(seed: int, purpose: Purpose, epoch: int, count: int, width: int, first: int = 0) -> Floats:
    """Draw the same for one epoch, float64 (count, width)."""
    return span_uniforms(seed, purpose, range(epoch, epoch + 1), count, width, first)


def some_uniforms(seed: int, purpose: Purpose, epoch: int, rows: NDArray[np.int64], width: int) -> Floats:
    """Draw the rows ``rows`` (B,) of an epoch's table, float64 (B, width), without drawing the whole table."""
    wanted, place = np.unique(rows, return_inverse=True)
    drawn = []
    for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > GAP) + 1):
        table = uniforms(seed, purpose, epoch, int(run[-1] - run[0]) + 1, width, first=int(run[0]))
        drawn.append(table[run - run[0]])
    return np.concatenate(drawn)[place]


def permutation(draws: Floats) -> NDArray[np.int64]:
    """Return the permutations that sort ``draws`` along their last axis: uniformly distributed, same shape."""
    return np.argsort(draws, axis=-1, kind="stable")
