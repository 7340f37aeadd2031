"""G_VBSM against a slow reference: ordinary hooks, rearranged copies, loops over patches, general eigenvalues."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Dataset, DatasetInfo, Images, Progress, Task, TeacherSpec
from bench.api.seeds import seed_for
from bench.kit import running
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Resident
from bench.kit.images import quantise
from bench.kit.recovery.augment import GroupViews
from bench.kit.recovery.loop import noise
from bench.kit.running import RunningTask
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from methods.g_vbsm import GVBSM, conv_statistics
from methods.g_vbsm.densify import Densification
from methods.g_vbsm.matching import Layout, Matcher
from methods.g_vbsm.moments import ConvInputs, conv_moments
from methods.g_vbsm.recover import PoolLoss, augmentation, between, class_order, skips, turns
from tests.stopping import stopped_every

POOL = ("convnet2-w8", "wrn10-1", "resnet10-small-w4")
CLASSES, EACH, SIDE = 3, 7, 8
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")
MOST = 12  # convolutions of the deepest network of the pool: a stem, two in each of 4 blocks, 3 shortcuts
SMALL: dict[str, Any] = {
    "pool": POOL, "patch": 4, "crop": "shift", "pad": 2, "roll": 2, "statistics_batch": 8, "iterations": 7,
    "batch_size": 6, "micro_batches": 1, "alpha": 0.8, "beta_dr": 0.4, "norm_weighting": False,
}  # fmt: skip


def config(**changes: Any) -> GVBSM.Config:
    return GVBSM.Config(**{**SMALL, **changes})


def info() -> DatasetInfo:
    return DatasetInfo(
        name="noise", title="Noise", classes=CLASSES, image_size=SIDE, smallest_class=EACH,
        train_images=CLASSES * EACH, test_images=CLASSES, mean=MEAN, std=STD, clip="icon-clip",
        teacher=TeacherSpec(arch=POOL[0], image_size=SIDE), student=POOL[0],
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trajectory, ...]:
    """Random networks with random statistics."""
    found = []
    for seed, arch in enumerate(POOL):
        folder = tmp_path_factory.mktemp("teacher")
        network = Network(arch=arch, classes=CLASSES, image_size=SIDE, mean=MEAN, std=STD)
        torch.manual_seed(seed)
        state = network.build().net.state_dict()
        for name, tensor in state.items():
            if "running" in name:
                tensor.uniform_(0.5, 1.5)
        trajectory.save(folder, network, "none", {1: state}, {1: 0.5}, 0.5)
        found.append(Trajectory.load(folder, CPU))
    return tuple(found)


def silent(done: int, total: int, **_: float) -> None:
    """Tells nobody."""


MakeTask = Callable[..., RunningTask]


def prepare(task: RunningTask, **changes: Any) -> dict[str, Tensor]:
    return running.prepare(GVBSM(config(**changes)), task)


def distill(task: RunningTask, **changes: Any) -> Images:
    return running.distill(GVBSM(config(**changes)), task)


@pytest.fixture
def make_task(tmp_path: Path, pool: tuple[Trajectory, ...]) -> MakeTask:
    stream = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (CLASSES * EACH, 3, SIDE, SIDE), generator=stream, dtype=torch.uint8)
    train = Resident(pixels, torch.arange(CLASSES * EACH) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    prepared: dict[str, Tensor] = {}

    def make(ipc: int = 4, seed: int = 0, place: str = "work", progress: Progress = silent) -> Task:
        work = tmp_path / place
        work.mkdir(exist_ok=True)
        task = RunningTask(
            dataset=info(), ipc=ipc, seed=seed, data=Dataset(info(), names, names, train, train), teachers=pool,
            device=CPU, work=work, on_progress=progress,
        )  # fmt: skip
        if not prepared:
            (scratch := tmp_path / "prepare").mkdir()
            prepared.update(prepare(dataclasses.replace(task, on_progress=silent, work=scratch)))
        return dataclasses.replace(task, prepared=prepared)

    return make


# -- the reference


def reference_moments(x: Tensor, patch: int) -> list[Tensor]:
    """Channel mean and variance, patch mean and variance, by loops over the patches."""
    rows = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1)
    height, width = (math.ceil(side / patch) * patch for side in x.shape[2:])
    resized = F.interpolate(x, [height, width], mode="bilinear")
    means, variances = [], []
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            cell = resized[:, :, top : top + patch, left : left + patch].reshape(-1)
            means.append(cell.mean())
            variances.append(cell.var(unbiased=False))
    return [x.mean((0, 2, 3)), rows.var(1, unbiased=False), torch.stack(means), torch.stack(variances)]


class ReferenceHook:
    """What one layer is off, with running statistics."""

    def __init__(self, module: nn.Module, targets: list[Tensor], settings: GVBSM.Config):
        self.targets, self.settings = targets, settings
        self.is_conv = isinstance(module, nn.Conv2d)
        self.mixture: list[Tensor] | None = None
        self.skip = False
        self.off: Tensor | float = 0.0
        module.register_forward_hook(self.read)

    def read(self, module: nn.Module, given: tuple[Tensor], _: Tensor) -> None:
        if self.is_conv and self.skip:
            self.off = 0.0
            return
        found = reference_moments(given[0], self.settings.patch)
        found = found if self.is_conv else found[:2]
        alpha = self.settings.alpha
        if self.mixture is None:
            zero = [torch.zeros_like(one) for one in found]
            before = zero if self.settings.ema_init == "zero" else [one.detach() for one in found]
        else:
            before = self.mixture
        self.mixture = [alpha * old + (1 - alpha) * new.detach() for old, new in zip(before, found, strict=True)]
        self.off = 0.0
        for target, old, new in zip(self.targets, self.mixture, found, strict=True):
            self.off = self.off + torch.norm(target - (old + new - new.detach()), 2)


class ReferencePool:
    """The loss of one batch of images, as the paper's authors' loop has it, in double precision."""

    def __init__(self, task: Task, settings: GVBSM.Config):
        self.settings = settings
        stored = task.prepared
        self.nets = [copy.deepcopy(teacher.model().net).double() for teacher in task.teachers]
        self.hooks: list[list[ReferenceHook]] = []
        for arch, net in zip(POOL, self.nets, strict=True):
            hooks = []
            for name, module in net.named_modules():
                if isinstance(module, nn.Conv2d):
                    kinds = ("mean", "var", "patch_mean", "patch_var")
                    hooks.append(
                        ReferenceHook(module, [stored[f"{arch}/{name}/{k}"].double() for k in kinds], settings)
                    )
                elif isinstance(module, nn.BatchNorm2d):
                    assert module.running_mean is not None and module.running_var is not None
                    hooks.append(ReferenceHook(module, [module.running_mean, module.running_var], settings))
            self.hooks.append(hooks)

    def forget(self) -> None:
        for hook in (hook for hooks in self.hooks for hook in hooks):
            hook.mixture = None

    def loss(self, turn: int, views: Tensor, labels: Tensor, skipped: list[bool]) -> Tensor:
        views, hooks = views.double(), self.hooks[turn]
        convs = [hook for hook in hooks if hook.is_conv]
        for hook, skip in zip(convs, skipped, strict=False):
            hook.skip = skip
        loss = F.cross_entropy(self.nets[turn](views), labels)
        for index, hook in enumerate(hooks):
            loss = loss + self.settings.r_loss * (10 if index == 0 else 1) * hook.off
        return loss + self.settings.nuc_norm * reference_densification(views, labels, self.settings.tau)


def reference_densification(views: Tensor, labels: Tensor, tau: float) -> Tensor:
    total = views.new_zeros(())
    features = F.adaptive_avg_pool2d(views, (32, 32)).reshape(len(views), -1)
    for label in labels.unique():
        same = features[labels == label]
        spectrum = torch.linalg.eigvals(same @ same.t()).real
        aim = (spectrum / tau).softmax(0).detach()
        total = total + F.kl_div(spectrum.log_softmax(0), aim, reduction="sum")
    return total


def reference_images(task: Task, settings: GVBSM.Config) -> list[Tensor]:
    """All images of a class-major recovery in [0, 1], batch by batch, with a counter that goes on."""
    apart = settings.model_copy(update={"nuc_norm": 0.0})
    pools, counter, images = [ReferencePool(task, apart) for _ in range(settings.micro_batches)], 0, []
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    order = torch.arange(CLASSES).repeat_interleave(task.ipc)
    for batch, labels in enumerate(order.split(settings.batch_size)):
        parts = [
            (batch,),
            *((batch, part) for part in range(1, settings.micro_batches * len(labels) // settings.batch_size)),
        ]
        if settings.ema_reset == "per_batch":
            for pool in pools:
                pool.forget()
        skipped = [skips(settings, batch, task.seed, MOST, part) for part in range(len(parts))]
        seeds = [seed_for("g-vbsm-views", task.seed, *part) for part in parts]
        views = GroupViews(augmentation(settings), seeds, SIDE, settings.iterations, CPU)
        pixels = noise([seed_for("g-vbsm-noise", task.seed, batch)], len(labels), SIDE, CPU)
        pixels = pixels.view(len(parts), -1, 3, SIDE, SIDE).requires_grad_()
        optimizer = torch.optim.Adam([pixels], settings.lr, betas=(0.5, 0.9))
        for iteration in range(settings.iterations):
            optimizer.param_groups[0]["lr"] = (
                settings.lr * (1 + math.cos(math.pi * iteration / settings.iterations)) / 2
            )
            optimizer.zero_grad()
            turn = counter % len(POOL)
            counter += 1
            shown = views(pixels, iteration)
            loss = settings.nuc_norm * reference_densification(shown.flatten(0, 1), labels, settings.tau)
            for each in zip(pools, shown, labels.chunk(len(parts)), skipped, strict=False):
                loss = loss + each[0].loss(turn, each[1], each[2], each[3][iteration].tolist())
            loss.backward()
            optimizer.step()
            pixels.data = torch.maximum(torch.minimum(pixels.data, (1 - mean) / std), -mean / std)
        images.append((pixels.detach().flatten(0, 1) * std + mean).clamp(0, 1))
    return list(torch.cat(images))


# -- statistics


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((6, 5, 8, 8), 3), ((4, 5, 4, 12), 1), ((6, 4, 2, 2), 2), ((4, 3, 7, 5), 1), ((4, 3, 1, 1), 2)],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.usefixtures("in_double")
def test_moments_of_channels_and_patches_and_their_gradient(
    shape: tuple[int, ...], groups: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape) * 2 + 1).contiguous(memory_format=layout).requires_grad_()
    y, found = conv_moments(x, groups, 4)
    wanted = [torch.stack(each) for each in zip(*(reference_moments(part, 4) for part in x.chunk(groups)), strict=True)]
    assert torch.equal(y, x)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-5)
    factors = [torch.randn_like(each) for each in (x, *wanted)]
    both = [
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(each, factors, strict=True)), x, retain_graph=True)[0]
        for each in ((y, *found), (x, *wanted))
    ]
    assert torch.allclose(*both, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("in_double")
def test_half_of_a_tensor_is_read_too() -> None:
    x = torch.randn(4, 6, 8, 8).contiguous(memory_format=torch.channels_last)
    _, found = conv_moments(x.chunk(2, 1)[1], 1, 4)
    assert torch.allclose(found.patch_var[0], reference_moments(x[:, 3:], 4)[3], atol=1e-5)


def test_hooks_leave_the_network_as_it_was(pool: tuple[Trajectory, ...]) -> None:
    net, pixels = copy.deepcopy(pool[1].model().net), torch.randn(2, 3, SIDE, SIDE)
    wanted = net(pixels)
    with ConvInputs(net, 1, 4) as inputs:
        assert torch.equal(net(pixels), wanted)
        assert len(inputs.take()) == len(inputs.modules) == sum(isinstance(m, nn.Conv2d) for m in net.modules())
        inputs.skipped = frozenset({0, 2})
        net(pixels)
        assert set(inputs.take()) == set(range(len(inputs.modules))) - {0, 2}
    net(pixels)
    assert not inputs.take()


@pytest.mark.usefixtures("in_double")
def test_targets_are_the_mean_over_batches_weighted_by_the_true_count(make_task: MakeTask) -> None:
    """21 images in batches of 8, 8 and 5."""
    task, settings = make_task(), config()
    stored = task.prepared
    augmented = conv_statistics.augmentation(settings, SIDE)
    for teacher in task.teachers:
        model = copy.deepcopy(teacher.model())
        total: dict[str, list[Tensor]] = {}

        def read(name: str, module: nn.Module, given: tuple[Tensor], total: dict[str, list[Tensor]] = total) -> None:
            share = len(given[0]) / 21
            found = [share * each for each in reference_moments(given[0], 4)]
            before = total.get(name, [torch.zeros_like(each) for each in found])
            total[name] = [a + b for a, b in zip(before, found, strict=True)]

        for name, module in model.net.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(lambda m, given, name=name: read(name, m, given))
        sizes = []
        for views in task.data.train.views(augmented, 0, 8, CPU):
            model(views.pixels)
            sizes.append(len(views))
        assert sizes == [8, 8, 5]
        for name, wanted in total.items():
            for kind, value in zip(("mean", "var", "patch_mean", "patch_var"), wanted, strict=True):
                found = stored[f"{teacher.network.arch}/{name}/{kind}"]
                torch.testing.assert_close(found, value.float(), msg=lambda m, at=(name, kind): f"{at}: {m}")
        assert len(total) == len({key.split("/")[1] for key in stored if key.startswith(teacher.network.arch + "/")})


def test_the_pass_goes_on_with_the_network_it_was_killed_in(make_task: MakeTask) -> None:
    def killed(done: int, total: int, **_: float) -> None:
        assert total == 9
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(make_task(place="killed", progress=killed))
    steps: list[int] = []
    again = make_task(place="killed", progress=lambda done, total, **_: steps.append(done))
    assert equal(prepare(again), again.prepared)
    assert steps == [4, 5, 6, 7, 8, 9]  # the first network was there


def equal(made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return made.keys() == wanted.keys() and all(torch.equal(made[name], tensor) for name, tensor in wanted.items())


# -- the loss


def opened_pool(
    task: Task, settings: GVBSM.Config, labels: Tensor, batches: list[int]
) -> tuple[list[Matcher], PoolLoss]:
    matchers = []
    for teacher in task.teachers:
        net = copy.deepcopy(teacher.model().net)
        targets = conv_statistics.statistics_of(task.prepared, teacher.network.arch, CPU)
        layout = Layout(net, targets, settings.first_multiplier)
        matcher = Matcher(net, layout, len(batches), settings)
        matchers.append(matcher.__enter__())
    places = [(batch, 0) for batch in batches]
    return matchers, PoolLoss(matchers, [None] * len(matchers), labels, places, settings, task.seed)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"beta_dr": 0}, {"ema_init": "first"}, {"alpha": 0, "nuc_norm": 0}, {"backbone": "random"},
        {"patch": 16, "alpha": 0.4},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.usefixtures("in_double")
def test_loss_and_gradient_are_the_references(make_task: MakeTask, changes: dict[str, Any]) -> None:
    task, settings = make_task(), config(iterations=9, **changes)
    if settings.patch != config().patch:
        task = dataclasses.replace(task, prepared=prepare(make_task(place="other"), patch=settings.patch))
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    _, loss = opened_pool(task, settings, labels[None], [3])
    reference = ReferencePool(task, settings)
    skipped, order = skips(settings, 3, task.seed, MOST), turns(settings, 3, task.seed)
    for iteration in range(9):  # three of each network
        stream = torch.Generator().manual_seed(iteration)
        views = torch.randn(6, 3, SIDE, SIDE, generator=stream)
        both = []
        for compute in (
            lambda x, t=iteration: loss(x[None], t)[0],
            lambda x, t=iteration: reference.loss(order[t], x, labels, skipped[t].tolist()),
        ):
            x = views.clone().requires_grad_()
            value = compute(x)
            both.append((value.detach(), torch.autograd.grad(value, x)[0]))
        (value, gradient), (wanted, wanted_gradient) = both
        torch.testing.assert_close(value, wanted)
        torch.testing.assert_close(gradient, wanted_gradient)
    for matcher, hooks in zip(loss.matchers, reference.hooks, strict=True):
        running = [each for hook in hooks for each in hook.mixture or map(torch.zeros_like, hook.targets)]
        torch.testing.assert_close(matcher.mixture[0], torch.cat(running))


@pytest.mark.usefixtures("in_double")
def test_groups_are_apart(make_task: MakeTask) -> None:
    """Three batches at once give each its own loss and gradient, with skips of its own."""
    task, settings = make_task(), config(ema_reset="per_batch", iterations=6)
    labels = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 2], [0, 1, 2, 2]])
    views = [0.05 * torch.randn(3, 4, 3, SIDE, SIDE) for _ in range(6)]
    _, together = opened_pool(task, settings, labels, [0, 1, 2])
    single = [opened_pool(task, settings, labels[g : g + 1], [g])[1] for g in range(3)]
    for iteration in range(6):
        x = views[iteration].clone().requires_grad_()
        values = together(x, iteration)
        gradient = torch.autograd.grad(values.sum(), x)[0]
        for group in range(3):
            alone = views[iteration][group : group + 1].clone().requires_grad_()
            value = single[group](alone, iteration)
            assert torch.allclose(values[group], value[0], rtol=1e-5)
            wanted = torch.autograd.grad(value.sum(), alone)[0][0]
            assert (gradient[group] - wanted).norm() <= 1e-5 * wanted.norm()


def test_the_value_is_the_mixtures_and_the_gradient_the_batchs() -> None:
    """One convolution on one channel, worked out by hand."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    zero = torch.zeros(1)
    targets = {"0": conv_moments(torch.zeros(1, 1, 4, 4), 1, 4)[1]._replace(mean=zero, var=zero)}
    targets = {"0": type(targets["0"])(zero, zero, zero, zero)}
    active = torch.ones(1, 4, dtype=torch.bool)
    with Matcher(net, Layout(net, targets, 10), 1, config(alpha=0.75)) as matcher:
        for step, wanted in enumerate([0.25 * 2, 0.75 * 0.5 + 0.25 * 6]):
            x = torch.full((2, 1, 4, 4), (2.0, 6.0)[step], requires_grad=True)
            net(x)
            loss = matcher.loss(active)
            assert torch.allclose(loss, torch.tensor([10 * 2 * wanted]))  # channel mean and patch mean
            assert torch.allclose(torch.autograd.grad(loss, x)[0], torch.full_like(x, 10 * 2 / 32))
        net(x)
        before = matcher.mixture.clone()
        matcher.loss(~active)
        assert torch.equal(matcher.mixture, before)  # a skipped layer forgets nothing and learns nothing
    with Matcher(net, Layout(net, targets, 10), 1, config(alpha=0.75, ema_init="first")) as matcher:
        net(torch.full((2, 1, 4, 4), 2.0))
        assert torch.allclose(matcher.loss(active), torch.tensor([10 * 2 * 2.0]))
        net(torch.full((2, 1, 4, 4), 6.0))
        assert torch.allclose(matcher.loss(active), torch.tensor([10 * 2 * 3.0]))


