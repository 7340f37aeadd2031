"""G_VBSM's pool: settings of each data set, how its networks are trained, and the labels they give together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench.api import DatasetInfo, GridPoint, TeacherSpec, catalogue
from bench.errors import UserError
from bench.kit import labels
from bench.kit.models import build
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from bench.kit.views import AugmentedBatch
from methods.g_vbsm import GVBSM
from methods.g_vbsm.config import IMAGENET_POOL, NARROW_POOL, SMALL_POOL
from methods.g_vbsm.ensemble import Ensemble, average

GREY: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def method(name: str, **overrides: Any) -> GVBSM:
    return GVBSM.for_dataset(catalogue.dataset(name), **overrides)


def specs(name: str, **overrides: Any) -> tuple[TeacherSpec, ...]:
    return method(name, **overrides).teachers(GridPoint(catalogue.dataset(name), 10, 0))


# -- settings


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("imagenet-1k", (IMAGENET_POOL, "rrc", 4000, 80, 0.1, 0.4, 0.0, 16, 32, 1, True)),
        ("imagenette", (IMAGENET_POOL, "rrc", 4000, 80, 0.1, 0.4, 0.0, 16, 32, 1, True)),
        ("cifar10", (SMALL_POOL, "shift", 4000, 100, 0.05, 0.8, 0.4, 4, 32, 1, False)),
        ("cifar100", (SMALL_POOL, "shift", 4000, 100, 0.05, 0.8, 0.4, 4, 32, 1, False)),
        ("tiny-imagenet", (SMALL_POOL, "shift", 4000, 100, 0.05, 0.8, 0.4, 4, 32, 10, False)),
        ("mnist", (SMALL_POOL, "shift", 4000, 100, 0.05, 0.8, 0.4, 4, 32, 1, False)),
        ("icons-100", (NARROW_POOL[:3], "rrc", 201, 100, 0.1, 0.8, 0.4, 4, 4, 1, False)),
        ("digits", (NARROW_POOL, "rrc", 400, 100, 0.1, 0.8, 0.4, 4, 2, 1, False)),
    ],
)
def test_settings_of_each_data_set(name: str, wanted: tuple[Any, ...]) -> None:
    c = method(name).config
    found = (
        c.pool, c.crop, c.iterations, c.batch_size, c.lr, c.alpha, c.beta_dr, c.patch, c.roll, c.blocks,
        c.norm_weighting,
    )  # fmt: skip
    assert found == wanted
    assert (c.r_loss, c.nuc_norm, c.tau, c.first_multiplier) == (0.01, 1, 4, 10)
    assert (c.ema_init, c.ema_reset, c.backbone, c.antialias) == ("zero", "never", "round-robin", False)
    info = catalogue.dataset(name)
    assert c.pad == (8 if info.image_size == 64 else 4)
    assert c.flip == info.flip
    assert c.micro_batches == (
        1 if name in ("cifar10", "icons-100", "digits") else 2
    )  # the GPUs of the authors' scripts
    assert c.crop == "shift" or c.min_scale == info.teacher.min_scale  # the pool was trained on such crops


def test_an_unknown_set_of_up_to_64_pixels_is_as_tiny_imagenet_without_its_blocks() -> None:
    tiny = catalogue.dataset("tiny-imagenet")
    known, other = (GVBSM.for_dataset(info).config for info in (tiny, tiny.model_copy(update={"name": "mine"})))
    assert other == known.model_copy(update={"blocks": 1})


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "lr", "schedule", "augment"),
    [
        ("cifar10", 5, 64, 0.05, "constant", "shift-flip"),
        ("cifar100", 50, 64, 0.05, "constant", "shift-flip"),
        ("tiny-imagenet", 50, 128, 0.1, "cosine", "shift-flip"),
        ("mnist", 50, 64, 0.05, "constant", "shift"),  # a mirrored digit is another one
    ],
)
def test_the_pool_is_squeezed_by_its_own_recipe(
    name: str, epochs: int, batch: int, lr: float, schedule: str, augment: str
) -> None:
    found = specs(name)
    assert tuple(spec.arch for spec in found) == SMALL_POOL
    for spec in found:
        assert (spec.epochs, spec.batch_size, spec.lr, spec.schedule) == (epochs, batch, lr, schedule)
        assert (spec.augment, spec.momentum, spec.weight_decay) == (augment, 0.9, 0)


def test_without_a_recipe_of_its_own_the_data_sets_teacher_is_shared() -> None:
    for name in ("digits", "fashion-mnist", "icons-100", "imagenet-1k"):
        default = catalogue.dataset(name).teacher
        found = specs(name)
        assert found[0] == default
        for spec in found[1:]:
            assert {**spec.model_dump(), "arch": "", "lr": 0} == {**default.model_dump(), "arch": "", "lr": 0}
    assert [spec.lr for spec in specs("digits")] == [0.05, 0.05, 0.01, 0.05, 0.05]


def test_what_cannot_be_is_said_in_one_line() -> None:
    tiny = catalogue.dataset("tiny-imagenet")
    method("tiny-imagenet").check(GridPoint(tiny, 10, 0))
    with pytest.raises(UserError, match=r"tiny-imagenet takes an IPC that is a multiple of its 10 blocks, not 1;"):
        method("tiny-imagenet").check(GridPoint(tiny, 1, 0))
    method("tiny-imagenet", blocks=1).check(GridPoint(tiny, 1, 0))
    digits = GridPoint(catalogue.dataset("digits"), 1, 0)
    method("digits", groups=4, ema_reset="per_batch").check(digits)
    for wrong in ({}, {"ema_reset": "per_batch", "iterations": 7}, {"ema_reset": "per_batch", "backbone": "random"}):
        with pytest.raises(UserError, match=r"g_vbsm.groups 4: batches build on one another"):
            method("digits", groups=4, **wrong).check(digits)
    with pytest.raises(ValidationError, match="batch_size 81 is no multiple of micro_batches 2"):
        GVBSM.Config(batch_size=81)
    with pytest.raises(ValidationError, match="holds an architecture twice"):
        GVBSM.Config(pool=("resnet18", "resnet18"))
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        GVBSM.Config(pool=("resnet81",))


def test_artifacts_are_shared_where_they_can_be() -> None:
    info = catalogue.dataset("cifar10")
    one, other = GridPoint(info, 1, 0), GridPoint(info, 50, 3)
    plain = method("cifar10")
    for artifact in ("prepared", "labels"):
        assert plain.depends_on(artifact, one) == plain.depends_on(artifact, other) == {}
    assert plain.depends_on("images", one) != plain.depends_on("images", other)

    def identity(artifact: Any, **changes: Any) -> dict[str, Any]:
        return method("cifar10", **changes).config.identity(artifact)

    for changes in ({"lr": 0.3}, {"iterations": 5}, {"roll": 1}, {"alpha": 0.1}, {"beta_dr": 0.1}):
        assert identity("prepared", **changes) == identity("prepared")
        assert identity("labels", **changes) == identity("labels")
        assert identity("images", **changes) != identity("images")
    for changes in ({"patch": 8}, {"pad": 2}):
        assert identity("prepared", **changes) != identity("prepared")
    assert method("cifar10", pool=("convnet3",)).teachers(one) != plain.teachers(one)  # the parents of all artifacts
    assert identity("labels") == {"norm_weighting": False}
    assert identity("images", norm_weighting=True) == identity("images")
    assert identity("images", groups=9, ema_reset="per_batch") == identity("images", ema_reset="per_batch")


@pytest.mark.parametrize(("pool", "size", "wanted"), [(SMALL_POOL, 32, 148), (IMAGENET_POOL, 224, 209)])
def test_the_pools_have_as_many_convolutions_as_the_authors_saved_statistics_of(
    pool: tuple[str, ...], size: int, wanted: int
) -> None:
    nets = [build(arch, 10, size, **GREY) for arch in pool]
    assert sum(isinstance(module, nn.Conv2d) for net in nets for module in net.modules()) == wanted


# -- labels


@pytest.fixture
def pool(tmp_path: Path) -> tuple[Trajectory, ...]:
    found = []
    for seed, arch in enumerate(("convnet2-w8", "wrn10-1", "resnet10-small-w4")):
        folder = tmp_path / arch
        folder.mkdir()
        network = Network(arch=arch, classes=5, image_size=8, **GREY)
        torch.manual_seed(seed)
        trajectory.save(folder, network, "none", {1: network.build().net.state_dict()}, {1: 0.5}, 0.5)
        found.append(Trajectory.load(folder, torch.device("cpu")))
    return tuple(found)


def views(count: int = 6) -> AugmentedBatch:
    pixels = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    index = torch.arange(count)
    return AugmentedBatch(pixels, index, index % 5, index % 5, index, 1.0, 0, 0)


def reference(pool: tuple[Trajectory, ...], pixels: Tensor, weighted: bool) -> Tensor:
    """Network by network, with the norm spelt out."""
    each = [teacher.model()(pixels) for teacher in pool]
    norms = [logits.pow(2).sum().sqrt() for logits in each]
    if weighted:
        each = [logits / norm * (sum(norms) / len(norms)) for logits, norm in zip(each, norms, strict=True)]
    return torch.stack(each).mean(0)


@pytest.mark.parametrize("weighted", [True, False])
def test_labels_are_the_mean_of_all_networks(pool: tuple[Trajectory, ...], tmp_path: Path, weighted: bool) -> None:
    source = Ensemble.of(pool, weighted)
    found = source.soft_labels(views(), 0)
    assert found.shape == (6, 5) and not found.requires_grad
    assert torch.allclose(found, reference(pool, views().pixels, weighted), atol=1e-6)
    rows = [dataclasses.replace(views(), pixels=row[None]) for row in views().pixels]
    alone = torch.cat([source.soft_labels(row, 0) for row in rows])
    assert torch.allclose(alone, found, atol=1e-5) is not weighted  # with weights, labels depend on the batch
    folder = tmp_path / "labels"
    folder.mkdir()
    source.save(folder)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    loaded = labels.load(folder, torch.device("cpu"), GVBSM.label_kinds)
    assert torch.equal(loaded.soft_labels(views(), 0), found)
    assert loaded.public() == () and loaded.schedule() is None


def test_one_network_is_its_own_mean() -> None:
    logits = torch.randn(1, 4, 3)
    assert torch.allclose(average(logits, True), logits[0]) and torch.equal(average(logits, False), logits[0])


def test_small_sets_ask_for_a_plain_mean(pool: tuple[Trajectory, ...]) -> None:
    info: DatasetInfo = catalogue.dataset("digits")
    assert not GVBSM.for_dataset(info).config.norm_weighting
    assert GVBSM.info.labels == "ensemble" and GVBSM.info.stored == "fp16"
