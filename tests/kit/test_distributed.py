"""Several processes at one cell: two and three ranks on this machine against one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from bench import stopping
from bench.api import Dataset, TeacherSpec
from bench.errors import UserError
from bench.kit import accuracy, distributed
from bench.kit.checkpoint import Checkpoint
from bench.kit.data import reading
from bench.kit.data.dataset import Files, Resident
from bench.kit.sync_norm import synchronise
from bench.kit.teachers.train import train_trajectory
from bench.kit.teachers.trajectory import Network
from tests.kit.test_teachers import dataset, split
from tests.precision import double_precision
from tests.processes import run_ranks

CPU = torch.device("cpu")
SIZES = (1, 2, 3)
COUNTS = (1, 2, 10, 11)
# 120 images: the last of 8 batches is a single image, so that all ranks but the first have none of it
SPEC = TeacherSpec(
    arch="convnet2-w8", image_size=16, epochs=2, batch_size=17, lr=0.02, schedule="cosine", min_scale=0.5, checkpoints=2
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What the ranks found, by the size of their group."""
    folder = tmp_path_factory.mktemp("told")
    found = {}
    for size in SIZES:
        (folder / str(size)).mkdir()
        run_ranks(size, look_around, folder / str(size))
        found[size] = [json.loads((folder / str(size) / f"{rank}.json").read_text()) for rank in range(size)]
    return found


def look_around(folder: Path) -> None:
    facts = {
        "size": distributed.size(),
        "first": distributed.is_main(),
        "shares": [list(range(count)[distributed.share(count)]) for count in range(8)],
        "sum": distributed.all_reduce(torch.tensor([1 + distributed.rank(), 10])).tolist(),
        "told": distributed.broadcast_object({"rank": distributed.rank()}),
        "own": Checkpoint(folder, "name", shared=True).path.stem,
        "norms": norms(),
        "accuracy": accuracies(),
    }
    agreed = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(distributed.rank()))
    agreed = agreed.to(memory_format=torch.channels_last)
    distributed.broadcast([agreed])
    (folder / f"{distributed.rank()}.json").write_text(json.dumps({**facts, "agreed": agreed.flatten().tolist()}))


@pytest.mark.parametrize("size", SIZES)
def test_shares_are_contiguous_and_even(told: dict[int, list[dict[str, Any]]], size: int) -> None:
    for count in range(8):
        parts = [facts["shares"][count] for facts in told[size]]
        assert [index for part in parts for index in part] == list(range(count))
        lengths = [len(part) for part in parts]
        assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize("size", SIZES)
