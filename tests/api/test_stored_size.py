"""What stored labels weigh, by arithmetic, against the published figures and against files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.layout import SHARD_BYTES, LabelLayout
from bench.api.stored.size import fkd_bytes, logit_bytes

MIB, GIB = 2**20, 2**30


def schedule(images: int, epochs: int, batch_size: int, seed: int = 0) -> AugmentationSchedule:
    return AugmentationSchedule(
        plan=AugmentationConfig(size=32, seed=seed), images=images, epochs=epochs, batch_size=batch_size
    )


# -- the official format


@pytest.mark.parametrize(("images", "gib"), [(10_000, 5.665), (50_000, 28.326), (100_000, 56.652), (200_000, 113.303)])
def test_sre2l_on_imagenet(images: int, gib: float) -> None:
    """The label sizes that LPLD's README lists (5.67, 28.33, 56.66, 113.33 "GB"), counted on the format."""
    assert fkd_bytes(images, 1000, 300, 1024) / GIB == pytest.approx(gib, rel=1e-3)


def test_pure_logits() -> None:
    """572 MB and 110 GB, as the label sizes of ImageNet-1K at IPC 1 and 200 are stated (HeLlO)."""
    assert logit_bytes(1000, 1000, 300) / MIB == pytest.approx(572.2, rel=1e-3)
    assert logit_bytes(200_000, 1000, 300) / GIB == pytest.approx(111.76, rel=1e-3)
    for images, mib in ((100, 5.72), (1000, 57.2), (5000, 286.1)):
        assert logit_bytes(images, 100, 300) / MIB == pytest.approx(mib, rel=1e-3)


@pytest.mark.parametrize(
    ("images", "classes", "epochs", "batch_size", "index", "mib"),
    [
        (1000, 1000, 300, 1024, False, 580.1),
        (100, 100, 300, 100, False, 7.2),
        (1000, 100, 300, 100, False, 71.8),
        (5000, 100, 300, 100, False, 359),
        (10_000, 1000, 300, 1024, True, 5.688 * 1024),
        (200_000, 1000, 300, 128, False, 114.33 * 1024),
        (100, 10, 1000, 100, True, 7.7),
    ],
)
def test_other_sets(images: int, classes: int, epochs: int, batch_size: int, index: bool, mib: float) -> None:
    """Small files weigh more: the last digit that is stated counts where it is coarser than a thousandth."""
    found = fkd_bytes(images, classes, epochs, batch_size, index=index) / MIB
    assert found == pytest.approx(mib, rel=1e-3, abs=0.05)


@pytest.mark.parametrize("index", [False, True])
def test_a_real_file_of_the_official_format(tmp_path: Path, index: bool) -> None:
    """What SRe2L's relabelling saves for a batch, and G_VBSM's with its index."""
    batch, classes = 1024, 1000
    content: list[object] = [
        torch.rand(batch, 4),
        torch.rand(batch) < 0.5,
        torch.randperm(batch),
        0.37,
        [3, 10, 120, 200],
        torch.randn(batch, classes).half(),
    ]
    if index:
        content.append(torch.randperm(batch))
    torch.save(content, tmp_path / "batch_0.tar")
    size = (tmp_path / "batch_0.tar").stat().st_size
    assert fkd_bytes(batch, classes, 1, batch, index=index) == pytest.approx(size, rel=1e-3)


# -- ours


def test_bytes_of_our_files_without_their_headers() -> None:
    """ImageNet-1K at IPC 10: the logits and next to nothing."""
    whole = schedule(10_000, 300, 100)
    assert LabelLayout(whole, LabelCodec(), 1000).total == pytest.approx(logit_bytes(10_000, 1000, 300), rel=1e-5)
    assert LabelLayout(whole, LabelCodec(prune=40), 1000).total == pytest.approx(6e9 / 40, rel=1e-5)
    coords = LabelLayout(whole, LabelCodec(coords=True), 1000).total
    assert coords == pytest.approx(fkd_bytes(10_000, 1000, 300, 100), rel=2e-2)
    assert coords == pytest.approx(10_000 * 300 * 2025 + 300 * 100 * 24, rel=1e-5)


@pytest.mark.parametrize("images", [100, 103, 7])
@pytest.mark.parametrize("prune", [1, 2, 3, 9])
def test_kept_batches(images: int, prune: int) -> None:
    made = LabelLayout(schedule(images, 9, 10, seed=3), LabelCodec(prune=prune), 5)
    kept = [pair for shard in range(made.shards) for pair in made.kept(shard)]
    full, short = divmod(images, 10)
    assert kept == sorted(set(kept)) and len(kept) == len(made)
    assert all(0 <= epoch < 9 and 0 <= batch < made.schedule.batches for epoch, batch in kept)
    assert sum(batch < full for _, batch in kept) == -(-9 * full // prune)
    assert sum(batch == full for _, batch in kept) == (-(-9 // prune) if short else 0)
    at = 0
    for epoch, batch in kept:  # one after another
        assert made.place(epoch, batch) == (0, at, at := at + len(made.schedule.rows(batch)))
    if prune > 1:
        dropped = next((e, b) for e in range(9) for b in range(made.schedule.batches) if (e, b) not in kept)
        with pytest.raises(ValueError, match=f"no stored labels for batch {dropped[1]} of epoch {dropped[0]}"):
            made.place(*dropped)
    for epoch, batch in ((9, 0), (0, made.schedule.batches), (-1, 0), (1, -1)):
        with pytest.raises(ValueError, match="no stored labels"):
            made.place(epoch, batch)


def test_which_batches_are_kept_is_pinned() -> None:
    """Stored labels live as long as this draw."""
    made = LabelLayout(schedule(25, 4, 10, seed=7), LabelCodec(prune=2), 5)
    assert made.kept(0) == [(0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (3, 1)]
    assert made.replay(0) == [(1, 0), (2, 0), (1, 2)]


@pytest.mark.parametrize(("images", "epoch_bytes"), [(50, 1000), (50, 999), (50, 7000), (53, 250), (53, 1)])
def test_a_shard_holds_whole_epochs_or_else_whole_batches(images: int, epoch_bytes: int) -> None:
    """Twenty bytes a view, batches of ten."""
    made = LabelLayout(schedule(images, 7, 10), LabelCodec(), 10, shard_bytes=epoch_bytes)
    shards = [made.kept(shard) for shard in range(made.shards)]
    assert [pair for shard in shards for pair in shard] == [(e, b) for e in range(7) for b in range(-(-images // 10))]
    epochs = epoch_bytes // (images * 20)
    if epochs:
        assert [shard[0] for shard in shards] == [(epoch, 0) for epoch in range(0, 7, epochs)]
    else:
        assert {len(shard) for shard in shards[:-1]} == {max(1, epoch_bytes // 200)}


def test_shards_stay_small_however_large_the_labels() -> None:
    made = LabelLayout(schedule(200_000, 300, 1024), LabelCodec(), 1000)
    sizes = [made.size(shard) for shard in range(made.shards)]
    assert max(sizes) <= SHARD_BYTES + 1000 and sum(sizes) == made.total
    small = LabelLayout(schedule(10, 300, 10), LabelCodec(), 10)
    assert small.shards == 1 and small.total == 8 + 72 + 300 * 10 * 10 * 2


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; from bench.api.stored.size import *; from bench.api.stored.layout import *;"
        "from bench.api.augmentation import *;"
        "s = AugmentationSchedule(plan=AugmentationConfig(size=8), images=20, epochs=4, batch_size=6);"
        "print(LabelLayout(s, LabelCodec(prune=2), 10).total, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False"
