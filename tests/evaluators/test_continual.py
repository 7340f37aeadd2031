"""GDumb against a slow loop of plain trainings on the classes seen, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bench import load_results
from bench.api import Dataset, EvaluationTask, Images, LabelSource, Progress, Split
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit import accuracy, distributed
from bench.kit.data.dataset import Files, Resident
from bench.kit.views import AugmentedBatch
from bench.planning.grid import Request
from bench.planning.plan import plan
from evaluators import classification, continual
from evaluators.class_incremental import ClassIncrementalSplit, SeenLabels, class_order
from evaluators.classification import Classification
from evaluators.continual import Continual, ContinualProtocol, classes_seen
from tests.conftest import Bench
from tests.evaluators.conftest import CLASSES, CPU, SIDE, TEST, Judge, MakeTask, images, protocol
from tests.stopping import stopped_every


def rules(**changes: Any) -> ContinualProtocol:
    return ContinualProtocol.model_validate(protocol(test_from=99).model_dump() | {"steps": 2} | changes)


class Table(LabelSource):
    """A row of logits an image, which mixed views share; of all its columns or some."""

    kind = "table"

    def __init__(self, logits: Tensor):
        self.logits = logits

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return torch.lerp(self.logits[views.partner_indices], self.logits[views.indices], views.weight)

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


class Some(Table):
    """What another source says, of some classes."""

    def __init__(self, source: LabelSource, classes: list[int]):
        self.source, self.classes = source, classes

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return torch.stack([self.source.soft_labels(views, step)[:, index] for index in self.classes], 1)


def table() -> Table:
    return Table(4 * torch.randn(3 * CLASSES, CLASSES, generator=torch.Generator().manual_seed(4)))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The students, as they are trained."""
    students: list[nn.Module] = []
    plain = classification.train_classifier

    def train(student: nn.Module, *rest: Any) -> Any:
        students.append(student)
        return plain(student, *rest)

    monkeypatch.setattr(classification, "train_classifier", train)
    monkeypatch.setattr(continual, "train_classifier", train)
    return students


# -- the reference: a plain training for each step, on sets of which nothing knows that they are parts


def only(split: Split, classes: list[int]) -> tuple[Resident, list[int]]:
    """The images of ``classes`` one class after the other, labelled 0, 1, ..., and where they were."""
    assert isinstance(split, Resident)
    places = [i for cls in classes for i, label in enumerate(split.labels.tolist()) if label == cls]
    labels = [classes.index(int(split.labels[i])) for i in places]
    return Resident(torch.stack([split.pixels[i] for i in places]), torch.tensor(labels)), places


def reference(task: EvaluationTask, order: list[int], seen: list[int], work: Path) -> list[float]:
    """Top-1 after every step."""
    found = []
    for count in seen:
        classes = order[:count]
        data = replace(task.data, train=only(task.data.train, classes)[0], test=only(task.data.test, classes)[0])
        labels, made = task.labels, None
        if task.images is not None:
            part, places = only(Resident(task.images.pixels, task.images.labels), classes)
            made = Images(part.pixels, part.labels)
            if isinstance(labels, Table):
                labels = Table(labels.logits[places])
        if labels is not None:
            labels = Some(labels, classes)
        info = task.dataset.model_copy(update={"classes": count})
        folder = work / f"step {count}"
        folder.mkdir(parents=True)
        seed = seed_for("continual-student", task.seed, count)
        part_of = replace(task, dataset=info, data=data, images=made, labels=labels, seed=seed, work=folder)
        found.append(Classification().evaluate(part_of)["top1"])
    return found


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("labels", [Judge, table, None])
def test_every_step_is_a_plain_training_on_the_classes_seen(
    make_task: MakeTask, trained: list[nn.Module], tmp_path: Path, labels: Any, steps: int
) -> None:
    shuffled = torch.randperm(3 * CLASSES, generator=torch.Generator().manual_seed(1))  # no image where one expects it
    made = Images(images().pixels[shuffled], images().labels[shuffled])
    changes: dict[str, Any] = {"images": made, "labels": labels and labels(), "seed": 5}
    result = Continual().evaluate(make_task(rules(steps=steps), **changes, work=tmp_path / "ours"))
    seen = classes_seen(CLASSES, steps)
    order = class_order(CLASSES, 0, 5)
    assert result["order"] == order
    theirs = reference(make_task(rules(steps=steps), **changes), order, seen, tmp_path / "theirs")
    assert result["steps"] == list(zip(seen, theirs, strict=True))
    assert result["top1"] == pytest.approx(sum(theirs) / steps, abs=1e-15)
    assert result["last"] == theirs[-1]
    assert len(trained) == 2 * steps
    for one, other in zip(trained[:steps], trained[steps:], strict=True):
        assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in one.state_dict().items())