@pytest.mark.parametrize("side", [16, 28, 32, 40])
def test_densification_is_that_of_general_eigenvalues(side: int) -> None:
    labels = [[0, 0, 0, 1, 1, 2, 3, 3], [4, 5, 6, 7, 8, 8, 8, 9]]
    views = 0.05 * torch.randn(16, 3, side, side, dtype=torch.float64)
    mine, theirs = (views.clone().requires_grad_() for _ in range(2))
    found = Densification(labels, 4.0, CPU)(mine)
    wanted = torch.stack(
        [reference_densification(theirs[8 * g : 8 * g + 8], torch.tensor(labels[g]), 4.0) for g in range(2)]
    )
    assert (wanted > 1e-3).all()
    assert torch.allclose(found, wanted)
    gradients = [torch.autograd.grad(v @ v.new_tensor([1, 2]), x)[0] for v, x in ((found, mine), (wanted, theirs))]
    assert torch.allclose(*gradients)


def test_single_images_of_a_class_are_not_driven_apart() -> None:
    assert Densification([[0, 1, 2]], 4.0, CPU)(torch.randn(3, 3, 8, 8)).tolist() == [0.0]


# -- the recovery


def test_networks_take_turns_across_batches() -> None:
    settings = config(iterations=7)
    joined = [turn for batch in range(4) for turn in turns(settings, batch, 0)]
    assert joined == [counter % 3 for counter in range(28)]
    drawn = [turns(config(iterations=300, backbone="random"), batch, 0) for batch in (0, 1)]
    assert drawn[0] != drawn[1] and drawn[0] == turns(config(iterations=300, backbone="random"), 0, 0)
    assert all(80 < drawn[0].count(turn) < 120 for turn in range(3))


