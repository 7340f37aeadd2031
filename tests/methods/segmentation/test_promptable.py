"""The promptable teacher and its projector: what they learn, what they store, and that stops leave no trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.api import Dataset, DatasetInfo, Distiller, FrozenBackbone, GridPoint, Task, TeacherSpec
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit import running
from bench.kit.checkpoint import Checkpoint
from bench.kit.clip import loading
from bench.kit.running import RunningTask
from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch
from bench.planning.cells import Cells
from methods.hello import lora
from methods.segmentation import masks as measure
from methods.segmentation import networks, projector
from methods.segmentation.config import MaskTraining, ProjectorConfig, TeacherConfig
from methods.segmentation.masks import click_maps
from methods.segmentation.projector import ProjectorMasks, build
from methods.segmentation.promptable import Promptable
from methods.segmentation.promptable_lora import PromptableLoRA
from methods.segmentation.scenes import make_scenes
from methods.segmentation.teacher import TeacherMasks
from tests.methods.segmentation.test_icon_scenes import stickers
from tests.methods.test_hello_projector import BASE, CPU, tiny_clip
from tests.stopping import stopped_every

CLASSES, SIDE = 5, 32
SHORT = MaskTraining(epochs=2, batch_size=8, lr=0.01)


def fake_load_clip(name: str, device: torch.device) -> tuple[Any, Any, FrozenBackbone]:
    assert name == BASE.name
    return tiny_clip(), None, BASE


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loading, projector):
        monkeypatch.setattr(module, "load_clip", fake_load_clip)


@cache
def scenes(train: int = 20) -> Dataset:
    info = DatasetInfo(
        name="toy", title="Toy", classes=CLASSES, image_size=SIDE, smallest_class=train // CLASSES, train_images=train,
        test_images=40, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), teacher=TeacherSpec(), clip="tiny",
        student="promptable-w4", task="segmentation", label_shape=(SIDE // 4, SIDE // 4),
    )  # fmt: skip
    names = tuple("abcde")
    return Dataset(info, names, names, make_scenes(stickers(), train, SIDE, 1), make_scenes(stickers(), 40, SIDE, 2))


def task(work: Path, progress: Any = lambda *_, **__: None, data: Dataset | None = None, **changes: Any) -> RunningTask:
    work.mkdir(exist_ok=True)
    data = data or scenes()
    plain: dict[str, Any] = {
        "dataset": data.info, "ipc": 1, "seed": 0, "data": data, "device": CPU, "work": work, "on_progress": progress,
    }  # fmt: skip
    return RunningTask(**plain | changes)


def setting(ipc: int = 1, seed: int = 0, **changes: Any) -> GridPoint:
    return GridPoint(scenes().info.model_copy(update=changes), ipc, seed)


def some_views(data: Dataset) -> AugmentedBatch:
    stream = AugmentationStream(AugmentationConfig(size=SIDE, min_scale=0.3, flip=True, seed=2), len(data.train))
    return next(iter(data.train.views(stream.config, 0, 16, "cpu")))


def teacher_of(config: TeacherConfig, here: RunningTask) -> TeacherMasks:
    method = Promptable(config)
    return method.label_model(replace(here, prepared=running.prepare(method, here)))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


TINY = TeacherConfig(arch="promptable-w4", training=SHORT)


@pytest.fixture
def prepared(tmp_path: Path) -> dict[str, Tensor]:
    """A teacher that was hardly trained."""
    return running.prepare(Promptable(TINY), task(tmp_path / "work"))


# -- the teacher


def test_a_tiny_teacher_learns_to_answer_clicks(tmp_path: Path) -> None:
    data = scenes(150)
    config = TeacherConfig(arch="promptable-w8", training=MaskTraining(epochs=8, batch_size=10, lr=0.01))
    steps: list[tuple[int, int]] = []
    here = task(tmp_path / "work", lambda done, total, **_: steps.append((done, total)), data)
    found = teacher_of(config, here)
    assert steps == [(step, 8 * 15) for step in range(1, 121)]
    tests = measure.TestMasks(data.test, SIDE, CPU)
    # what knows nothing answers with everything, or with the pixels about the click
    far = torch.cdist(
        data.test.extras["points"].float(), torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).float()
    )
    exact = data.test.extras["masks"].flatten(1) > 0
    about = max(((far <= r) & exact).sum(1).div(((far <= r) | exact).sum(1)).mean().item() for r in range(2, 16))
    assert about > exact.float().mean() > 0.05
    trained = tests.of_labels(found)
    assert trained > 2.5 * exact.float().mean(), (trained, about)
    fresh = config.model_copy(update={"training": MaskTraining(epochs=1, lr=1e-9)})
    untrained = teacher_of(fresh, task(tmp_path / "other", data=data))
    assert trained > tests.of_labels(untrained) + 0.1
    # it answers the click, not the image
    views = some_views(data)
    assert views.channels is not None
    elsewhere = replace(views, channels=views.channels.roll(8, 3))
    assert not torch.allclose(found.soft_labels(views, 0), found.soft_labels(elsewhere, 0), atol=0.1)


@pytest.mark.usefixtures("in_double")
def test_masks_are_learnt_as_a_plain_loop_does(tmp_path: Path) -> None:
    """AdamW without decay of norms and biases, a cosine to zero by the step, flipped crops of the training split."""
    recipe = MaskTraining(epochs=2, batch_size=8, lr=0.01, weight_decay=0.1, min_scale=0.5, dice_weight=0.5)
    found = teacher_of(TeacherConfig(arch="promptable-w4", training=recipe), task(tmp_path / "w"))
    info, split, seed = scenes().info, scenes().train, seed_for("promptable-teacher", 0)
    torch.manual_seed(seed)
    model = networks.build("promptable-w4", SIDE, info.mean, info.std).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": rest, "weight_decay": 0.0}], weight_decay=0.1, fused=True
    )
    stream = AugmentationStream(AugmentationConfig(size=SIDE, min_scale=0.5, flip=True, seed=seed), len(split))
    step = 0
    for epoch in range(2):
        for views in split.views(stream.config, epoch, 8, "cpu"):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (1 + math.cos(math.pi * step / 6)) / 2
            assert views.channels is not None
            shares = torch.nn.functional.avg_pool2d(views.channels[:, 1], 4)
            optimizer.zero_grad()
            measure.mask_loss(model(views.pixels, views.channels[:, :1]), shares, 0.5).backward()
            optimizer.step()
            step += 1
    for name, tensor in found.model.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-4, rtol=1e-3, msg=name)


def test_a_saved_teacher_answers_with_the_same_bits(prepared: dict[str, Tensor], tmp_path: Path) -> None:
    found, views = Promptable(TINY).label_model(task(tmp_path / "l", prepared=prepared)), some_views(scenes())
    answers = found.soft_labels(views, 0)
    assert answers.dtype == torch.float32 and answers.shape == (16, scenes().info.logits) == (16, 64)
    assert not answers.requires_grad and not found.model.training
    with torch.no_grad():
        assert torch.equal(answers, found.model(views.pixels, click_maps(views)).flatten(1))
    again = tmp_path / "again"
    again.mkdir()
    found.save(again)
    assert torch.equal(TeacherMasks.load(again, CPU).soft_labels(views, 0), answers)
    assert same(load_file(again / "teacher.safetensors"), prepared)
    assert found.parameters() == sum(p.numel() for p in found.model.parameters())
    assert found.measure(scenes().test, SIDE, CPU) == {
        "mean_iou": measure.TestMasks(scenes().test, SIDE, CPU).of_labels(found)
    }


def test_a_stopped_teacher_is_the_same_bits(tmp_path: Path) -> None:
    whole = teacher_of(TINY, task(tmp_path / "one"))
    stopped, told = stopped_every(2, lambda progress: teacher_of(TINY, task(tmp_path / "two", progress)))
    assert told == list(range(1, 7))  # three steps an epoch, and none done twice
    assert same(whole.model.state_dict(), stopped.model.state_dict())


class Killed(Exception):
    pass


@pytest.mark.parametrize("every", [0.0, 1000.0])
def test_killed_in_the_midst_of_training_it_is_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    """With the checkpoint of the step before, or with none."""
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", ("checkpoint", every, True, 0.0))
    monkeypatch.setattr("bench.kit.checkpoint._SPACING", 0.0)
    whole = teacher_of(TINY, task(tmp_path / "one"))
    told: list[int] = []

    def dies(done: int, total: int, **_: float) -> None:
        told.append(done)
        if len(told) == 5:
            raise Killed

    with pytest.raises(Killed):
        teacher_of(TINY, task(tmp_path / "two", dies))
    torch.manual_seed(99)  # another process
    again = teacher_of(TINY, task(tmp_path / "two", dies))
    assert told[5:] == ([5, 6] if every == 0 else [1, 2, 3, 4, 5, 6])
    assert same(whole.model.state_dict(), again.model.state_dict())


def test_teachers_of_other_seeds_are_others(tmp_path: Path) -> None:
    one, other = (
        teacher_of(TINY.model_copy(update={"seed": seed}), task(tmp_path / f"w{seed}")) for seed in (0, 1)
    )  # fmt: skip
    assert not same(one.model.state_dict(), other.model.state_dict())


# -- images


def test_images_are_whole_scenes_with_their_prompts_and_masks(tmp_path: Path) -> None:
    """At the size of icon-scenes too, from which on classifiers' images are enlarged and cut."""
    for side in (SIDE, 64):
        train = make_scenes(stickers(), 20, side, 1)
        info = scenes().info.model_copy(update={"image_size": side})
        here = task(tmp_path, data=replace(scenes(), info=info, train=train), dataset=info, ipc=2)
        made = running.distill(Promptable().images_from(here), here)
        assert made.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and made.extras.keys() == train.extras.keys()
        places = [place for image in made.pixels for place in range(20) if torch.equal(image, train.pixels[place])]
        assert len(places) == len(set(places)) == 10
        assert all(torch.equal(extra, train.extras[name][places]) for name, extra in made.extras.items())
        assert torch.equal(train.labels[places], made.labels)


