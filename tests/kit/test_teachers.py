"""Teachers: trajectories, foreign checkpoints and the accuracy check before any use of them."""

from __future__ import annotations

import argparse
import os
import random
import re
import tomllib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.api import Dataset, DatasetInfo, Split, TeacherSpec
from bench.api.architectures import STRETCHES, spread
from bench.errors import UserError
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Files, Resident
from bench.kit.teachers import accuracy_check
from bench.kit.teachers.foreign import fitted
from bench.kit.teachers.reading import read_state
from bench.kit.teachers.train import augmentation, train_trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from bench.kit.validation import Diverged
from tests.conftest import FUZZ
from tests.stopping import stopped_every

CLASSES, SIDE = 6, 16
CPU = torch.device("cpu")
SPEC = TeacherSpec(
    arch="convnet2-w8", image_size=SIDE, epochs=6, batch_size=16, lr=0.05, schedule="cosine", augment="rrc-flip",
    min_scale=0.5, checkpoints=3,
)  # fmt: skip


def split(each: int, seed: int) -> Resident:
    """Classes that differ by the place of a bright square."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(each)
    pixels = torch.randint(0, 120, (len(labels), 3, SIDE, SIDE), generator=stream)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[label % 3, (label // 3) * 8 : (label // 3) * 8 + 8] += 120
    return Resident(pixels.to(torch.uint8), labels)


def dataset(order: list[int] | None = None) -> Dataset:
    """The same images under the classes' names in another order."""
    ids = tuple(f"class {index}" for index in order or range(CLASSES))
    info = DatasetInfo(
        name="squares", title="Squares", classes=CLASSES, image_size=SIDE, smallest_class=20, train_images=120,
        test_images=60, mean=(0.4,) * 3, std=(0.25,) * 3, teacher=SPEC, clip="icon-clip", student="convnet2-w8",
    )  # fmt: skip
    return Dataset(info, ids, ids, split(20, 0), split(10, 1))


def relabelled(order: list[int]) -> Dataset:
    """A copy of the data whose class order changed without a trace: same names, other labels."""
    was = dataset()
    place = torch.tensor(order)

    def moved(part: Split) -> Resident:
        assert isinstance(part, Resident)
        return Resident(part.pixels, place[part.labels])

    return Dataset(was.info, was.names, was.ids, moved(was.train), moved(was.test))


def train(
    folder: Path, spec: TeacherSpec = SPEC, data: Dataset | None = None, progress: Callable[..., None] | None = None
) -> dict[str, Any]:
    made, work = folder / "made", folder / "work"
    made.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    return train_trajectory(spec, data or dataset(), made, work, CPU, progress or (lambda *_, **__: None))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trajectory, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained")
    result = train(folder)
    return Trajectory.load(folder / "made", CPU), result


# -- trajectories


@pytest.mark.parametrize(
    ("epochs", "checkpoints", "kept"),
    [
        (90, 9, (*range(5, 46, 5), 50, 60, 63, 67, 70, 73, 77, 80, 83, 87, 90)),  # 10, 20, …, and dense early and late
        (18, 9, tuple(range(1, 19))),
        (4, 9, (1, 2, 3, 4)),
        (10, 1, (5, 10)),
        (1, 9, (1,)),
    ],
)
def test_kept_epochs_are_dense_where_methods_need_them(epochs: int, checkpoints: int, kept: tuple[int, ...]) -> None:
    assert TeacherSpec(epochs=epochs, checkpoints=checkpoints).kept_epochs() == kept


def test_every_stretch_of_a_training_has_as_many_checkpoints_as_asked_for() -> None:
    for epochs in range(9, 100):
        kept = TeacherSpec(epochs=epochs).kept_epochs()
        assert kept[-1] == epochs and kept[0] >= 1
        for stretch in STRETCHES:
            picked = spread(kept, stretch, 9)
            assert len(picked) == 9 and picked == spread(range(1, epochs + 1), stretch, 9)