def test_convolutions_are_skipped_as_often_as_asked() -> None:
    many = config(iterations=2000)
    drawn = skips(many, 0, 0, 10)
    assert abs(drawn.mean() - 0.4) < 0.02 and (skips(many, 0, 0, 10) == drawn).all()
    assert (skips(many, 1, 0, 10) != drawn).any() and (skips(many, 0, 1, 10) != drawn).any()
    assert not skips(config(beta_dr=0), 0, 0, 10).any()


def test_batches_are_class_major_and_blocks_go_round() -> None:
    assert class_order(3, 2, 1).tolist() == [0, 0, 1, 1, 2, 2]
    assert class_order(2, 4, 2).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"ema_reset": "per_batch"}, {"batch_size": 5, "beta_dr": 0}, {"micro_batches": 2},
        {"batch_size": 8, "micro_batches": 2},  # the last is one micro-batch alone
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.usefixtures("in_double")
def test_images_are_the_references(make_task: MakeTask, changes: dict[str, Any]) -> None:
    task, settings = make_task(), config(**changes)
    made = distill(task, **changes)
    wanted = torch.stack(reference_images(task, settings))
    assert made.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert GVBSM(settings).encoding(task) == "png"  # as its authors save small images
    assert torch.equal(made.pixels, quantise(wanted))
    reset = "per_batch" if settings.ema_reset == "never" else "never"
    other = distill(make_task(place="other"), ema_reset=reset, batch_size=5)
    assert not torch.equal(other.pixels, made.pixels)