def test_so_are_the_steps_of_full_data_in_memory_and_from_files(
    make_task: MakeTask, trained: list[nn.Module], tmp_path: Path
) -> None:
    task = make_task(rules(), images=None, labels=None, work=tmp_path / "ours")
    result = Continual().evaluate(task)
    theirs = reference(task, result["order"], [2, 4], tmp_path / "theirs")
    assert result["steps"] == [(2, theirs[0]), (4, theirs[1])]
    assert (result["epochs"], result["images"]) == (4, 28)

    def kept(split: Split, name: str) -> Files:
        assert isinstance(split, Resident)
        paths = [tmp_path / f"{name}-{index}.png" for index in range(len(split))]
        for path, pixels in zip(paths, split.pixels, strict=True):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
        return Files(paths, split.labels, workers=0)

    order, data = result["order"], task.data
    lazily = Dataset(data.info, data.names, data.ids, kept(data.train, "train"), kept(data.test, "test"))
    for split, other in ((lazily.train, data.train), (lazily.test, data.test)):
        there, here = ClassIncrementalSplit(split, order).first(3), ClassIncrementalSplit(other, order).first(3)
        assert torch.equal(there.labels, here.labels)
        assert all(torch.equal(there.image(index), here.image(index)) for index in range(len(here)))
    made = Continual().evaluate(replace(task, data=lazily, work=tmp_path))
    assert [classes for classes, _ in made["steps"]] == [2, 4]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_stopped_again_and_again_it_ends_with_the_same_bits(
    make_task: MakeTask, trained: list[nn.Module], tmp_path: Path, every: int
) -> None:
    def run(progress: Progress, work: str = "stopped") -> tuple[dict[str, Any], nn.Module]:
        task = make_task(rules(steps=3, test_from=2), labels=table(), progress=progress, work=tmp_path / work)
        return Continual().evaluate(task), trained[-1]

    whole, student = run(lambda *_, **__: None, "whole")
    (resumed, again), told = stopped_every(every, run)
    assert told == list(range(1, 3 * (2 + 2 + 3) + 1))  # three epochs of 6, 9 and 12 images in batches of 5
    assert resumed == whole
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in student.state_dict().items())


def test_a_finished_step_is_not_done_again(make_task: MakeTask, trained: list[nn.Module]) -> None:
    totals: list[tuple[int, int]] = []

    def die(done: int, total: int, **_: float) -> None:
        totals.append((done, total))
        if done == 10:  # of the second step
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Continual().evaluate(make_task(rules(), progress=die))
    result = Continual().evaluate(make_task(rules()))
    assert len(trained) == 3
    assert totals[-1] == (10, 15)
    assert result["parameters"] == sum(p.numel() for p in trained[-1].parameters())
    assert [len(one.state_dict()["net.fc.bias"]) for one in trained] == [2, 4, 4]


# -- the order of the classes


def test_the_order_is_decided_by_its_seeds_alone() -> None:
    for state in (0, 1):
        torch.manual_seed(state)
        assert class_order(10, 0, 0) == [9, 1, 5, 4, 6, 8, 3, 0, 2, 7]  # of Philox: the same for good
    orders = {tuple(class_order(10, first, second)) for first in range(4) for second in range(4)}
    assert len(orders) == 16
    assert all(sorted(order) == list(range(10)) for order in orders)
    firsts = [class_order(4, 0, seed)[0] for seed in range(400)]
    assert all(70 <= firsts.count(index) <= 130 for index in range(4))


def test_it_is_the_same_for_every_method_and_another_for_another_seed(make_task: MakeTask, tmp_path: Path) -> None:
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({}, {"labels": None, "images": images(2, 8)}),
        ({}, {"seed": 1}),
        ({"order_seed": 1}, {}),
    ]
    made = [
        Continual().evaluate(make_task(rules(epochs=1, **more), **changes, work=tmp_path / str(index)))["order"]
        for index, (more, changes) in enumerate(asked)
    ]
    assert made[0] == made[1] == class_order(CLASSES, 0, 0)
    assert made[2] == class_order(CLASSES, 0, 1) != made[0]
    assert made[3] == class_order(CLASSES, 1, 0) != made[0]


@pytest.mark.parametrize(
    ("classes", "steps", "seen"),
    [(10, 5, [2, 4, 6, 8, 10]), (10, 10, list(range(1, 11))), (10, 3, [4, 7, 10]), (100, 1, [100]), (3, 3, [1, 2, 3])],
)
def test_classes_arrive_in_even_shares(classes: int, steps: int, seen: list[int]) -> None:
    assert classes_seen(classes, steps) == seen