def test_a_trajectory_knows_its_epochs_and_accuracies(trained: tuple[Trajectory, dict[str, Any]]) -> None:
    trajectory, result = trained
    assert trajectory.epochs == (1, 2, 3, 4, 5, 6)
    assert [*trajectory.accuracy] == [1, 2, 3, 4, 5, 6]
    assert result["top1"] == trajectory.accuracy[6] == trajectory.accuracy_check > 0.9
    assert trajectory.order_hash == dataset().order_hash
    files = [*(f"epoch-00{epoch}.safetensors" for epoch in range(1, 7)), "teacher.json"]
    assert sorted(path.name for path in trajectory.folder.iterdir()) == files


def test_its_networks_are_frozen_in_eval_mode_and_differ(trained: tuple[Trajectory, dict[str, Any]]) -> None:
    trajectory, _ = trained
    model = trajectory.model()
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    pixels = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(model(pixels), trajectory.model(6)(pixels))
    assert not torch.equal(model(pixels), trajectory.model(2)(pixels))


def test_killed_inside_epochs_training_goes_on_to_the_same_bits(
    tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda _: True)
    steps = -(-120 // SPEC.batch_size)

    def killed_at(step: int) -> Callable[..., None]:
        def progress(done: int, total: int, **_: float) -> None:
            if done == step:
                raise KeyboardInterrupt

        return progress

    for step in (2 * steps + 3, 4 * steps + 1):  # in the third epoch and, gone on, in the fifth; saved but for the last
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, progress=killed_at(step))
    seen: list[int] = []
    result = train(tmp_path, progress=lambda done, total, **_: seen.append(done))
    assert seen == list(range(4 * steps + 1, 6 * steps + 1))
    whole, whole_result = trained
    assert result == whole_result
    assert files(tmp_path) == {path.name: path.read_bytes() for path in whole.folder.iterdir()}


def files(folder: Path) -> dict[str, bytes]:
    """What :func:`train` made there."""
    return {path.name: path.read_bytes() for path in (folder / "made").iterdir()}


def on_disk(folder: Path) -> Dataset:
    """The data set of :func:`dataset`, its training images read from files by a worker."""
    held = dataset()
    assert isinstance(held.train, Resident)
    paths = [folder / f"{index}.png" for index in range(len(held.train))]
    folder.mkdir()
    for path, pixels in zip(paths, held.train.pixels, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return Dataset(held.info, held.names, held.ids, Files(paths, held.train.labels, workers=1), held.test)


@pytest.mark.parametrize(
    ("every", "arch", "lazily"),
    [(1, "convnet2-w8", False), (3, "convnet2-w8", False), (5, "convnet2-w8", True), (3, "swin-small", False)],
)  # Swin drops blocks at random
def test_stopped_again_and_again_training_ends_with_the_same_bits(
    tmp_path: Path, every: int, arch: str, lazily: bool
) -> None:
    spec = SPEC.model_copy(update={"arch": arch, "epochs": 2, "checkpoints": 2})
    data = on_disk(tmp_path / "images") if lazily else dataset()
    whole = train(tmp_path / "whole", spec, data)
    result, told = stopped_every(every, lambda progress: train(tmp_path / "stopped", spec, data, progress))
    assert told == list(range(1, 17))
    assert result == whole
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_a_seed_decides(tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]]) -> None:
    train(tmp_path, SPEC.model_copy(update={"seed": 1}))
    name = "epoch-006.safetensors"
    assert (tmp_path / "made" / name).read_bytes() != (trained[0].folder / name).read_bytes()


@pytest.mark.parametrize(
    ("augment", "crop", "flip"),
    [("rrc-flip", "rrc", True), ("rrc", "rrc", False), ("shift", "shift", False), ("shift-flip", "shift", True),
     ("none", "none", False)],
)  # fmt: skip
def test_augmentations(augment: str, crop: str, flip: bool) -> None:
    plan = augmentation(SPEC.model_copy(update={"augment": augment}))
    assert (plan.crop, plan.flip, plan.size, plan.min_scale) == (crop, flip, SIDE, 0.5)
    assert (plan.mix, plan.shuffle) == ("none", 1)


# -- the accuracy check


def test_the_accuracy_check_lets_the_right_teacher_through(trained: tuple[Trajectory, dict[str, Any]]) -> None:
    accuracy_check.check(trained[0], dataset(), CPU)


