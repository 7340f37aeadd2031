"""Students of masks: what they learn from, what they refuse, and the suite from end to end."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from bench import cli
from bench.api import Dataset, DatasetInfo, EvaluationTask, Images, LabelSource, Progress, TeacherSpec, catalogue
from bench.api.seeds import seed_for
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from bench.kit import models
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Resident
from bench.kit.labels.stored import StoredLabels
from bench.kit.labels.storing import store
from bench.kit.views import AugmentationStream, AugmentedBatch
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.record import Record
from bench.store.sealing import read_sealed
from evaluators import student_training
from evaluators.segmentation import Segmentation, SegmentationProtocol
from methods.segmentation.masks import clicks, exact_shares, mask_loss
from methods.segmentation.networks import build
from methods.segmentation.scenes import make_scenes
from methods.segmentation.teacher import MaskNetwork, TeacherMasks
from tests.evaluators.conftest import Judge
from tests.methods.segmentation.test_icon_scenes import draw_icons, stickers
from tests.stopping import stopped_every

CPU = torch.device("cpu")
CLASSES, SIDE = 5, 32
SHOWN = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}


@cache
def scenes() -> Dataset:
    info = DatasetInfo(
        name="toy", title="Toy", classes=CLASSES, image_size=SIDE, smallest_class=3, train_images=15, test_images=12,
        teacher=TeacherSpec(), clip="icon-clip", student="promptable-w4", task="segmentation",
        label_shape=(SIDE // 4, SIDE // 4), **SHOWN,  # type: ignore[arg-type]
    )  # fmt: skip
    names = tuple("abcde")
    return Dataset(info, names, names, make_scenes(stickers(), 15, SIDE, 1), make_scenes(stickers(), 12, SIDE, 2))


def images() -> Images:
    made = make_scenes(stickers(), 10, SIDE, 7)
    order = torch.argsort(made.labels, stable=True)
    return Images(made.pixels[order], made.labels[order], {name: extra[order] for name, extra in made.extras.items()})


def without(made: Images, *names: str) -> Images:
    return replace(made, extras={name: extra for name, extra in made.extras.items() if name not in names})


@cache
def teacher() -> TeacherMasks:
    """A random network whose masks are no constants."""
    torch.manual_seed(3)
    network = MaskNetwork(arch="promptable-w4", image_size=SIDE, **SHOWN)  # type: ignore[arg-type]
    model = network.build()
    nn.init.normal_(model.decoder.out.weight, std=20.0)  # type: ignore[union-attr,arg-type]
    return TeacherMasks(network, model.state_dict(), CPU)


def rules(**changes: Any) -> SegmentationProtocol:
    plain = {
        "name": "test", "version": 1, "track": "common", "title": "test", "epochs": 4, "batch_size": 4,
        "test_from": 2, "test_every": 2,
        "full_data": {"epochs": 2, "batch_size": 6}, "lr": 1e-2, "evaluator": "segmentation",
    }  # fmt: skip
    return SegmentationProtocol.model_validate(plain | changes)


def task(work: Path, **changes: Any) -> EvaluationTask:
    work.mkdir(exist_ok=True)
    facts: dict[str, Any] = {
        "dataset": scenes().info, "data": scenes(), "images": images(), "labels": teacher(),
        "student": "promptable-w4", "protocol": rules(), "ipc": 2, "seed": 0, "device": CPU, "work": work,
        "progress": lambda *_, **__: None,
    } | changes  # fmt: skip
    facts.setdefault("ipc", None if facts["images"] is None else len(facts["images"]) // CLASSES)
    return EvaluationTask(**facts)


Trained = list[nn.Module]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The students, as they are trained."""
    students: Trained = []
    plain = student_training.train_student

    def train(student: nn.Module, *rest: Any) -> Any:
        students.append(student)
        return plain(student, *rest)

    monkeypatch.setattr(student_training, "train_student", train)
    return students


