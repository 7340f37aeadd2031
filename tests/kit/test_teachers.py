"""Teachers: trajectories, foreign checkpoints and the accuracy check before any use of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.api import Dataset, DatasetInfo, Split, TeacherSpec
from bench.errors import UserError
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Files, Resident
from bench.kit.models import build
from bench.kit.teachers import accuracy_check
from bench.kit.teachers.foreign import load_into, read_state
from bench.kit.teachers.train import augmentation, kept_epochs, train_trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from bench.kit.validation import Diverged
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
        (90, 9, (10, 20, 30, 40, 50, 60, 70, 80, 90)),
        (18, 9, (2, 4, 6, 8, 10, 12, 14, 16, 18)),
        (9, 9, tuple(range(1, 10))),
        (4, 9, (1, 2, 3, 4)),
        (10, 1, (10,)),
        (1, 9, (1,)),
    ],
)
def test_kept_epochs_are_even_and_end_with_the_last(epochs: int, checkpoints: int, kept: tuple[int, ...]) -> None:
    assert kept_epochs(epochs, checkpoints) == kept


def test_the_last_epoch_is_always_kept() -> None:
    for epochs in range(1, 100):
        kept = kept_epochs(epochs, 9)
        assert kept[-1] == epochs and len(kept) == min(9, epochs) and kept[0] >= 1


def test_a_trajectory_knows_its_epochs_and_accuracies(trained: tuple[Trajectory, dict[str, Any]]) -> None:
    trajectory, result = trained
    assert trajectory.epochs == (2, 4, 6)
    assert trajectory.accuracy.keys() == {2, 4, 6}
    assert result["top1"] == trajectory.accuracy[6] == trajectory.accuracy_check > 0.9
    assert trajectory.order_hash == dataset().order_hash
    assert sorted(path.name for path in trajectory.folder.iterdir()) == [
        "epoch-002.safetensors", "epoch-004.safetensors", "epoch-006.safetensors", "teacher.json",
    ]  # fmt: skip


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


@pytest.mark.parametrize("augment", ["rcc", "rrc-flop", "flip", "rrc-flip-flip", ""])
def test_unknown_augmentations_are_refused(augment: str) -> None:
    with pytest.raises(UserError, match="unknown augmentation"):
        augmentation(SPEC.model_copy(update={"augment": augment}))


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


# -- foreign checkpoints


def network(classes: int = CLASSES) -> Network:
    return Network(arch="resnet10-small-w16", classes=classes, image_size=SIDE, mean=(0.4,) * 3, std=(0.25,) * 3)


def weights(classes: int = CLASSES) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return network(classes).build().net.state_dict()


def save_wrapped(path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"model": state, "epoch": 90, "args": {"lr": 0.1}}, path)


FORMS: dict[str, Callable[[Path, dict[str, Tensor]], None]] = {
    "plain.pth": lambda path, state: torch.save(state, path),
    "rded.pth": save_wrapped,
    "timm.pth": lambda path, state: torch.save({"state_dict": state}, path),
    "parallel.pth": lambda path, state: torch.save({f"module.{name}": t for name, t in state.items()}, path),
    "old.pth": lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
    "new.safetensors": lambda path, state: save_file(state, path),
}


@pytest.mark.parametrize("form", FORMS)
def test_state_dicts_are_read_in_all_their_forms(tmp_path: Path, form: str) -> None:
    path, state = tmp_path / form, weights()
    FORMS[form](path, state)
    net = network().build().net
    load_into(net, read_state(path), CLASSES, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_a_head_of_more_classes_is_cut_to_the_first_rows(tmp_path: Path) -> None:
    state = weights(classes=20)
    net = network().build().net
    load_into(net, state, CLASSES, tmp_path / "x.pth")
    got = net.state_dict()
    assert torch.equal(got["fc.weight"], state["fc.weight"][:CLASSES])
    assert torch.equal(got["fc.bias"], state["fc.bias"][:CLASSES])
    assert torch.equal(got["conv1.weight"], state["conv1.weight"])


def test_a_head_of_fewer_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another architecture: size mismatch for fc.weight"):
        load_into(network(7).build().net, weights(), 7, tmp_path / "x.pth")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    net = build("convnet3", CLASSES, SIDE, (0.5,) * 3, (0.25,) * 3).net
    with pytest.raises(UserError, match="x.pth is of another architecture: Missing key") as caught:
        load_into(net, weights(), CLASSES, tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


class Malicious:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("pwned"),)


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": weights(), "surprise": Malicious()}, "evil.pth")
    with pytest.raises(UserError, match="pickled code is never run"):
        read_state(Path("evil.pth"))
    assert not Path("pwned").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(network().build(), tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"save the model's state_dict\(\)"):
        read_state(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.pth", b""), ("x.pth", b"abc"), ("x.pth", b"PK\x03\x04 no zip"), ("x.safetensors", b"\x00" * 20),
     ("x.pth", b"\x80\x02}q\x00.")],
)  # fmt: skip
def test_rubbish_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"the teacher file .*{name}") as caught:
        load_into(network().build().net, read_state(path), CLASSES, path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        read_state(tmp_path / "nowhere.pth")
    torch.save({"model": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state(tmp_path / "list.pth")


def foreign(trajectory: Trajectory, folder: Path, **more: Any) -> TeacherSpec:
    path = folder / "theirs.pth"
    torch.save({"model": trajectory.model().net.state_dict()}, path)
    return SPEC.model_copy(update={"file": str(path), **more})


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
    assert not json.loads((tmp_path / "made" / "teacher.json").read_text())["network"].get("file")


def test_a_foreign_checkpoint_near_chance_asks_for_the_class_order(
    tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]]
) -> None:
    spec = foreign(trained[0], tmp_path)
    with pytest.raises(UserError, match=r"close to guessing \(16.7%\): class order\?"):
        train(tmp_path, spec, relabelled([3, 4, 5, 0, 1, 2]))


def test_a_foreign_checkpoint_must_be_as_good_as_stated(
    tmp_path: Path, trained: tuple[Trajectory, dict[str, Any]]
) -> None:
    spec = foreign(trained[0], tmp_path, accuracy=trained[0].accuracy_check)
    with pytest.raises(UserError, match=r"not the stated .*class order\?"):
        train(tmp_path, spec, relabelled([1, 0, 2, 3, 4, 5]))  # "about half": far from guessing


def test_a_training_that_diverges_fails_and_names_the_epoch(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="diverged at epoch 1"):
        train(tmp_path, SPEC.model_copy(update={"lr": 1e30}))
    assert not list((tmp_path / "made").iterdir())