@pytest.mark.usefixtures("in_double")
def test_batches_at_once_are_those_one_by_one(make_task: MakeTask) -> None:
    settings: dict[str, Any] = {"ema_reset": "per_batch", "iterations": 6, "batch_size": 4, "micro_batches": 2}
    together = distill(make_task(place="together"), groups=3, **settings)
    assert torch.equal(together.pixels, distill(make_task(), **settings).pixels)


@pytest.mark.usefixtures("in_double")
def test_each_network_is_shown_the_images_in_its_own_normalisation(make_task: MakeTask) -> None:
    """A pool from files may be normalised each in its own way; the loss is that of networks that do it alike."""
    task, settings = make_task(), config()
    other = task.teachers[1].network.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)})
    scale, shift = between(task.teachers[0].network, other, CPU)
    pixels = torch.rand(2, 3, SIDE, SIDE)
    own, theirs = ((pixels - torch.tensor(one.mean).view(3, 1, 1)) / torch.tensor(one.std).view(3, 1, 1)
                   for one in (task.teachers[0].network, other))  # fmt: skip
    assert torch.allclose(own * scale + shift, theirs)
    assert between(other, other, CPU) is None
    _, loss = opened_pool(task, settings, torch.tensor([[0, 0]]), [0])
    plain = loss(theirs[None], 1).detach()
    _, moved = opened_pool(task, settings.model_copy(update={"nuc_norm": 0.0}), torch.tensor([[0, 0]]), [0])
    moved.spaces = [None, (scale, shift), None]
    dense = settings.nuc_norm * reference_densification(theirs, torch.tensor([0, 0]), settings.tau)
    torch.testing.assert_close(moved(own[None], 1) + dense, plain)