# -- the projector

LIGHT = ProjectorConfig(teacher=TINY, conv_rank=2, decoder_width=4, training=SHORT)


def disturbed(config: ProjectorConfig) -> projector.MaskProjector:
    """As if trained: everything that is trained far from its start, and so the running statistics."""
    model = build(tiny_clip(), config, 3)
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.trained().items():
            drawn = torch.randn(tensor.shape, generator=stream) * 0.2
            tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else tensor + drawn)
    return model.eval()


def label_source(config: ProjectorConfig = LIGHT) -> tuple[projector.MaskProjector, ProjectorMasks]:
    model = disturbed(config)
    tensors = {name: tensor.detach().clone() for name, tensor in model.trained().items()}
    return model, ProjectorMasks("tiny", BASE, config, tensors, CPU)


def numbers_by_hand(rank: int, width: int) -> int:
    """Of a ResNet tower of one bottleneck a stage and width 8: a stem of three 3x3 convolutions, then one in each
    bottleneck; loralib's factors of a 3x3 convolution, (3 r, 3 in) and (3 out, 3 r)."""
    convolutions = [(3, 4), (4, 4), (4, 8), (8, 8), (16, 16), (32, 32), (64, 64)]
    low_rank = sum(3 * rank * 3 * inputs + 3 * outputs * 3 * rank for inputs, outputs in convolutions)
    neck = sum(outputs * width + width for outputs in (32, 64, 128, 256))

    def conv_norm(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 4 * outputs  # gain and shift, running mean and variance

    decoder = width * width + width  # embed
    decoder += conv_norm(2 * width + 2, width)
    decoder += conv_norm(width, 2 * width) + 2 * conv_norm(2 * width, 2 * width)  # about
    decoder += 2 * width * width + width  # back
    decoder += 2 * conv_norm(width, width) + width + 1  # fine, out
    return low_rank + neck + decoder


@pytest.mark.parametrize(("rank", "width"), [(2, 4), (8, 16)])
def test_low_rank_matrices_neck_and_decoder_are_all_that_is_stored(rank: int, width: int, tmp_path: Path) -> None:
    _, source = label_source(ProjectorConfig(conv_rank=rank, decoder_width=width))
    source.save(tmp_path)
    stored = load_file(tmp_path / "adapters.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) == numbers_by_hand(rank, width) == source.parameters()
    assert all(name.startswith(("neck.", "decoder.")) or name.endswith((".A", ".B")) for name in stored)
    assert sum(name.startswith("tower.") for name in stored) == 14
    assert {path.name for path in tmp_path.iterdir()} == {"source.json", "adapters.safetensors"}
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 4 * numbers_by_hand(rank, width) + 12_000  # names and settings beside the numbers


@pytest.mark.parametrize("convention", ["loralib", "peft", "flattened"])
def test_the_merged_projector_answers_as_the_trained_one(convention: Any, tmp_path: Path) -> None:
    model, source = label_source(LIGHT.model_copy(update={"convention": convention, "layers": "all"}))
    views = some_views(scenes())
    with torch.no_grad():
        wanted = model(views.pixels, click_maps(views))
    assert wanted.shape == (16, SIDE // 4, SIDE // 4)
    answers = source.soft_labels(views, 0)
    torch.testing.assert_close(answers, wanted.flatten(1), atol=1e-4, rtol=1e-4)
    assert answers.dtype == torch.float32 and not answers.requires_grad
    assert not lora.adapters(source.model) and not source.model.training
    source.save(tmp_path)
    loaded = ProjectorMasks.load(tmp_path, CPU)
    assert torch.equal(loaded.soft_labels(views, 0), answers)
    assert loaded.public() == (BASE,) and loaded.parameters() == source.parameters()


def test_updates_begin_at_nothing() -> None:
    """Before training the tower's features are the public CLIP's, batch norms included."""
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    features: list[Tensor] = []
    model = build(tiny_clip(), LIGHT)
    for stage in model._stages():
        stage.register_forward_hook(lambda module, given, made: features.append(made))
    with torch.no_grad():
        model(pixels, torch.zeros(2, 1, SIDE, SIDE))
        tower: Any = tiny_clip().visual
        mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (tower.image_mean, tower.image_std))
        values = tower.stem((pixels - mean) / std)
        for stage, found in zip((tower.layer1, tower.layer2, tower.layer3, tower.layer4), features, strict=True):
            values = stage(values)
            torch.testing.assert_close(found, values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("side", "seen"), [(32, 32), (16, 32), (40, 64), (64, 64)])
def test_images_are_seen_at_a_size_that_shrinks_by_32(side: int, seen: int) -> None:
    model = build(tiny_clip(), LIGHT).eval()
    sizes: list[int] = []
    model.tower.layer1.register_forward_hook(lambda module, given, made: sizes.append(given[0].shape[2] * 4))
    with torch.no_grad():
        assert model(torch.rand(2, 3, side, side), torch.zeros(2, 1, side, side)).shape == (2, side // 4, side // 4)
    assert sizes == [seen]


def test_another_public_clip_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_source()[1].save(tmp_path)
    other = replace(BASE, sha256="cd" * 32)
    monkeypatch.setattr(loading, "load_clip", lambda name, device: (tiny_clip(), None, other))
    with pytest.raises(
        UserError, match=r"'tiny' here has SHA-256 cdcdcdcdcdcd…, but these labels were made on abab"
    ) as error:
        ProjectorMasks.load(tmp_path, CPU)
    assert "\n" not in str(error.value)


def test_a_tower_without_convolutional_stages_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tiny_clip()
    clip.visual = torch.nn.Identity()
    with pytest.raises(UserError, match="needs a CLIP whose image tower is a ResNet") as error:
        build(clip, LIGHT)
    assert "\n" not in str(error.value)


def test_adapters_of_other_settings_are_refused(tmp_path: Path) -> None:
    _, source = label_source()
    with pytest.raises(UserError, match="make the labels again"):
        ProjectorMasks("tiny", BASE, LIGHT.model_copy(update={"conv_rank": 3}), source.tensors, CPU)


Prepared = dict[str, Tensor]


def project(prepared: Prepared, work: Path, progress: Any = lambda *_, **__: None, **changes: Any) -> ProjectorMasks:
    return PromptableLoRA(LIGHT).label_model(task(work, progress, prepared=prepared, **changes))


def test_a_stopped_projector_is_the_same_bits(prepared: Prepared, tmp_path: Path) -> None:
    whole = project(prepared, tmp_path / "one")
    stopped, told = stopped_every(2, lambda progress: project(prepared, tmp_path / "two", progress))
    assert told == list(range(1, 7)) and same(whole.tensors, stopped.tensors)
    start = build(tiny_clip(), LIGHT).trained()
    assert all(not torch.equal(whole.tensors[name], start[name]) for name in start)
    assert not same(whole.tensors, project(prepared, tmp_path / "three", seed=1).tensors)


def test_a_killed_projector_is_the_same_bits(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", ("checkpoint", 0.0, True, 0.0))
    monkeypatch.setattr("bench.kit.checkpoint._SPACING", 0.0)
    whole = project(prepared, tmp_path / "one")

    def dies(done: int, total: int, **_: float) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        project(prepared, tmp_path / "two", dies)
    torch.manual_seed(99)
    assert same(whole.tensors, project(prepared, tmp_path / "two").tensors)


def test_the_projector_learns_the_teacher_s_masks(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the exact ones: the targets are the teacher's probabilities for the very views."""
    wanted: list[Tensor] = []
    plain: Callable[..., None] = projector.train

    def train(model: Any, here: Task, recipe: Any, target: Callable[[AugmentedBatch], Tensor], *rest: Any) -> None:
        def watched(views: AugmentedBatch) -> Tensor:
            made = target(views)
            teacher = Promptable(TINY).label_model(task(tmp_path / "t", prepared=prepared))
            torch.testing.assert_close(made.flatten(1), teacher.soft_labels(views, 0).sigmoid())
            wanted.append(made)
            return made

        plain(model, here, recipe, watched, *rest)

    monkeypatch.setattr(projector, "train", train)
    project(prepared, tmp_path / "work")
    assert len(wanted) == 6 and wanted[0].shape == (8, 8, 8)


# -- plans


def identities(method: Distiller, point: GridPoint) -> dict[str, str]:
    """The ids of the cells of a method by stage."""
    cells = Cells(point.dataset)
    images = cells.images(method, point)
    labels = cells.label_model(method, point, images)
    return {"images": images.id, "labels": labels.id, "prepared": labels.parents["prepared"]}


def test_identities_tell_apart_what_differs_and_nothing_else() -> None:
    teacher, projector = Promptable(), PromptableLoRA()
    plain, light = identities(teacher, setting()), identities(projector, setting())
    assert plain["images"] == light["images"] and plain["prepared"] == light["prepared"]
    assert teacher.teachers(setting()) == projector.teachers(setting()) == ()
    larger, other = identities(teacher, setting(10, 0)), identities(teacher, setting(1, 5))
    assert plain["labels"] == larger["labels"] == other["labels"] and plain["prepared"] == other["prepared"]
    assert len({plain["images"], larger["images"], other["images"]}) == 3
    assert light["labels"] == identities(projector, setting(10, 0))["labels"]
    for point in (setting(1, 1), setting(clip="other")):
        assert light["labels"] != identities(projector, point)["labels"]
    for change in ({"arch": "promptable-w8"}, {"seed": 1}, {"training": MaskTraining(epochs=3)}):
        config = TeacherConfig(**change)  # type: ignore[arg-type]
        assert identities(Promptable(config), setting())["prepared"] != plain["prepared"]
        found = identities(PromptableLoRA(ProjectorConfig(teacher=config)), setting())
        assert found["labels"] != light["labels"] and found["images"] == light["images"]
    for change in ({"conv_rank": 4}, {"layers": "all"}, {"decoder_width": 8}, {"clip": "RN50:openai"}):
        found = identities(PromptableLoRA(ProjectorConfig(**change)), setting())  # type: ignore[arg-type]
        assert found["labels"] != light["labels"] and found["prepared"] == light["prepared"]


@pytest.mark.parametrize("method", [Promptable, PromptableLoRA])
def test_sets_without_masks_are_refused_in_one_line(method: Any) -> None:
    with pytest.raises(UserError, match=r"promptable(_lora)? needs prompts and masks, which toy has not") as error:
        method().check(setting(task="classification"))
    assert "\n" not in str(error.value)