def test_ranks_add_up_and_agree(told: dict[int, list[dict[str, Any]]], size: int) -> None:
    first = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for rank, facts in enumerate(told[size]):
        assert facts["size"] == size and facts["first"] == (rank == 0)
        assert facts["sum"] == [size * (size + 1) // 2, 10 * size]
        assert facts["told"] == {"rank": 0}
        assert facts["agreed"] == first.flatten().tolist()
    assert [facts["own"] for facts in told[size]] == ["name", "name-1", "name-2"][:size]


def test_without_a_group_there_is_one_rank_and_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.joined(CPU):
        assert (distributed.size(), distributed.rank(), distributed.is_main(), distributed.share(5)) == (
            1,
            0,
            True,
            slice(0, 5),
        )
        value = {"a": torch.ones(2)}
        assert distributed.broadcast_object(value) is value and distributed.all_reduce(value["a"]) is value["a"]
        norm = nn.BatchNorm2d(2)
        synchronise(norm)
        assert "forward" not in vars(norm)


# -- batch norms

# rows are shared out; images are 3 x 3 px, or a row is all there is
NORMS: dict[str, tuple[tuple[int, ...], float | None]] = {
    "uneven": ((7, 4, 3, 3), 0.1),
    "rows": ((7, 4), 0.1),
    "fewer images than ranks": ((1, 4, 3, 3), 0.1),
    "fewer rows than ranks": ((2, 4), 0.1),
    "cumulative average": ((7, 4, 3, 3), None),
}


def norms() -> dict[str, dict[str, float]]:
    with double_precision():
        return {case: norm_faults(*shape) for case, shape in NORMS.items()}


def norm_faults(shape: tuple[int, ...], momentum: float | None) -> dict[str, float]:
    """How far outputs, gradients and running statistics of this rank's rows are from a plain batch norm's on all of
    them, over two steps; far from zero, where sums of squares would lose the variance."""
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    plain, shared = kind(shape[1], momentum=momentum), kind(shape[1], momentum=momentum)
    with torch.no_grad():
        for norm in (plain, shared):
            norm.weight.copy_(torch.linspace(0.5, 1.5, shape[1]))
    synchronise(shared)
    faults: dict[str, float] = {}
    for step in range(2):
        stream = torch.Generator().manual_seed(step)
        values = torch.randn(shape, generator=stream) * 2 + 30
        slopes = torch.randn(shape, generator=stream)
        mine = distributed.share(shape[0])
        found = [(rows := values[part].clone().requires_grad_(), norm(rows)) for norm, part in
                 ((plain, slice(None)), (shared, mine))]  # fmt: skip
        (found[0][1] * slopes).sum().backward()
        (found[1][1] * slopes[mine]).sum().backward()
        whole, part = found
        assert whole[0].grad is not None and part[0].grad is not None
        pairs = {"output": (whole[1][mine], part[1]), "gradient": (whole[0].grad[mine], part[0].grad)}
        for name, expected in plain.named_parameters():
            own = shared.get_parameter(name).grad
            assert expected.grad is not None and own is not None
            pairs[name] = expected.grad, distributed.all_reduce(own.clone())
        pairs |= {name: (expected, shared.get_buffer(name)) for name, expected in plain.named_buffers()}
        for norm in (plain, shared):
            norm.zero_grad()
        for name, (expected, got) in pairs.items():
            assert expected.shape == got.shape
            fault = float((expected - got).detach().abs().max()) if got.numel() else 0.0
            faults[name] = max(fault, faults.get(name, 0.0))
    plain.eval(), shared.eval()
    return {**faults, "eval": float((plain(values) - shared(values)).detach().abs().max())}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", NORMS)
def test_shared_batch_norms_see_the_whole_batch(told: dict[int, list[dict[str, Any]]], size: int, case: str) -> None:
    for facts in told[size]:
        faults = facts["norms"][case]
        assert set(faults) == {
            "output", "gradient", "weight", "bias", "running_mean", "running_var", "num_batches_tracked", "eval",
        }  # fmt: skip
        assert faults["num_batches_tracked"] == 0
        assert max(faults.values()) < 1e-9, faults


def test_what_is_more_than_a_batch_norm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(UserError, match="a BatchNormAct2d is more than a batch norm"):
        synchronise(nn.Sequential(nn.BatchNorm2d(2), BatchNormAct2d(2)))


# -- accuracy


def accuracies() -> dict[str, Any]:
    """Shares of right answers of a model that knows one class of two, among the first images of a split."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    nn.init.zeros_(model[1].weight)  # all answers are class 0
    found: dict[str, Any] = {}
    for count in COUNTS:
        images = Resident(torch.zeros(count, 3, 2, 2, dtype=torch.uint8), torch.arange(count) % 3 % 2)
        tests = accuracy.TestImages(images, 2, CPU)
        limited = accuracy.TestImages(images, 2, CPU, 5)
        assert tests.resident is not None
        kept = sum(len(labels) for _, labels in tests.resident)
        found[str(count)] = {"top1": tests.top1(model), "limited": limited.top1(model), "kept": kept}
    return found


@pytest.mark.parametrize("size", SIZES)
def test_every_image_is_tested_once(told: dict[int, list[dict[str, Any]]], size: int) -> None:
    for count in COUNTS:
        labels = torch.arange(count) % 3 % 2
        few = labels[torch.arange(min(5, count)) * count // min(5, count)]
        assert sum(facts["accuracy"][str(count)]["kept"] for facts in told[size]) == count
        for facts in told[size]:
            found = facts["accuracy"][str(count)]
            assert found["top1"] == int((labels == 0).sum()) / count
            assert found["limited"] == int((few == 0).sum()) / len(few)


# -- teachers


def train_teacher(folder: Path, spec: TeacherSpec, of_files: bool = False, stop: int = 0) -> None:
    """Train as a rank, saving after every step; leaves the weights, the result, and how many files were decoded and
    checkpoints written. On step ``stop`` the first rank is asked to stop."""
    models, decoded, saved = [], [], []
    build, decode, save = Network.build, reading.decode, Checkpoint.save

    def built(network: Network) -> Any:
        model = build(network)
        if spec.seed == DROPOUT:
            model.net.classifier = nn.Sequential(nn.Dropout(0.3), model.net.classifier)
        models.append(model)
        return model

    def progress(done: int, total: int, **_: float) -> None:
        if done == stop and distributed.is_main():
            stopping.ask()

    made, work = folder / f"made-{distributed.rank()}", folder / "work"
    for new in (made, work):
        new.mkdir(exist_ok=True)
    with double_precision(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "build", built)
        patch.setattr(reading, "decode", lambda path: decoded.append(path) or decode(path))
        patch.setattr(Checkpoint, "due", lambda checkpoint: True)
        patch.setattr(Checkpoint, "save", lambda *given, **facts: saved.append(facts) or save(*given, **facts))
        data = filed(folder.parent) if of_files else dataset()
        result = train_trajectory(spec, data, made, work, CPU, progress)
    save_file(
        {name: t.contiguous() for name, t in models[0].state_dict().items()}, folder / f"{distributed.rank()}.weights"
    )
    counts = {"decoded": len(decoded), "saved": len(saved)}
    (folder / f"{distributed.rank()}.json").write_text(json.dumps({"result": result, **counts}))


DROPOUT = 99  # the seed of the teachers that have dropout


def filed(folder: Path) -> Dataset:
    """The data as files that are decoded here, not by workers."""

    def written(part: str, images: Resident) -> Files:
        home = folder / part
        if not home.exists():
            home.mkdir()
            for index, pixels in enumerate(images.pixels):
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(home / f"{index:03d}.png")
        return Files(sorted(home.iterdir()), images.labels, workers=0)

    return replace(dataset(), train=written("train", split(20, 0)), test=written("test", split(10, 1)))


def weights(folder: Path, rank: int = 0) -> dict[str, Tensor]:
    return load_file(folder / f"{rank}.weights")


def facts(folder: Path, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{rank}.json").read_text())
    return found


@pytest.mark.parametrize("of_files", [False, True], ids=["in memory", "of files"])
def test_shared_training_is_that_of_one_process(tmp_path: Path, of_files: bool) -> None:
    for size in SIZES:
        (tmp_path / str(size)).mkdir()
    filed(tmp_path)
    train_teacher(tmp_path / "1", SPEC, of_files)
    alone = weights(tmp_path / "1")
    for size in (2,) if of_files else SIZES[1:]:
        run_ranks(size, train_teacher, tmp_path / str(size), SPEC, of_files)
        shared = weights(tmp_path / str(size))
        assert shared.keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(shared[name], tensor, rtol=0, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
        for rank in range(1, size):
            other = weights(tmp_path / str(size), rank)
            assert all(torch.equal(other[name], tensor) for name, tensor in shared.items())
        assert all(
            facts(tmp_path / str(size), rank)["result"] == facts(tmp_path / "1")["result"] for rank in range(size)
        )
        names = sorted(path.name for path in (tmp_path / str(size) / "made-0").iterdir())
        assert names == ["epoch-001.safetensors", "epoch-002.safetensors", "teacher.json"]
        assert [facts(tmp_path / str(size), rank)["saved"] for rank in range(size)] == [16, 0, 0][:size]
    if of_files:  # 7 batches of 17 and one of 1, twice; 60 images to test on, and again as the accuracy check
        assert facts(tmp_path / "1")["decoded"] == 2 * 120 + 120
        assert [facts(tmp_path / "2", rank)["decoded"] for rank in range(2)] == [2 * 64 + 60, 2 * 56 + 60]


def test_a_network_that_cannot_take_an_empty_share_is_refused_at_once(tmp_path: Path) -> None:
    run_ranks(2, refused, tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))


def refused(folder: Path) -> None:
    spec = SPEC.model_copy(update={"arch": "swin-small"})
    with pytest.raises(UserError, match=r"swin-small can't take a batch of none; train it in fewer processes"):
        train_teacher(folder, spec)


def test_stopped_in_the_middle_shared_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"seed": DROPOUT})
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    run_ranks(2, train_teacher, tmp_path / "whole", spec)
    assert all(run_ranks(2, train_teacher, tmp_path / "stopped", spec, stop=9, may_fail=True))
    kept = Checkpoint(tmp_path / "stopped" / "work").load()
    assert kept is not None and kept[1] == {"steps": 9}
    run_ranks(2, train_teacher, tmp_path / "stopped", spec)
    for rank in range(2):
        again, whole = weights(tmp_path / "stopped", rank), weights(tmp_path / "whole", rank)
        assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    for path in (tmp_path / "whole" / "made-0").iterdir():
        assert (tmp_path / "stopped" / "made-0" / path.name).read_bytes() == path.read_bytes()