def stored(codec: str, work: Path, protocol: SegmentationProtocol | None = None, seed: int = 0) -> StoredLabels:
    work.mkdir(exist_ok=True)
    schedule = Segmentation().schedule(protocol or rules(), scenes().info, ipc=len(images()) // CLASSES, seed=seed)
    return store(teacher(), images(), schedule, LabelCodec.parse(codec), scenes().order_hash, work, CPU,
                 lambda *_, **__: None)  # fmt: skip


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(theirs[name], tensor) for name, tensor in one.state_dict().items())


# -- training


@pytest.mark.parametrize("labels", ["soft", "hard"])
@pytest.mark.usefixtures("in_double")
def test_students_learn_as_a_plain_loop_does(labels: str, trained: Trained, tmp_path: Path) -> None:
    """AdamW, a cosine by the epoch, batches and views of the stream, and the loss of every batch."""
    given = teacher() if labels == "soft" else None
    protocol = rules(dice_weight=0.5, epochs=3)
    result = Segmentation().evaluate(task(tmp_path, labels=given, protocol=protocol))
    schedule = Segmentation().schedule(protocol, scenes().info, ipc=2, seed=0)
    torch.manual_seed(seed_for("student-init", 0))
    student = build("promptable-w4", SIDE, **SHOWN).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in student.parameters() if p.ndim > 1]
    rest = [p for p in student.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": rest, "weight_decay": 0.0}], 1e-2, weight_decay=0.01, fused=True
    )
    stream = AugmentationStream(schedule.plan, 10)
    made = images()
    layers = torch.cat([made.pixels, torch.stack(_channels(made), 1)], 1)
    for epoch in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 + torch.cos(torch.tensor(epoch / 3 * torch.pi)).item()) / 2
        for batch, indices in stream.batches(epoch, 4):
            views = stream.make(layers, made.labels, indices, epoch, batch)
            assert views.channels is not None
            logits = student.train()(views.pixels, views.channels[:, :1])
            if given is None:
                wanted = exact_shares(views)
            else:
                with torch.no_grad():
                    wanted = torch.sigmoid(given.model(views.pixels, views.channels[:, :1]))
            optimizer.zero_grad()
            mask_loss(logits, wanted, 0.5).backward()
            optimizer.step()
    for name, tensor in trained[0].state_dict().items():
        torch.testing.assert_close(tensor, student.state_dict()[name], atol=1e-4, rtol=1e-3, msg=name)
    assert (result["epochs"], result["images"], result["test_images"]) == (3, 10, 12)
    assert result["parameters"] == sum(p.numel() for p in student.parameters())
    assert result["full_label_bytes"] == 2 * 64 * 3 * 10
    assert [epoch for epoch, _ in result["curve"]] == [2, 3] and result["top1"] == result["curve"][-1][1]


def _channels(made: Images) -> list[Tensor]:
    return [clicks(made.extras["points"], SIDE, SIDE), made.extras["masks"] * 255]


def test_a_student_learns_masks(tmp_path: Path) -> None:
    """It answers the clicks on the scenes that it was trained on."""
    made = images()
    data = replace(scenes(), test=Resident(made.pixels, made.labels, made.extras))
    result = Segmentation().evaluate(task(tmp_path, data=data, labels=None, protocol=rules(epochs=40, batch_size=5)))
    untrained = Segmentation().evaluate(task(tmp_path / "u", data=data, labels=None, protocol=rules(epochs=1, lr=1e-9)))
    assert result["top1"] > 0.3 > 2 * untrained["top1"]