def test_the_accuracy_check_stops_at_another_class_order(trained: tuple[Trajectory, dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"trained with another class order than squares .*class order\?") as caught:
        accuracy_check.check(trained[0], dataset([1, 0, 2, 3, 4, 5]), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]])
def test_the_accuracy_check_measures_what_names_do_not_tell(
    trained: tuple[Trajectory, dict[str, Any]], order: list[int]
) -> None:
    with pytest.raises(UserError, match=r"reaches \d+\.\d% on 60 held-out images .*class order\?"):
        accuracy_check.check(trained[0], relabelled(order), CPU)


# -- checkpoints from elsewhere


def network(classes: int = CLASSES, arch: str = "resnet10-small-w16", size: int = SIDE) -> Network:
    return Network(arch=arch, classes=classes, image_size=size, mean=(0.4,) * 3, std=(0.25,) * 3)


def weights(net: Network | None = None) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return (net or network()).build().net.state_dict()


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def pytorch_cifar(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("downsample", "shortcut").replace("fc.", "linear."): t for name, t in state.items()}


PLAIN = argparse.Namespace(model="resnet10", lr=np.float64(0.1), out=Path("out"), best=np.float32([1, 2]))
OTHER = {name: t + 1 for name, t in weights().items()}  # of the same shapes
FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "state dict": lambda state: state,
    "torchvision": lambda state: {"model": state, "model_ema": {"n_averaged": torch.ones(1), **under("module.", OTHER)},
                                  "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}, "epoch": 89, "args": PLAIN},
    "timm": lambda state: {"state_dict": state, "state_dict_ema": OTHER, "arch": "resnet10", "metric": np.float64(9)},
    "Lightning": lambda state: {"state_dict": {**under("model.", state), "loss.weight": torch.ones(6)}, "epoch": 9},
    "compiled": lambda state: under("_orig_mod.", state),
    "compiled and parallel": lambda state: {"net": under("module._orig_mod.", state)},
    "in a folder of keys": lambda state: {"checkpoint": {"model_state_dict": OrderedDict(state)}, "acc": 0.9},
    "pytorch-cifar": lambda state: {"net": under("module.", pytorch_cifar(state)), "acc": 93.1, "epoch": 7},
    "averages alone": lambda state: {"ema": state, "decay": 0.99},
    "half precision": lambda state: {name: t.half() if t.is_floating_point() else t for name, t in state.items()},
    "of old torch": lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_are_read_as_training_scripts_save_them(tmp_path: Path, form: str) -> None:
    state = {name: t.half().float() if t.is_floating_point() else t for name, t in weights().items()}
    torch.save(FORMS[form](state), tmp_path / "x.pth")
    found, head = fitted(network(), tmp_path / "x.pth", "squares")
    assert head == "fc" and found.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


@pytest.mark.parametrize("form", ["safetensors", "old"])
def test_checkpoints_are_read_from_other_files(tmp_path: Path, form: str) -> None:
    state, path = weights(), tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)
    assert torch.equal(fitted(network(), path, "squares")[0]["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_convnets_of_rded_and_of_dataset_condensation(tmp_path: Path, depth: int) -> None:
    ours = network(arch=f"convnet{depth}-w8", size=64)
    state = weights(ours)
    kinds = ("conv", "norm")
    theirs = {
        f"layers.{kinds[int(part) % 4]}.{int(part) // 4}.{rest}" if name.startswith("features") else name: tensor
        for name, tensor in state.items()
        for _, part, rest in [(*name.split(".", 2), "")[:3]]
    }
    torch.save({"model": theirs}, tmp_path / "conv.pth")
    found, _ = fitted(ours, tmp_path / "conv.pth", "squares")
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    dc = network(arch=f"convnet{depth}-w8-in", size=64)  # names as ours, norms without running statistics
    torch.save(weights(dc), tmp_path / "dc.pth")
    assert not any("running" in name for name in fitted(dc, tmp_path / "dc.pth", "squares")[0])
    with pytest.raises(UserError, match=f"nearest is convnet{depth}-w8-in, so choose --teacher convnet{depth}-w8-in="):
        fitted(ours, tmp_path / "dc.pth", "squares")


def test_of_several_state_dicts_one_is_chosen_by_name(tmp_path: Path) -> None:
    state = weights()
    torch.save({"student": OTHER, "teacher": state}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="several state dicts .*: student, teacher; choose .*teacher.weights=student"):
        fitted(network(), tmp_path / "x.pth", "squares")
    assert torch.equal(fitted(network(), tmp_path / "x.pth", "squares", "teacher")[0]["fc.bias"], state["fc.bias"])
    torch.save(FORMS["torchvision"](state), tmp_path / "y.pth")
    found = fitted(network(), tmp_path / "y.pth", "squares", "model_ema")[0]
    assert torch.equal(found["fc.bias"], OTHER["fc.bias"])
    with pytest.raises(
        UserError, match="no state dict of resnet10-small-w16 under 'emma'; its keys are model, model_ema, opt"
    ):
        fitted(network(), tmp_path / "y.pth", "squares", "emma")


@pytest.mark.parametrize(
    ("own", "theirs", "words"),
    [
        (network(7), network(), "has 6 classes and squares has 7"),
        (
            network(arch="convnet3"),
            network(),
            "of another architecture than convnet3 (expected features.0.weight, feat",
        ),
        (network(arch="convnet3"), network(), "nearest is resnet10-small-w16, so choose --teacher resnet10-small-w16="),
        (network(), network(arch="resnet18-small"), "nearest is resnet18-small"),
        (
            network(arch="resnet18-small"),
            network(arch="resnet18"),
            "conv1.weight has shape [64, 3, 7, 7], expected [64, 3, 3",
        ),
        (
            network(arch="resnet18-small"),
            network(arch="resnet18"),
            "nearest is resnet18, so choose --teacher resnet18=",
        ),
        (network(arch="wrn10-1"), network(), "its keys are model, best_acc1"),
        (network(arch="resnet18", size=64), network(arch="resnet50", size=64), "nearest is resnet50"),
        (
            network(arch="convnet3-w8"),
            network(arch="convnet3-w8", size=32),
            "its head takes 128 features, 32 at the 16 px",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path, own: Network, theirs: Network, words: str) -> None:
    torch.save({"model": weights(theirs), "best_acc1": 3}, tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        fitted(own, tmp_path / "x.pth", "squares")
    assert words in str(caught.value) and "\n" not in str(caught.value)


class Malicious:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("pwned"),)


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": weights(), "surprise": Malicious()}, "evil.pth")
    with pytest.raises(UserError, match=r"holds getattr beside plain values, and pickled code is never run"):
        read_state(Path("evil.pth"))
    assert not Path("pwned").exists()
    torch.save({"model": weights(), "log": defaultdict(list, loss=[1.0])}, "log.pth")  # which torch can't fill
    with pytest.raises(UserError, match=r"holds collections.defaultdict beside plain values"):
        read_state(Path("log.pth"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda state: {**state, "aux.weight": torch.ones(1)},
            "is not quite a resnet10-small-w16 (too many names: aux.",
        ),
        (lambda state: {n: t for n, t in state.items() if "fc." not in n}, "(expected fc.weight, fc.bias, found"),
        (
            lambda state: {**state, "conv1.weight": torch.ones(16, 3, 7, 7)},
            "(conv1.weight has shape [16, 3, 7, 7], expected [16, 3, 3, 3])",
        ),
    ],
)
def test_a_few_names_too_many_or_too_few_are_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], words: str
) -> None:
    torch.save(change(weights()), tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        fitted(network(), tmp_path / "x.pth", "squares")
    assert words in str(caught.value) and "nearest" not in str(caught.value)
    assert ("state_dict() of this network alone" in str(caught.value)) == ("shape" not in words)


def test_an_architecture_that_the_shapes_refute_is_not_suggested(tmp_path: Path) -> None:
    torch.save({**weights(), "conv1.weight": torch.ones(16, 3, 7, 7)}, tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        fitted(network(arch="convnet3"), tmp_path / "x.pth", "squares")
    assert "nearest is resnet10-small-w16, which it does not fit either (conv1.weight has" in str(caught.value)
    assert "--teacher" not in str(caught.value)


def test_an_architecture_that_is_none_of_these_is_to_be_given_as_a_student(tmp_path: Path) -> None:
    torch.save({"body.weight": torch.ones(4, 3), "top.weight": torch.ones(6, 4)}, tmp_path / "mine.pth")
    with pytest.raises(
        UserError, match=r"no architecture here is like it: .* a student of yours \(docs/own-parts.md\)"
    ):
        fitted(network(), tmp_path / "mine.pth", "squares")


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(network().build(), tmp_path / "model.pth")
    with pytest.raises(
        UserError, match=r"holds bench.kit.models.classifier.Classifier .* save the model's state_dict\(\)"
    ):
        read_state(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.pth", b""), ("x.pth", b"abc"), ("x.pth", b"PK\x03\x04 no zip"), ("x.safetensors", b"\x00" * 20),
     ("x.pth", b"\x80\x02}q\x00."),
     ("x.pth", b"\x80\x04cposix\nsystem\n."), ("x.pth", b"version https://git-lfs"), ("x.safetensors", b"\xff" * 20)],
)  # fmt: skip
def test_rubbish_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"the teacher file .*{name}") as caught:
        fitted(network(), path, "squares")
    assert "\n" not in str(caught.value) and "Re-running" not in str(caught.value) and not recwarn.list


def test_bytes_that_changed_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Some bytes of a checkpoint drawn anew, or its end cut off: it loads, or is refused in one line."""
    torch.save({"model": weights(network(arch="convnet1-w4")), "args": PLAIN, "epoch": 3}, tmp_path / "x.pth")
    whole, draw = (tmp_path / "x.pth").read_bytes(), random.Random(0)
    for _ in range(FUZZ):
        changed = bytearray(whole)
        for place in draw.choices(range(len(whole)), k=draw.choice((1, 8))):
            changed[place] = draw.randrange(256)
        (tmp_path / "y.pth").write_bytes(changed[: draw.choice((len(whole), draw.randrange(len(whole))))])
        with suppress(UserError):
            fitted(network(arch="convnet1-w4"), tmp_path / "y.pth", "squares")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path, words in (("nowhere.pth", "can't be read: No such file"), (".", "regular"), ("pipe.pth", "regular")):
        with pytest.raises(UserError, match=words):
            read_state(tmp_path / path)
    with (tmp_path / "huge.pth").open("wb") as stream:
        stream.truncate(2**36)
    with pytest.raises(UserError, match="64 GiB, more than"):
        read_state(tmp_path / "huge.pth")
    for content, words in (({"model": [1, 2], "lr\x1b[2J": 3}, r"its keys are model, lr\?\[2J"), ([1], "a list")):
        torch.save(content, tmp_path / "none.pth")
        with pytest.raises(UserError, match=f"holds no state dict .*{words}"):
            read_state(tmp_path / "none.pth")
    torch.save(weights() | {"fc.bias": torch.full((6,), torch.nan)}, tmp_path / "nan.pth")
    with pytest.raises(UserError, match="no finite dense numbers: fc.bias"):
        fitted(network(), tmp_path / "nan.pth", "squares")


# -- teachers from files


def foreign(trajectory: Trajectory, folder: Path, rows: list[int] | None = None, **more: Any) -> TeacherSpec:
    state = trajectory.model().net.state_dict()
    if rows is not None:
        state |= {name: state[name][rows] for name in ("classifier.weight", "classifier.bias")}
    torch.save({"model": state}, folder / "theirs.pth")
    return SPEC.model_copy(update={"files": (str(folder / "theirs.pth"),), **more})


def test_a_foreign_checkpoint_becomes_a_trajectory_of_one(
    tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]]
) -> None:
    ours = trained[0]
    result = train(tmp_path, foreign(ours, tmp_path, accuracy=ours.accuracy_check))
    taken = Trajectory.load(tmp_path / "made", CPU)
    assert taken.epochs == (SPEC.epochs,) and result["top1"] == ours.accuracy_check
    pixels = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(taken.model()(pixels), ours.model()(pixels))
    accuracy_check.check(taken, dataset(), CPU)


def test_files_by_epoch_become_a_trajectory(tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]]) -> None:
    files = tuple(str(trained[0].weights_file(epoch)) for epoch in (2, 6))
    spec = SPEC.model_copy(update={"files": files, "file_epochs": (20, 60)})
    result = train(tmp_path, spec.model_copy(update={"file_sha256": spec.digest()}))
    taken = Trajectory.load(tmp_path / "made", CPU)
    assert taken.epochs == (20, 60) == spec.kept_epochs()
    assert result["accuracy"] == {"20": trained[0].accuracy[2], "60": trained[0].accuracy[6]}
    with pytest.raises(UserError, match="changed since the run was planned"):
        train(tmp_path, spec.model_copy(update={"file_sha256": "0" * 64}))


def test_a_head_in_another_class_order_is_put_in_order(
    tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]]
) -> None:
    order = [3, 4, 5, 0, 1, 2, 5]  # seven rows; the sixth class twice
    ids = tuple(f"class {index}" for index in order)
    result = train(tmp_path, foreign(trained[0], tmp_path, order, class_order=(*ids[:6], "another")))
    assert result["top1"] == trained[0].accuracy[6]
    with pytest.raises(UserError, match="no row of its 7 is class class 2 of squares"):
        train(tmp_path, foreign(trained[0], tmp_path, order, class_order=("class 0", "class 1")))


MISTAKES: dict[str, tuple[dict[str, Any], list[int] | None, str]] = {
    "class order": ({}, [3, 4, 5, 0, 1, 2], r"close to guessing \(16.7%\): class order\? In another \d+.\d% are right"),
    "about half": ({"accuracy": 0.98}, [1, 0, 2, 3, 4, 5], r"not the stated 98.0%: class order\? In another"),
    "normalisation": ({"mean": (0.1, 0.9, 0.5), "std": (0.05,) * 3, "accuracy": 0.98}, None,
                      r"not the stated 98.0%: normalisation\? Under another \(\S.*\) .*--set 'teacher.mean=\["),
    "too good": ({"accuracy": 0.5}, None, "more than the stated 50.0%"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_teacher_that_is_worse_than_stated_says_what_is_wrong(
    tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]], mistake: str
) -> None:
    stated, rows, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words) as caught:
        train(tmp_path, foreign(trained[0], tmp_path, rows, **stated))
    assert "\n" not in str(caught.value)
    if stated == {}:  # the order that it prints, in a TOML file beside the checkpoint, is the right one
        (line,) = re.findall(r"class_order = \[.*\]$", str(caught.value))
        order = tuple(tomllib.loads(line)["class_order"])
        assert order == tuple(f"class {index}" for index in rows or ())
        assert train(tmp_path, foreign(trained[0], tmp_path, rows, class_order=order))["top1"] == trained[0].accuracy[6]


@pytest.mark.parametrize(
    ("classes", "top1", "said"),
    [(4, 0.24, "less than guessing"), (2, 0.51, ""), (4, 0.26, ""), (5, 0.5, "close to guessing"), (5, 0.61, "")],
)
def test_a_teacher_that_only_guesses_is_refused(
    monkeypatch: pytest.MonkeyPatch, classes: int, top1: float, said: str
) -> None:
    monkeypatch.setattr(accuracy_check, "explain", lambda *_, **__: "")
    data: Any = SimpleNamespace(info=SimpleNamespace(classes=classes, name="squares"))
    spec: Any = SimpleNamespace(files=("r18.pth",), accuracy=None, mean=None)
    network: Any = None
    with pytest.raises(UserError, match=said) if said else nullcontext():
        accuracy_check.check_foreign(spec, network, {}, data, CPU, top1)


def test_a_sorted_order_is_named(tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]]) -> None:
    data = dataset([10, 2, 1, 0, 3, 4])  # the teacher's rows: 0, 1, 2, 3, 4, 10
    by_value = [3, 2, 1, 4, 5, 0]
    with pytest.raises(UserError, match="class order.*teacher.class_order=natural"):
        train(tmp_path, foreign(trained[0], tmp_path, by_value, accuracy=0.98), data)
    found = train(tmp_path, foreign(trained[0], tmp_path, by_value, class_order="natural", accuracy=0.99), data)
    assert found["top1"] == trained[0].accuracy[6]


def test_a_training_that_diverges_fails_and_names_the_epoch(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="diverged at epoch 1"):
        train(tmp_path, SPEC.model_copy(update={"lr": 1e30}))
    assert not list((tmp_path / "made").iterdir())
