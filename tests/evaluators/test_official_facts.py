"""The running loop under the authors' recipes, against what their code does (official_facts.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.transforms.v2 import functional as transforms

from bench.api import AugmentedBatch, Dataset, EvaluationTask, Images, LabelSource, catalogue, registry
from bench.kit import models
from bench.kit.data.dataset import Resident
from bench.kit.views import AugmentationStream
from bench.planning.grid import Request
from bench.planning.label_choices import parse
from bench.planning.plan import plan
from bench.planning.protocols import all_protocols
from evaluators.classification import Classification
from evaluators.label_reading import LabelReading
from evaluators.student_protocol import ClassificationProtocol, by_ipc
from evaluators.student_training import runs_in_bf16

TABLE = tomllib.loads((Path(__file__).parent / "official_facts.toml").read_text(encoding="utf-8"))["recipe"]
SMALL = {"classes": 2, "image_size": 4}  # 20 images at IPC 10


class Probe(nn.Module):
    """A network of six tensors that notes what it is shown."""

    tested = torch.zeros(0)

    def __init__(self, classes: int, bn_momentum: float | None):
        super().__init__()
        self.bn_momentum, self.shown = bn_momentum, [0][:0]
        self.first, self.norm, self.head = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        if self.training:
            self.shown.append(len(pixels))  # to the batch norm
        else:
            Probe.tested = pixels  # of the class: an averaged copy may be tested
        logits: Tensor = self.head(self.norm(self.first(pixels)).mean((2, 3)))
        return logits


class Zeros(LabelSource):
    """Label every class alike, and note the steps."""

    kind = "zeros"

    def __init__(self, classes: int):
        self.classes, self.steps = classes, [0][:0]

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        self.steps.append(step)
        return torch.zeros(len(views), self.classes)

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


def black(
    stream: AugmentationStream, pixels: Tensor, labels: Tensor, indices: Tensor, epoch: int, batch: int
) -> AugmentedBatch:
    """Make black views, which is fast: of them the plan is looked at alone."""
    shown = labels[indices]
    return AugmentedBatch(torch.zeros(len(indices), 3, 2, 2), indices, shown, shown, indices, 1.0, epoch, batch)


class Stop(Exception):
    """Enough was seen."""


class Run:
    """A run of the loop, and what the optimizer and the student were given.

    Args:
        steps: of the optimizer, then it is stopped; 0: to the end.
        test: the only test image, uint8 (3, H, W).
    """

    def __init__(
        self, rules: ClassificationProtocol, dataset: str, student: str, work: Path, ipc: int = 10, steps: int = 0,
        test: Tensor | None = None, **changes: int,
    ):  # fmt: skip
        info = catalogue.dataset(dataset).model_copy(update=changes)
        labels = torch.arange(info.classes).repeat_interleave(ipc)
        pixels = torch.zeros((len(labels), 3, 4, 4), dtype=torch.uint8)
        tested = Resident(pixels[:1] if test is None else test[None], labels[:1])
        data = Dataset(info, (), (), Resident(pixels, labels), tested)
        own, built = rules.for_student(dataset, student), [Probe(1, None)][:0]
        self.rates: list[float] = []
        self.images: list[int] = []  # so far, at each step
        self.schedule, self.labels = Classification().schedule(own, info, ipc=ipc, seed=0), Zeros(info.classes)

        def build(arch: str, classes: int, size: int, mean: Any, std: Any, bn_momentum: float | None) -> Probe:
            built.append(Probe(classes, bn_momentum))
            return built[-1]

        def stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            names = {id(p): name for name, p in built[0].named_parameters()}
            groups = optimizer.param_groups
            self.decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
            self.optimizer = type(optimizer).__name__.lower()
            self.rates.append(groups[0]["lr"])
            self.images.append(sum(built[0].shown))
            if len(self.rates) == steps:
                raise Stop

        work.mkdir(exist_ok=True)
        task = EvaluationTask(
            info, data, Images(pixels, labels), self.labels, student, own, ipc, 0, torch.device("cpu"), work,
            lambda done, total, **_: None,
        )  # fmt: skip
        hook = register_optimizer_step_pre_hook(stepped)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "build", build)
            patch.setattr(AugmentationStream, "make", black)
            try:
                self.curve = Classification().evaluate(task)["curve"]
            except Stop:
                pass
            finally:
                hook.remove()
        self.probe = built[0]


def planned(rules: ClassificationProtocol, dataset: str) -> dict[str, Any]:
    """Return the settings of the images that are planned under an official recipe."""
    request = Request(
        methods=rules.methods, dataset=dataset, ipc=(1,), seeds=(0,), protocols=(rules.name,), baselines=False
    )
    (cell,) = plan(request).stage("distill")
    settings: dict[str, Any] = cell.call["settings"]
    return settings


def view_of(shown: Tensor, image: Tensor, size: int) -> str:
    """Name the view of an image that was shown."""
    for short, name in ((size, "whole"), *((n, f"resize {n}, crop {size}") for n in (72, 256))):
        wanted = transforms.center_crop(transforms.resize(image, [short], antialias=True), [size, size])
        if short >= size and torch.equal(shown, wanted[None] / 255):
            return name
    return "another"


def listed(numbers: list[int]) -> str:
    """Write the first and last two of many numbers."""
    shown = [*map(str, numbers)]
    return ", ".join(shown if len(shown) < 6 else [*shown[:2], "…", *shown[-2:]])


def measure(rules: ClassificationProtocol, recipe: dict[str, Any], work: Path) -> dict[str, Any]:
    """Return the facts of a recipe from runs of the loop."""
    dataset = recipe["dataset"]
    info = catalogue.dataset(dataset)
    student = recipe.get("student", info.student)
    steps_per_epoch = Classification().schedule(rules.for_student(dataset, student), info, ipc=10, seed=0).batches
    small = {**SMALL, "ipc": 10}

    def run(name: str, rules: ClassificationProtocol = rules, student: str = student, **more: Any) -> Run:
        return Run(rules, dataset, student, work / name, **more)

    once = rules.model_copy(update={"epochs": 1, "schedule": "constant", "warmup": 0, "soft_epochs": None})
    epoch = run("epoch", once, image_size=4)  # at full size
    whole = run("whole", **small)
    batches, last = whole.schedule.batches, whole.curve[-1][0]
    image = torch.randint(0, 256, (3, info.image_size, info.image_size), dtype=torch.uint8)
    if info.image_size == 224:
        image = torch.randint(0, 256, (3, 300, 280), dtype=torch.uint8)
    tested = run("test", once, test=image, classes=2).probe.tested
    decayed = {name for name, decay in whole.decays.items() if decay}
    soft = {step // batches for step in whole.labels.steps}
    plan, reading, nobody = epoch.schedule.plan, LabelReading(rules, last), torch.arange(4)
    s = torch.linspace(-2, 3, 24, dtype=torch.float64).sin().view(4, 6) * 3
    t = torch.linspace(0, 4, 24, dtype=torch.float64).cos().view(4, 6) * 5
    views = AugmentedBatch(torch.zeros(4, 3, 4, 4), nobody, nobody, nobody, nobody, 1.0, 0, 0)
    crop = {"rrc": [f"crop {plan.min_scale:g}"], "shift": ["shift"], "none": []}[plan.crop]
    shuffle = [f"shuffle {plan.shuffle}"] if plan.shuffle > 1 else []
    method = registry.method(rules.methods[0]) if rules.methods else None
    assert len(epoch.rates) == steps_per_epoch
    found: dict[str, Callable[[Any], Any]] = {
        "images_updated": lambda _: planned(rules, dataset).get("image_update"),
        "labels": lambda _: method and parse("native", method.info, rules.native).kind,
        "optimizer": lambda _: whole.optimizer,
        "decay": lambda _: whole.decays["head.weight"],
        "decayed": lambda _: {0: "none", 6: "all"}.get(
            len(decayed), "weights" if decayed == {"first.weight", "head.weight"} else decayed
        ),
        "lr": lambda _: [whole.rates[at * batches] for at in (0, last // 2, last - 1)],
        "lr_of": lambda of: {one: run(f"lr-{one}", once, one, steps=1, **small).rates[0] for one in of},
        "epochs": lambda _: last,
        "batch": lambda _: [
            run(f"batch-{ipc}", ipc=ipc, steps=1, image_size=4).images[0] for ipc in (1, 10, 50)
        ],
        "steps": lambda _: len(epoch.rates),
        "batch_norm": lambda _: max(epoch.probe.shown),
        "batch_norm_of": lambda of: {
            one: max(run(f"bn-{one}", once, one, steps=1, image_size=4).probe.shown) for one in of
        },
        "bn_momentum": lambda _: epoch.probe.bn_momentum,
        "ema": lambda _: rules.ema,
        "temperature": lambda _: reading.temperature(last // 2),
        "temperatures": lambda _: [reading.temperature(at - 1) for at in (29, 30, 91, 209, 210, 300)],
        "phases": lambda _: [len(list(run)) for _, run in groupby(range(last), soft.__contains__)],
        "loss": lambda _: float(reading(s, t, views, 0)),
        "hard_loss": lambda _: float(reading(s, None, views, 0)),
        "mix": lambda _: plan.mix if plan.mix == "none" else f"{plan.mix} {plan.alpha:g}",
        "views": lambda _: ", ".join([*shuffle, *crop, *(["flip"] if plan.flip else [])]),
        "tests": lambda _: listed([at for at, _ in whole.curve]),
        "test_view": lambda _: view_of(tested, image, info.image_size),
        "precision": lambda _: "bf16" if runs_in_bf16(rules, torch.device("cuda")) else "fp32",
    }  # fmt: skip
    return {name: found[name](value) for name, (value, _) in recipe["facts"].items()}


def wrong(rules: ClassificationProtocol, recipe: dict[str, Any], work: Path) -> dict[str, tuple[Any, Any]]:
    """Return the facts that the loop contradicts: (found, wanted)."""
    wanted = {name: value for name, (value, _) in recipe["facts"].items()}
    found = measure(rules, recipe, work)
    close = {name: one if isinstance(one, str) else pytest.approx(one, 1e-4) for name, one in wanted.items()}
    return {name: (found[name], wanted[name]) for name in wanted if found[name] != close[name]}


def named(recipe: dict[str, Any]) -> str:
    return "-".join(recipe[key] for key in ("protocol", "dataset", "student") if key in recipe)


def rules_of(recipe: dict[str, Any]) -> ClassificationProtocol:
    found = all_protocols()[recipe["protocol"]]
    assert isinstance(found, ClassificationProtocol)
    return found


@pytest.mark.parametrize("recipe", TABLE, ids=named)
def test_the_loop_does_what_the_authors_code_does(recipe: dict[str, Any], tmp_path: Path) -> None:
    assert not wrong(rules_of(recipe), recipe, tmp_path)


@pytest.mark.parametrize(
    ("misreading", "facts"),
    [
        (  # a step every two batches of 100 was the first
            {"micro_batches": 1, "weight_decay": 1e-4, "test_every": 20, "ce_weight": 0.15, "amp": True},
            {"batch_norm", "decay", "tests", "loss", "precision"},
        ),
        (
            {"batch_size": 200, "decay_all": True, "test_view": "crop", "schedule": "half_cosine", "mix": "mixup"},
            {"batch", "steps", "batch_norm", "decayed", "test_view", "lr", "mix"},
        ),
    ],
)
def test_misreadings_are_found(misreading: dict[str, Any], facts: set[str], tmp_path: Path) -> None:
    (recipe,) = (one for one in TABLE if one["protocol"] == "official-g_vbsm-tiny")
    assert set(wrong(rules_of(recipe).model_copy(update=misreading), recipe, tmp_path)) == facts


def test_every_official_recipe_is_in_the_table() -> None:
    names = {name for name in all_protocols() if name.startswith("official")}
    assert {recipe["protocol"] for recipe in TABLE} == names
    assert all(by_ipc(rules_of(recipe).epochs, 10) == recipe["facts"]["epochs"][0] for recipe in TABLE)