def test_views_never_mix_or_shuffle() -> None:
    for wrong in ({"mix": "cutmix"}, {"mix": "mixup"}, {"shuffle": 2}, {"loss": "kl"}, {"dice_weight": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            rules(**wrong)
    schedule = Segmentation().schedule(rules(), scenes().info, ipc=2, seed=0)
    assert (schedule.plan.mix, schedule.plan.shuffle, schedule.plan.min_scale) == ("none", 1, 0.7)


def test_stored_masks_teach_what_online_ones_do(trained: Trained, tmp_path: Path) -> None:
    online = Segmentation().evaluate(task(tmp_path / "online"))
    exact = Segmentation().evaluate(task(tmp_path / "fp32", labels=stored("fp32", tmp_path / "l32")))
    assert same(trained[0], trained[1]) and exact["curve"] == online["curve"]
    rounded = Segmentation().evaluate(task(tmp_path / "fp16", labels=stored("fp16", tmp_path / "l16")))
    assert not same(trained[0], trained[2])
    assert rounded["top1"] == pytest.approx(online["top1"], abs=0.1)
    Segmentation().evaluate(task(tmp_path / "pruned", labels=stored("prune2+int8", tmp_path / "lp")))


def test_stored_masks_are_the_teacher_s_answers_up_to_fp16(tmp_path: Path) -> None:
    found, made = stored("fp16", tmp_path), images()
    schedule = found.schedule()
    stream = AugmentationStream(schedule.plan, 10)
    layers = torch.cat([made.pixels, torch.stack(_channels(made), 1)], 1)
    for epoch in range(4):
        for batch, indices in stream.batches(epoch, 4):
            views = stream.make(layers, made.labels, indices, epoch, batch)
            answers = teacher().soft_labels(views, 0)
            assert answers.std() > 0.1
            assert torch.equal(found.soft_labels(views, 0), answers.half().float())
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert 2 * 64 * 10 * 4 < on_disk < 2 * 64 * 10 * 4 + 2000


def test_labels_for_prompts_at_other_places_are_refused(tmp_path: Path) -> None:
    made = images()
    moved = replace(made, extras={**made.extras, "points": made.extras["points"].roll(1, 0)})
    with pytest.raises(UserError, match="made for another image set"):
        Segmentation().evaluate(task(tmp_path / "w", images=moved, labels=stored("fp16", tmp_path / "l")))
    # of exact masks a student of soft ones needs none
    Segmentation().evaluate(task(tmp_path / "v", images=without(made, "masks"), labels=stored("fp16", tmp_path / "m")))


# -- stops


def test_a_stopped_student_is_the_same_bits(trained: Trained, tmp_path: Path) -> None:
    whole = Segmentation().evaluate(task(tmp_path / "one"))

    def run(progress: Progress) -> dict[str, Any]:
        return Segmentation().evaluate(task(tmp_path / "two", progress=progress))

    result, told = stopped_every(5, run)
    assert told == list(range(1, 13)) and result == whole and same(trained[0], trained[-1])


@pytest.mark.parametrize("labels", ["online", "stored", "hard"])
def test_killed_in_the_midst_of_training_it_is_the_same_bits(
    labels: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", ("checkpoint", 0.0, True, 0.0))
    monkeypatch.setattr("bench.kit.checkpoint._SPACING", 0.0)
    given = {"online": teacher(), "stored": stored("fp16", tmp_path / "labels"), "hard": None}[labels]
    whole = Segmentation().evaluate(task(tmp_path / "one", labels=given))
    told: list[int] = []

    class Killed(Exception):
        pass

    def dies(done: int, total: int, **_: float) -> None:
        told.append(done)
        if len(told) == 8:
            raise Killed

    with pytest.raises(Killed):
        Segmentation().evaluate(task(tmp_path / "two", labels=given, progress=dies))
    torch.manual_seed(99)
    again = Segmentation().evaluate(task(tmp_path / "two", labels=given, progress=dies))
    assert told == [*range(1, 9), *range(8, 13)] and again == whole and same(trained[0], trained[-1])


def test_full_data_takes_exact_masks(trained: Trained, tmp_path: Path) -> None:
    result = Segmentation().evaluate(task(tmp_path, images=None, labels=None))
    assert (result["epochs"], result["images"], result["full_label_bytes"]) == (2, 15, None)


# -- what is refused


class Odd(LabelSource):
    """Labels of classes under the name of a method's own."""

    kind = "odd"

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


def refused(message: str, work: Path, **changes: Any) -> None:
    with pytest.raises(UserError, match=message) as error:
        Segmentation().evaluate(task(work, **changes))
    assert "\n" not in str(error.value)


def test_what_students_cannot_learn_from_is_refused_in_one_line(tmp_path: Path) -> None:
    made, work = images(), tmp_path / "work"
    refused("these labels are of classes", work, labels=Judge())
    refused("these labels are of classes", work, labels=Odd())
    refused("no likeliest classes to keep", work, labels=stored("topk3", tmp_path / "topk"))
    refused("no likeliest classes to keep", work, labels=stored("renorm3+int8", tmp_path / "renorm"))
    other = stored("fp16", tmp_path / "other", rules(min_scale=0.5))
    refused("belong to other views than those of test: min_scale 0.5, expected 0.7", work, labels=other)
    refused("other views", work, labels=stored("fp16", tmp_path / "seed", seed=1))
    refused("without prompts", work, images=without(made, "points", "masks"))
    refused("without prompts", work, images=without(made, "points", "masks"), labels=None)
    refused("without masks", work, images=without(made, "masks"), labels=None)
    refused("answers with classes", work, student="convnet3")
    bare = scenes().info.model_copy(update={"task": "classification"})
    refused("needs prompts and masks, which toy has not", work, dataset=bare)


def test_stored_labels_of_classes_are_refused(tmp_path: Path) -> None:
    schedule, made, judge = Segmentation().schedule(rules(), scenes().info, ipc=2, seed=0), images(), Judge()
    torch.manual_seed(0)
    judge.net = models.build("convnet2-w8", CLASSES, SIDE, **SHOWN).eval().requires_grad_(False)  # type: ignore[arg-type]
    codec, order = LabelCodec.parse("fp16"), scenes().order_hash
    plain = without(made, "points", "masks")
    for labelled, message in ((plain, "made for another image set"), (made, "these labels are of classes")):
        work = tmp_path / message
        work.mkdir()
        found = store(judge, labelled, schedule, codec, order, work, CPU, lambda *_, **__: None)
        refused(message, tmp_path / "w", labels=found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("sre2l",)}, "sre2l makes images without prompts, which segmentation needs"),
        ({"methods": ("rded",)}, "rded makes images without prompts"),
        ({"methods": ("rded",), "labels": ("hard",)}, "rded makes images without prompts"),
        ({"methods": ("promptable",), "dataset": "digits"}, "promptable needs prompts and masks, which digits has not"),
        ({"methods": ("promptable_lora",), "dataset": "digits"}, "needs prompts and masks, which digits has not"),
        ({"methods": ("random_real",), "labels": ("hard",), "dataset": "digits", "protocols": ("segmentation",)},
         "segmentation needs prompts and masks, which digits has not"),
        ({"labels": ("stored:topk5",)}, "no likeliest classes to keep"),
        ({"labels": ("native", "stored:renorm5+int8")}, "no likeliest classes to keep"),
        ({"labels": ("teacher:fp16",)}, "--labels teacher:fp16 of promptable are teacher labels"),
        ({"labels": ("static:fp16",)}, "--labels static:fp16 of promptable are static labels"),
        ({"students": ("convnet3",)}, "student 'convnet3' answers with classes"),
        ({"protocols": ("common-digits-cpu",)}, "promptable is for segmentation, which students of common-digits-cpu"),
    ],
)  # fmt: skip
def test_plans_refuse_it_before_anything_is_computed(changes: dict[str, Any], message: str) -> None:
    request = {"dataset": "icon-scenes", "methods": ("promptable",), "ipc": (1,), "seeds": (0,), "labels": ("native",)}
    with pytest.raises(UserError, match=message) as error:
        plan(Request(**{**request, **changes}))
    assert "\n" not in str(error.value)