@pytest.mark.usefixtures("in_double")
def test_blocks_end_up_class_major(make_task: MakeTask) -> None:
    made = distill(make_task(), blocks=2, iterations=1, lr=1e-12)
    order = class_order(CLASSES, 4, 2)
    starts = [noise([seed_for("g-vbsm-noise", 0, batch)], 6, SIDE, CPU)[0] for batch in range(2)]
    low, high = -torch.tensor(MEAN).view(3, 1, 1), 1 - torch.tensor(MEAN).view(3, 1, 1)
    std = torch.tensor(STD).view(3, 1, 1)
    pixels = quantise((torch.cat(starts) * std).clamp(low, high) - low)
    assert torch.equal(made.pixels, torch.cat([pixels[order == label] for label in range(CLASSES)]))


@pytest.mark.parametrize("stop", [3, 9, 13])
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda _: True)

    def killed(done: int, total: int, **_: float) -> None:
        assert total == 14
        if done == stop:
            raise KeyboardInterrupt

    whole = distill(make_task(place="whole")).pixels
    with pytest.raises(KeyboardInterrupt):
        distill(make_task(place="killed", progress=killed))
    steps: list[int] = []
    again = distill(make_task(place="killed", progress=lambda done, total, **_: steps.append(done))).pixels
    assert steps[0] > 1 and steps[-1] == 14
    assert torch.equal(again, whole)
    there = make_task(place="killed", progress=lambda *_, **__: pytest.fail("all was there"))
    assert torch.equal(distill(there).pixels, whole)


# -- stopped


@pytest.mark.parametrize("every", [1, 4])
def test_the_pass_stopped_again_and_again_ends_with_the_same_bits(make_task: MakeTask, every: int) -> None:
    task = make_task()
    made, told = stopped_every(every, lambda progress: prepare(dataclasses.replace(task, on_progress=progress)))
    assert told == list(range(1, 10))  # three networks, three batches
    assert equal(made, task.prepared)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    "changes", [{}, {"batch_size": 5, "groups": 2, "ema_reset": "per_batch", "iterations": 6}], ids=str
)
def test_recovery_stopped_again_and_again_ends_with_the_same_bits(
    make_task: MakeTask, every: int, changes: dict[str, Any]
) -> None:
    whole = distill(make_task(place="whole"), **changes).pixels
    made, told = stopped_every(
        every, lambda progress: distill(make_task(place="stopped", progress=progress), **changes)
    )
    assert torch.equal(made.pixels, whole)
    assert told == sorted(set(told)) and told[-1] == (14 if not changes else 12)
