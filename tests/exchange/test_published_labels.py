"""Label files in the layouts of SRe2L, G_VBSM, LPQLD and HALD, written here and read back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import UserError
from bench.exchange.published_labels import read_labels
from bench.kit.labels.storing import coordinates
from bench.kit.views import AugmentationConfig, AugmentationStream

CLASSES, BATCH, SIDE = 12, 6, 16
LOGITS = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(0)) * 3
STREAM = AugmentationStream(AugmentationConfig(size=SIDE, min_scale=0.3, flip=True, mix="cutmix", seed=2), 9)


def parts(kind: str) -> list[Any]:
    """A batch of our views, as each writes it."""
    held = coordinates(STREAM, 3, 0, BATCH, SIDE, SIDE)
    coords, flip, partner = held["coords"], held["flip"][:, 0], held["partner"][:, 0]
    top, left, bottom, right = held["box"][0].tolist()
    mix = [np.float64(held["weight"].item()), [top, left, bottom, right]]
    if kind == "fkd":
        return [coords, flip, partner, *mix, LOGITS.half()]
    if kind == "g_vbsm":
        return [coords, flip, partner, *mix, LOGITS.half(), STREAM.order(3)[:BATCH]]
    if kind == "hald":
        return [(LOGITS / 20).softmax(1).half(), coords.half(), flip, partner, *mix]
    top3 = LOGITS.topk(3, 1)
    box = [torch.tensor(side, dtype=torch.uint8) for side in (top, left, bottom, right)]
    return [top3.values.half(), top3.indices.short(), coords.half(), flip, partner.to(torch.uint8), float(mix[0]), *box]


def written(folder: Path, content: Any, epoch: int = 3, batch: int = 0) -> Path:
    (folder / f"epoch_{epoch}").mkdir(exist_ok=True)
    torch.save(content, folder / f"epoch_{epoch}" / f"batch_{batch}.tar")
    return folder


@pytest.mark.parametrize("kind", ["fkd", "g_vbsm", "hald", "lpqld"])
def test_a_batch_comes_back(tmp_path: Path, kind: str) -> None:
    (found,) = read_labels(written(tmp_path, parts(kind)), CLASSES)
    assert (found.epoch, found.batch) == (3, 0)
    if kind == "lpqld":
        assert torch.equal(found.logits.topk(3, 1).indices, LOGITS.topk(3, 1).indices)
        assert found.logits.softmax(1).topk(3, 1).values.sum(1).allclose(torch.ones(BATCH))
    else:
        shift = (found.logits - LOGITS).mean(1, keepdim=True)
        torch.testing.assert_close(found.logits - shift, LOGITS, atol=0.02, rtol=2e-3)
    assert (found.images is not None) == (kind == "g_vbsm")
    images = torch.randint(0, 256, (9, 3, SIDE, SIDE), dtype=torch.uint8)
    ours = STREAM.again(images, torch.zeros(9, dtype=torch.int64), 3, 0, BATCH)
    views = found.views(images[ours.indices], SIDE)
    torch.testing.assert_close(views, ours.pixels, atol=1e-5, rtol=0)


def test_batches_come_in_the_order_of_numbers(tmp_path: Path) -> None:
    for epoch, batch in ((10, 0), (2, 11), (2, 3)):
        written(tmp_path, parts("fkd"), epoch, batch)
    assert [(one.epoch, one.batch) for one in read_labels(tmp_path, CLASSES)] == [(2, 3), (2, 11), (10, 0)]


class Trap:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": 1}, "holds a dict, expected the list"),
        ([torch.zeros(3, 4)], "holds no flips"),
        ([torch.zeros(BATCH, 7), torch.zeros(BATCH, dtype=torch.bool)], r"labels \(B, 12\) of a batch"),
    ],
)
def test_what_is_no_batch_is_told(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        next(read_labels(written(tmp_path, content), CLASSES))


def test_no_code_is_run_and_an_empty_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"holds no epoch_E/batch_B"):
        next(read_labels(tmp_path, CLASSES))
    written(tmp_path, [Trap()])
    with pytest.raises(UserError, match="can't be read as tensors and numbers"):
        next(read_labels(tmp_path, CLASSES))
    (tmp_path / "epoch_3" / "batch_0.tar").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="can't be read"):
        next(read_labels(tmp_path, CLASSES))
    assert "code ran" not in capsys.readouterr().out