def test_plans_share_what_is_the_same() -> None:
    """One teacher for all; random real images are the methods' own; a projector a seed, whatever the IPC."""
    grid = plan(Request(dataset="icon-scenes", methods=("promptable", "promptable_lora"), ipc=(1, 10), seeds=(0, 1),
                        labels=("native", "stored:fp16", "hard")))  # fmt: skip
    made = [(cell.stage, cell.by) for cell in grid.cells]
    assert [cell.stage for cell in grid.cells].count("prepare") == 1 and ("teacher", "teacher") not in made
    assert made.count(("distill", "random_real")) == 4
    assert (made.count(("label", "promptable")), made.count(("label", "promptable_lora"))) == (1, 2)
    assert made.count(("label", "stored")) == 2 * 4
    # native and stored of two methods and hard for each (IPC, seed), and the full data for each seed
    assert made.count(("evaluate", "segmentation")) == 5 * 4 + 2


# -- end to end


def test_a_tiny_run_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of fewer scenes; its board says mean IoU, weighs one-bit masks, and a second run has nothing to do."""
    plain = catalogue.dataset
    fewer = {"train_images": 40, "test_images": 20, "smallest_class": 4}
    monkeypatch.setattr(catalogue, "dataset", lambda *given: plain(*given).model_copy(update=fewer))
    settings = ["protocol.epochs=2", "protocol.tests=1", 'protocol.full_data={"epochs":1,"batch_size":20}',
                "promptable.arch=promptable-w4", 'promptable.training={"epochs":1}',
                'promptable_lora.teacher={"arch":"promptable-w4","training":{"epochs":1}}',
                "promptable_lora.conv_rank=1", 'promptable_lora.training={"epochs":1}']  # fmt: skip
    chosen = [part for setting in settings for part in ("--set", setting)]
    command = ["run", "--suite", "segmentation", "--small", "--data-root", str(draw_icons(tmp_path)), "--ipc", "1",
               "--seeds", "0", "--students", "promptable-w4", "--cluster", "inline", "--out", str(tmp_path / "boards"),
               "--store", str(tmp_path / "store"), *chosen]  # fmt: skip
    assert cli.main(command) == 0, capsys.readouterr()
    home = tmp_path / "boards" / "suites" / "segmentation"
    board = (home / "icon-scenes.md").read_text().replace("<wbr>", "")
    assert "6 of 6 students done" in board
    assert "## Beside the paper" in board
    assert "SAM-B's 358.32 MB" in board
    cells = tmp_path / "store" / "cells"
    weigh([Record.parse(read_sealed(path)) for path in cells.glob("*/record.json")], cells)
    before = {path: path.stat().st_mtime_ns for path in cells.rglob("*")}
    capsys.readouterr()
    assert cli.main([*command, "--dry-run"]) == 0
    total = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("total")]
    assert total and total[0][2] == total[0][1] and total[0][3] == "0"  # of all cells, all are done
    assert cli.main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in cells.rglob("*")} == before
    heads = [line for line in board.splitlines() if line.startswith("| Method")]
    assert any("mean iou" in line.lower() for line in heads) and not any("Top-1" in line for line in heads)


def files_of(folder: Path) -> dict[Path, int]:
    """The files of an artifact, without its record, and their bytes."""
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "record.json"}


def weigh(records: list[Record], cells: Path) -> None:
    """Bytes and parameters of the evaluations, from the files themselves."""
    by_id = {record.id: record for record in records}
    (images_record,) = [record for record in records if record.cell.stage == "distill"]
    folder = cells / images_record.id
    named = files_of(folder)
    masks = sum(size for path, size in named.items() if "masks" in path.relative_to(folder).parts)
    pictures = sum(size for path, size in named.items() if path.suffix == ".jpg")
    points = sum(size for path, size in named.items() if path.name == "points.json")
    assert masks and pictures and points and len(named) == 2 * 10 + 1
    seen = set()
    for record in records:
        if record.cell.stage != "evaluate":
            continue
        result: dict[str, Any] = record.result
        assert 0 <= result["top1"] <= 1 and result["parameters"] > 0
        if "images" not in record.cell.parents:
            assert (result["image_bytes"], result["label_bytes"]) == (None, 0)
            seen.add("full")
            continue
        assert result["image_bytes"] == pictures + points
        assert result["full_label_bytes"] == 2 * 256 * 2 * 10
        if "labels" not in record.cell.parents:
            assert result["label_bytes"] == masks and result["label_parameters"] is None
            seen.add("hard")
            continue
        labels = by_id[record.cell.parents["labels"]]
        weighed = sum(files_of(cells / labels.id).values())
        assert result["label_bytes"] == weighed
        seen.add(labels.cell.by)
        if labels.cell.by == "stored":
            assert weighed > 2 * 256 * 2 * 10 and result["label_parameters"] is None
        else:
            assert labels.result["mean_iou"] is not None and result["label_parameters"] > 0
            assert 4 * result["label_parameters"] < weighed < 4 * result["label_parameters"] + 40_000
    assert seen == {"full", "hard", "stored", "promptable", "promptable_lora"}