def test_more_steps_than_classes_are_refused(make_task: MakeTask) -> None:
    with pytest.raises(
        UserError, match=r"4 classes can't arrive in 5 steps; take a protocol of at most 4 steps"
    ) as one:
        Continual().evaluate(make_task(rules(steps=5)))
    assert "\n" not in str(one.value)


def test_arrivals_by_hand() -> None:
    split = Resident(
        torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 2, 2), torch.tensor([0, 2, 0, 1, 2, 2, 1])
    )
    found = ClassIncrementalSplit(split, [2, 0, 1])
    assert found.indices.tolist() == [1, 4, 5, 0, 2, 3, 6]
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert [found.count(classes) for classes in (1, 2, 3)] == [3, 5, 7]
    part = found.first(2)
    assert isinstance(part, Resident)
    assert (part.pixels[:, 0, 0, 0].tolist(), part.labels.tolist()) == ([1, 4, 5, 0, 2], [0, 0, 0, 1, 1])


# -- what the numbers mean


class Always(nn.Module):
    """Says one class, whatever it sees."""

    def __init__(self, index: int, classes: int):
        super().__init__()
        self.logits = nn.functional.one_hot(torch.tensor(index), classes).float()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits.expand(len(pixels), -1)


def test_accuracies_by_hand(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(student: nn.Module, train: Split, schedule: Any, tests: Any, *_: object) -> list[tuple[int, float]]:
        count = len(set(train.labels.tolist()))
        return [(2, tests.top1(Always(0, count))), (3, tests.top1(Always(count - 1, count)))]

    monkeypatch.setattr(continual, "train_classifier", train)
    result = Continual().evaluate(make_task(rules(steps=3, test_from=2)))
    assert result["order"] == [1, 3, 0, 2]
    tested = {0: 10, 1: 10, 2: 10, 3: 7}  # images of each class; they arrive as 1 and 3, then 0, then 2
    last = [tested[3] / 17, tested[0] / 27, tested[2] / 37]
    first = [tested[1] / 17, tested[1] / 27, tested[1] / 37]
    assert result["steps"] == [(2, last[0]), (3, last[1]), (4, last[2])]
    assert result["top1"] == pytest.approx(sum(last) / 3)
    assert result["oracle_top1"] == pytest.approx((first[0] + max(last[1], first[1]) + max(last[2], first[2])) / 3)
    assert result["last"] == 10 / 37
    assert (result["epochs"], result["images"], result["test_images"]) == (9, 12, TEST)
    assert result["full_label_bytes"] == 3 * (6 * 2 + 9 * 3 + 12 * 4) * 2
    assert Continual().samples_seen(rules(steps=3), make_task(rules()).dataset, ipc=3) == 3 * (6 + 9 + 12)
    assert "curve" not in result  # epochs of several students are no curve


def test_an_accuracy_does_not_depend_on_how_many_steps_there_are(make_task: MakeTask, tmp_path: Path) -> None:
    few, many = (
        dict(Continual().evaluate(make_task(rules(steps=steps), labels=table(), work=tmp_path / str(steps)))["steps"])
        for steps in (2, 4)
    )
    assert few == {classes: many[classes] for classes in (2, 4)}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("count", [1, 256, 300, 512, 515])
def test_the_first_of_the_test_images(monkeypatch: pytest.MonkeyPatch, kept: bool, count: int) -> None:
    if not kept:
        monkeypatch.setattr(accuracy.TestImages, "RESIDENT_BYTES", 0)
    stream = torch.Generator().manual_seed(count)
    labels = torch.randint(0, 3, (515,), generator=stream)
    tests = accuracy.TestImages(Resident(torch.zeros(515, 3, 4, 4, dtype=torch.uint8), labels), 4, CPU)
    read: list[int] = []
    plain = Resident.centered

    def centered(self: Resident, *args: Any, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        read.append(len(more["indices"]))
        return plain(self, *args, **more)

    monkeypatch.setattr(Resident, "centered", centered)
    part = tests.first(count)
    assert part.count == count
    assert part.top1(Always(1, 3)) == labels[:count].tolist().count(1) / count
    assert read == ([] if kept else [count])
    assert tests.top1(Always(1, 3)) == labels.tolist().count(1) / 515  # still all of them


@pytest.mark.parametrize("count", [1, 4, 7, 10])
def test_each_of_several_processes_tests_its_share_of_the_first(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    split = Resident(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), torch.arange(10))
    shares = [slice(0, 4), slice(4, 7), slice(7, 10)]
    found: list[int] = []
    for share in shares:
        monkeypatch.setattr(distributed, "share", lambda _, share=share: share)
        part = accuracy.TestImages(split, 4, CPU).first(count)
        assert part.resident is not None
        found += [label for _, labels in part.resident for label in labels.tolist()]
    assert found == list(range(count))


# -- labels


def test_labels_are_asked_as_they_know_the_images_and_say_only_what_was_seen() -> None:
    asked: list[AugmentedBatch] = []

    class Source(Table):
        def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
            asked.append(views)
            return 10.0 * views.indices[:, None] + torch.arange(3)

    split = Resident(torch.zeros(6, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 2, 2]))
    order = [2, 0, 1]
    labels = SeenLabels(Source(torch.zeros(0)), ClassIncrementalSplit(split, order), order, 2, CPU)
    shown = torch.tensor([0, 3, 1])
    partners = torch.tensor([2, 1, 1])
    places = torch.tensor([0, 0, 1, 1])  # of the classes of the four images of classes 2 and 0
    views = AugmentedBatch(torch.zeros(3, 3, 2, 2), shown, places[shown], places[partners], partners, 0.5, 0, 0)
    assert labels.soft_labels(views, 0).tolist() == [[42, 40], [12, 10], [52, 50]]
    assert asked[0].indices.tolist() == [4, 1, 5]
    assert asked[0].labels.tolist() == [2, 0, 2]
    assert asked[0].partner_indices.tolist() == [0, 5, 5]
    assert asked[0].partner_labels.tolist() == [0, 2, 2]


def test_stored_labels_are_refused_when_they_are_planned() -> None:
    request = Request(methods=("sre2l",), ipc=(1,), seeds=(0,), protocols=("continual-5-digits",))
    with pytest.raises(
        UserError, match="native of sre2l are stored labels.*choose --labels online,.*static,hard"
    ) as one:
        plan(request)
    assert "\n" not in str(one.value)
    for labels in ("online", "hard", "static"):
        cells = plan(request.model_copy(update={"labels": (labels,)})).stage("evaluate")
        assert {cell.by for cell in cells} == {"continual"}


def test_and_when_they_came_with_the_images(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    views = AugmentationSchedule(plan=AugmentationConfig(size=SIDE), images=12, epochs=1, batch_size=5)
    monkeypatch.setattr(Table, "schedule", lambda self: views)
    with pytest.raises(UserError, match="stored labels belong to .*choose --labels online,hard,static") as one:
        Continual().evaluate(make_task(rules(), labels=table()))
    assert "\n" not in str(one.value)
    monkeypatch.setattr(Table, "schedule", lambda self: None)
    monkeypatch.setattr(Table, "complete", False)
    with pytest.raises(UserError, match="renormK may keep none of them; use topkK"):
        Continual().evaluate(make_task(rules(), labels=table()))


def test_labels_of_other_images_are_refused(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Table, images: Images, order_hash: str) -> None:
        raise UserError(f"made for other images than {len(images)}")

    monkeypatch.setattr(Table, "check", check, raising=False)
    with pytest.raises(UserError, match="than 12"):
        Continual().evaluate(make_task(rules(), labels=table()))


# -- the suite

TINY = """
name = "tiny-steps"
evaluator = "continual"
version = 1
track = "named"
title = "three steps, for tests"
epochs = 4
batch_size = 4
full_data = { epochs = 2, batch_size = 8 }
steps = 3
"""


def test_the_suite_in_a_tiny_form(bench: Bench, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    teacher = ("arch=convnet2-w8", "epochs=6", "batch_size=8", "schedule=cosine", "lr=0.05")
    settings = [*(f"teacher.{one}" for one in teacher), "sre2l.iterations=4", "hello.epochs=2", "hello.batch_size=8"]
    settings += ["g_vbsm.iterations=2", 'g_vbsm.pool=["convnet2-w8","convnet2-w4"]', "protocol.epochs=3"]
    flags = [part for one in settings for part in ("--set", one)]
    done = bench(
        "run", "--suite", "continual", "--small", "--dataset", f"folder:{colours}", "--ipc", "2", "--seeds", "0",
        "--students", "convnet2-w8", "--protocol", "tiny.toml", "--store", "store", "--cluster", "inline", *flags,
        figures=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    boards = next(tmp_path.glob("*/suites/continual"))
    board = (boards / "folder-colours.md").read_text().replace("<wbr>", "")
    assert "tiny-steps[small,epochs=3]" in board.replace("\\", "")
    for claim in ("HeLlO above RDED", "HeLlO above G_VBSM", "HeLlO above SRe2L"):
        assert claim in board
    rows = load_results(boards / "folder-colours.records.jsonl")
    seen = [[classes for classes, _ in steps] for steps in rows[rows["labels"] == "projector"]["steps"]]
    assert seen == [[1, 2, 3]] * 2  # of HeLlO's images and of random ones
    assert (boards / "folder-colours" / "steps-ipc2-online.svg").is_file()
    assert "Accuracy against classes seen" in (boards / "folder-colours.html").read_text()
