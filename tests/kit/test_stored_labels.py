"""Stored and static labels, and quantised teachers: made, written, read back, replayed and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.api import Images, LabelSource, Progress
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.layout import SHARD_BYTES, LabelLayout
from bench.errors import UserError
from bench.kit import images as image_files
from bench.kit import labels as label_sources
from bench.kit import models
from bench.kit.data.dataset import Resident
from bench.kit.labels.codecs import codec_for
from bench.kit.labels.online import OnlineTeacher
from bench.kit.labels.static import StaticLabels, static_labels
from bench.kit.labels.stored import StoredLabels, images_digest
from bench.kit.labels.storing import store
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from bench.kit.validation import InvalidResult
from bench.kit.views import AugmentationStream, AugmentedBatch
from tests.stopping import stopped_every

CPU = torch.device("cpu")
CLASSES, SIDE, ORDER = 4, 16, "0" * 64

NETWORK = Network(arch="convnet2-w8", classes=CLASSES, image_size=SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))


def image_set(ipc: int = 6, seed: int = 0) -> Images:
    stream = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (CLASSES * ipc, 3, SIDE, SIDE), generator=stream, dtype=torch.uint8)
    return Images(pixels, torch.arange(CLASSES).repeat_interleave(ipc))


def views_of(images: Images, plan: AugmentationConfig) -> AugmentationStream:
    return AugmentationStream(plan, len(images))


PLAN = AugmentationConfig(size=SIDE, min_scale=0.3, flip=True, mix="cutmix", seed=5)


def schedule(
    images: Images, epochs: int = 5, batch_size: int = 10, plan: AugmentationConfig = PLAN
) -> AugmentationSchedule:
    return AugmentationSchedule(plan=plan, images=len(images), epochs=epochs, batch_size=batch_size)


class Judge(LabelSource):
    """A random network that labels any view; its answers hang on the batch too, as those of G_VBSM's ensemble."""

    kind = "judge"

    def __init__(self, classes: int = CLASSES) -> None:
        torch.manual_seed(9)
        self.net = models.build("convnet2-w8", classes, SIDE, NETWORK.mean, NETWORK.std).eval().requires_grad_(False)
        self.steps: list[int] = []

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        self.steps.append(step)
        logits: Tensor = 5 * self.net(views.pixels)
        return logits / logits.norm()

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


def stored(
    work: Path, codec: str = "fp32", images: Images | None = None, plan: AugmentationSchedule | None = None, **more: Any
) -> StoredLabels:
    for folder in (work, *more.get("along", ())):
        folder.mkdir(exist_ok=True, parents=True)
    images = images or image_set()
    facts = {"shard_bytes": 400, "progress": lambda *_, **__: None, "label_model": Judge()} | more
    return store(
        facts.pop("label_model"), images, plan or schedule(images), LabelCodec.parse(codec), ORDER, work, CPU, **facts
    )


def silent(done: int, total: int, **_: float) -> None:
    """Tells nobody."""


def saved(source: LabelSource, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    source.save(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("labels-*")}


# -- what is read is what was said


@pytest.mark.parametrize("mix", ["cutmix", "mixup", "none"])
@pytest.mark.parametrize("batch_size", [1, 10, 24, 100])
def test_every_batch_of_every_epoch_is_labelled_as_by_the_label_model(
    tmp_path: Path, mix: Any, batch_size: int
) -> None:
    images = image_set()
    plan = PLAN.model_copy(update={"mix": mix})
    stored(tmp_path / "work", images=images, plan=schedule(images, 5, batch_size, plan)).save(tmp_path)
    source = label_sources.load(tmp_path, CPU, {})
    assert isinstance(source, StoredLabels) and source.complete
    assert source.schedule() == schedule(images, 5, batch_size, plan)
    judge, train = Judge(), Resident(images.pixels, images.labels)
    for epoch in (3, 0, 4, 1, 2):  # whatever the order
        assert source.replayed_batches(epoch) is None
        stream = views_of(images, plan)
        for views in train.views(stream.config, epoch, batch_size, CPU):
            found = source.soft_labels(views, 0)
            assert found.dtype == torch.float32
            assert torch.equal(found, judge.soft_labels(views, 0))


@pytest.mark.parametrize("codec", ["fp16", "int8", "topk2", "topk2+int8", "renorm2+fp16", "topk4+fp32"])
def test_codecs_answer_as_they_would_without_a_file(tmp_path: Path, codec: str) -> None:
    images = image_set()
    source = StoredLabels.load(saved(stored(tmp_path / "work", codec), tmp_path / "made"), CPU)
    judge, coder = Judge(), codec_for(LabelCodec.parse(codec), CLASSES)
    assert source.complete == (codec != "renorm2+fp16")
    for epoch in range(5):
        for views in Resident(images.pixels, images.labels).views(views_of(images, PLAN).config, epoch, 10, CPU):
            wanted = coder.decode(coder.encode(judge.soft_labels(views, 0)))
            assert torch.equal(source.soft_labels(views, 0), wanted)


def test_the_label_model_is_told_the_step_that_the_student_will_be_at(tmp_path: Path) -> None:
    judge, seen = Judge(), []
    stored(tmp_path / "work", label_model=judge, progress=lambda done, total, **_: seen.append((done, total)))
    assert judge.steps[1:16] == list(range(15))  # the first question is how many classes there are
    assert seen == [(done, 15) for done in range(1, 16)]


def test_an_answer_may_be_changed_and_outlives_its_shard(tmp_path: Path) -> None:
    images, source = image_set(), stored(tmp_path / "work")
    views = next(Resident(images.pixels, images.labels).views(views_of(images, PLAN).config, 0, 10, CPU))
    first = source.soft_labels(views, 0)
    first.zero_()
    assert source.soft_labels(views, 0).abs().min() > 0


def test_a_batch_of_another_size_or_unheard_of_is_no_answer(tmp_path: Path) -> None:
    images, source = image_set(), stored(tmp_path / "work")
    train = Resident(images.pixels, images.labels)
    with pytest.raises(ValueError, match="batch 0 of epoch 0 has 7 views but 10 stored labels"):
        source.soft_labels(next(train.views(views_of(images, PLAN).config, 0, 7, CPU)), 0)
    with pytest.raises(ValueError, match="no stored labels for batch 0 of epoch 5"):
        source.soft_labels(next(train.views(views_of(images, PLAN).config, 5, 10, CPU)), 0)


# -- pruned


@pytest.mark.parametrize(("ipc", "batch_size"), [(6, 10), (5, 10), (6, 100), (6, 1)])
@pytest.mark.parametrize("count", [1, 8])  # times as many images: more or fewer than a table of views spans
def test_a_pruned_replay_visits_kept_batches_alone(tmp_path: Path, ipc: int, batch_size: int, count: int) -> None:
    images = image_set(ipc * count)
    plan = schedule(images, 6, batch_size * count)
    source = stored(tmp_path / "work", "prune3+fp32", images, plan)
    kept = [pair for shard in range(source.layout.shards) for pair in source.layout.kept(shard)]
    judge, train, stream = Judge(), Resident(images.pixels, images.labels), views_of(images, PLAN)
    ordinary = {
        (epoch, views.batch): views
        for epoch in range(plan.epochs)
        for views in train.views(views_of(images, PLAN).config, epoch, plan.batch_size, CPU)
    }
    visited: set[tuple[int, int]] = set()
    for epoch in (9, 0, 1, 2, 3, 4, 5, 6):
        places = source.replayed_batches(epoch)
        assert places is not None and places == source.replayed_batches(epoch)
        assert len(places) == len(set(places)) == plan.batches and set(places) <= set(kept)
        replayed = list(train.views(stream.config, epoch, plan.batch_size, CPU, replay=places))
        assert sum(map(len, replayed)) == len(images)
        for place, views in zip(places, replayed, strict=True):
            assert (views.epoch, views.batch) == place
            assert torch.equal(views.pixels, ordinary[place].pixels) and views.weight == ordinary[place].weight
            for name in ("indices", "labels", "partner_labels", "partner_indices"):
                assert torch.equal(getattr(views, name), getattr(ordinary[place], name)), name
            assert torch.equal(source.soft_labels(views, 0), judge.soft_labels(views, 0))
        visited |= set(places)
    assert len(visited) > plan.batches
    assert source.replayed_batches(0) != source.replayed_batches(1) or plan.batches == 1


@pytest.mark.parametrize("batch_size", [10, 24, 100])
def test_a_pool_shows_each_of_its_batches_once_before_any_again(tmp_path: Path, batch_size: int) -> None:
    images = image_set()
    plan = schedule(images, 6, batch_size)
    source = stored(tmp_path / "work", "pool3+fp32", images, plan)
    pool = {(epoch, batch) for epoch in range(3) for batch in range(plan.batches)}
    assert {pair for shard in range(source.layout.shards) for pair in source.layout.kept(shard)} == pool
    shown = [source.replayed_batches(epoch) or [] for epoch in range(6)]
    for turn in (shown[:3], shown[3:]):
        assert sorted(pair for places in turn for pair in places) == sorted(pool)
    assert plan.batches == 1 or shown[:3] != shown[3:]
    sizes = [len(plan.rows(batch)) for _, batch in shown[1]]
    assert sum(sizes) == len(images) and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    "codec", ["vq2", "lowrank3", "lowrank2+int8+prune2", "lowrank2+perclass", "lowrank3+perimage+pool4", "features128"]
)
def test_fitted_codecs_answer_from_their_files(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly as the label model does, and by nothing but the counted files."""
    monkeypatch.setattr("bench.kit.labels.fitted.MIN_STEPS", 30)
    images, plain = image_set(), PLAN.model_copy(update={"mix": "none"})
    plan = schedule(images, 5, 10, plain)
    judge = OnlineTeacher(NETWORK, Judge().net)
    made = stored(tmp_path / "work", codec, images, plan, label_model=judge)
    folder = saved(made, tmp_path / "made")
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) == made.layout.total
    source = label_sources.load(folder, CPU, {})
    seen = []
    for epoch, batch in [made.layout.kept(shard)[0] for shard in range(made.layout.shards)]:
        views = views_of(images, plain).again(images.pixels, images.labels, epoch, batch, 10)
        wanted, found = judge.soft_labels(views, 0), source.soft_labels(views, 0)
        if not source.complete:
            wanted, found = (rows - rows.mean(1, keepdim=True) for rows in (wanted, found))
        seen.append((found - wanted).norm() / wanted.norm())
    assert max(seen) < (0.8 if "vq" in codec else 0.3 if "lowrank2" in codec else 2e-3)
    assert set(made.fidelity) == {"kl", "kl_20", "agreement", "mass"} | ({"perplexity"} if "vq" in codec else set())
    if "features" in codec:
        assert source.complete and made.fidelity["kl"] < 1e-5 and made.fidelity["agreement"] == 1
    (folder / "codec.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="codec.safetensors holds 5 bytes instead of"):
        label_sources.load(folder, CPU, {})


@pytest.mark.parametrize(("codec", "says"), [("features32", "no single network"), ("lowrank2+perimage", "are mixed")])
def test_codecs_that_the_label_model_or_views_do_not_fit(tmp_path: Path, codec: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        stored(tmp_path / "work", codec)


@pytest.mark.parametrize("codec", ["vq2", "lowrank2"])
def test_stopped_while_it_fits_it_ends_with_the_same_bits(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.kit.labels.fitted.MIN_STEPS", 5)
    whole = saved(stored(tmp_path / "whole", codec, shard_bytes=1000), tmp_path / "a")
    made, _ = stopped_every(3, lambda progress: stored(tmp_path / "work", codec, progress=progress, shard_bytes=1000))
    again = saved(made, tmp_path / "b")
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((whole / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_how_near_the_labels_are_is_told(tmp_path: Path) -> None:
    judge = Judge()
    made = stored(tmp_path / "a", label_model=judge)
    assert len(judge.steps) == 1 + len(made.layout)  # the first tells the classes; none is asked again to compare
    exact, coarse = made.fidelity, stored(tmp_path / "b", "renorm2+int4").fidelity
    assert exact == {"mass": 1.0, "agreement": 1.0, "kl": 0.0, "kl_20": 0.0}
    assert 0.4 < coarse["mass"] < 0.8 and coarse["kl"] > 0.1 and coarse["kl"] == coarse["kl"]


def test_prune_beyond_one_epoch_and_too_many_logits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one batch in 6 of 5 epochs .* prune5 is the most"):
        stored(tmp_path / "work", "prune6")
    with pytest.raises(UserError, match="has 4 classes; keep at most so many logits"):
        stored(tmp_path / "work", "topk5")
    assert list((tmp_path / "work").iterdir()) == []


class Broken(Judge):
    """Answers with logits of which one is ``value``."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        logits = super().soft_labels(views, step)
        logits[-1, 0] = self.value
        return logits


@pytest.mark.parametrize(("value", "codec"), [(float("nan"), "fp32"), (float("nan"), "int8"), (float("inf"), "fp16")])
def test_labels_that_are_not_finite_where_they_are_stored_are_refused(tmp_path: Path, value: float, codec: str) -> None:
    with pytest.raises(InvalidResult, match=f"judge labels give, stored as {codec}, holds .* not finite"):
        stored(tmp_path / "work", codec, label_model=Broken(value))
    with pytest.raises(InvalidResult, match="not finite"):
        static_labels(Broken(value), image_set(), LabelCodec.parse(codec), ORDER, SIDE, tmp_path, CPU, silent)


class BrokenAtFirst(Broken):
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return super().soft_labels(views, step) if step == 0 else Judge.soft_labels(self, views, step)


def test_labels_that_are_not_finite_before_a_stop_are_refused_too(tmp_path: Path) -> None:
    model = BrokenAtFirst(float("nan"))
    with pytest.raises(InvalidResult, match="not finite"):
        stopped_every(1, lambda progress: stored(tmp_path, "int8", progress=progress, label_model=model))


def test_a_table_of_labels_has_a_row_per_image(tmp_path: Path) -> None:
    images = image_set()
    made = static_labels(Judge(), images, LabelCodec.parse("fp32"), ORDER, SIDE, tmp_path, CPU, silent)
    made.check(images, ORDER)
    made.logits = made.logits[:-1]
    with pytest.raises(InvalidResult, match=r"expected float32"):
        made.check(images, ORDER)


# -- bytes


@pytest.mark.parametrize("batch_size", [10, 24, 7])
@pytest.mark.parametrize("codec", ["fp32", "fp16", "int8", "topk2+int8", "prune3", "coords", "prune2+topk1+coords"])
def test_files_have_the_bytes_that_were_planned(tmp_path: Path, codec: str, batch_size: int) -> None:
    images = image_set()
    plan = schedule(images, 5, batch_size)
    stored(tmp_path / "work", codec, images, plan, shard_bytes=SHARD_BYTES).save(tmp_path)
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("labels-*"))
    assert on_disk == LabelLayout(plan, LabelCodec.parse(codec), CLASSES).total
    many = stored(tmp_path / "many", codec, images, plan, shard_bytes=60)
    assert sum(map(len, files(tmp_path / "many").values())) == many.layout.total
    assert len(files(tmp_path / "many")) == many.layout.shards > 1


def test_save_links_the_shards_and_counts_nothing_else(tmp_path: Path) -> None:
    made = saved(stored(tmp_path / "work"), tmp_path / "made")
    assert sorted(path.name for path in made.iterdir()) == [
        *(path.name for path in sorted((tmp_path / "work").glob("labels-*"))), "source.json"
    ]  # fmt: skip
    assert all(path.stat().st_nlink == 2 for path in made.glob("labels-*"))
    again = saved(StoredLabels.load(made, CPU), tmp_path / "again")
    assert files(again) == files(made)
    assert (again / "source.json").read_bytes() == (made / "source.json").read_bytes()


def test_another_disk_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    source = stored(tmp_path / "work")
    monkeypatch.setattr("os.link", refuse)
    assert files(saved(source, tmp_path / "made")) == files(tmp_path / "work")


@pytest.mark.parametrize("mix", ["cutmix", "mixup", "none"])
def test_coordinates_make_the_views_again(tmp_path: Path, mix: Any) -> None:
    """Cropped, flipped and mixed by hand, with nothing but what the files hold beside the order."""
    images = image_set()
    plan = PLAN.model_copy(update={"mix": mix})
    stored(tmp_path / "work", "coords", images, schedule(images, 2, 10, plan), shard_bytes=SHARD_BYTES)
    held = load_file(tmp_path / "work" / "labels-00000.safetensors")
    assert {name: (part.dtype, tuple(part.shape)) for name, part in held.items() if name != "logits"} == {
        "coords": (torch.float32, (48, 4)), "flip": (torch.bool, (48, 1)), "partner": (torch.int64, (48, 1)),
        "weight": (torch.float64, (6, 1)), "box": (torch.int32, (6, 4)),
    }  # fmt: skip
    stream, at = views_of(images, plan), 0
    for epoch in range(2):
        for number, views in enumerate(Resident(images.pixels, images.labels).views(stream.config, epoch, 10, CPU)):
            rows = slice(at, at := at + len(views))
            weight, box = held["weight"][3 * epoch + number].item(), held["box"][3 * epoch + number].tolist()
            single = []
            for index, coords, flip in zip(views.indices, held["coords"][rows], held["flip"][rows], strict=True):
                top, left, height, width = (round(x * SIDE) for x in coords.tolist())
                part = images.pixels[index, :, top : top + height, left : left + width].float()[None] / 255
                view = torch.nn.functional.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)[0]
                single.append(view.flip(2) if flip else view)
            made = torch.stack(single)
            other = made[held["partner"][rows][:, 0]]
            if mix == "mixup":
                made = weight * made + (1 - weight) * other
            top, left, bottom, right = box
            made[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
            torch.testing.assert_close(views.pixels, made, atol=1e-5, rtol=0)
            assert views.weight == weight


# -- killed


@pytest.mark.parametrize("codec", ["fp16", "prune2+int8"])
def test_killed_it_goes_on_to_the_same_bits(tmp_path: Path, codec: str) -> None:
    whole = stored(tmp_path / "whole", codec)

    def killed_at(step: int) -> Callable[..., None]:
        def progress(done: int, total: int, **_: float) -> None:
            if done == step:
                raise KeyboardInterrupt

        return progress

    for step in (4, 7):
        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path / "work", codec, progress=killed_at(step), shard_bytes=200)
    names = sorted(files(tmp_path / "work"))
    assert names
    half = tmp_path / "work" / names[0]
    before = half.stat().st_mtime_ns
    cut = tmp_path / "work" / names[-1]
    cut.write_bytes(cut.read_bytes()[:-3]) if len(names) > 1 else None
    (tmp_path / "work" / "labels-00001.part").write_bytes(b"half of one")
    seen: list[int] = []
    stored(tmp_path / "work", codec, progress=lambda done, total, **_: seen.append(done), shard_bytes=200)
    assert half.stat().st_mtime_ns == before
    assert 0 < len(seen) < len(whole.layout) and seen[-1] == len(whole.layout)
    reference = tmp_path / "reference"
    stored(reference, codec, shard_bytes=200)
    assert files(tmp_path / "work") == files(reference)
    assert not (tmp_path / "work" / "labels-00001.part").exists()


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("codec", ["fp16", "prune2+topk2+int8", "coords"])
def test_stopped_again_and_again_it_ends_with_the_same_bits(tmp_path: Path, codec: str, every: int) -> None:
    whole = stored(tmp_path / "whole", codec, shard_bytes=1000)
    assert whole.layout.shards < len(whole.layout)

    def run(progress: Progress) -> StoredLabels:
        return stored(tmp_path / "work", codec, progress=progress, shard_bytes=1000)

    made, told = stopped_every(every, run)
    assert told == list(range(1, len(whole.layout) + 1))
    assert files(tmp_path / "work") == files(tmp_path / "whole")
    assert files(saved(made, tmp_path / "saved")) == files(tmp_path / "whole")
    assert made.fidelity == whole.fidelity


CODECS = ("fp16", "topk2", "int8", "coords", "vq2", "lowrank2")


@pytest.mark.parametrize("every", [None, 2])
def test_one_pass_stores_all_codecs_of_the_same_batches(tmp_path: Path, every: int | None) -> None:
    alone = {codec: stored(tmp_path / "alone" / codec, codec, shard_bytes=1000) for codec in CODECS}
    along = {tmp_path / "along" / codec: LabelCodec.parse(codec) for codec in CODECS[1:]}
    assert len({codec.batches for codec in along.values()}) == 1
    judge, first = Judge(), CODECS[0]

    def run(progress: Progress) -> StoredLabels:
        work = tmp_path / "along" / first
        return stored(work, first, progress=progress, shard_bytes=1000, along=along, label_model=judge)

    made = {first: stopped_every(every, run)[0] if every else run(silent)}
    if not every:  # a question on the classes, one for each view, and those that vq2 and lowrank2 are fitted to
        assert len(judge.steps) == 1 + 3 * len(made[first].layout)
    for codec in CODECS[1:]:
        once = Judge()
        made[codec] = stored(tmp_path / "along" / codec, codec, shard_bytes=1000, label_model=once)
        assert len(once.steps) == 1, "all of its shards were there"
    for codec in CODECS:
        assert files(tmp_path / "along" / codec) == files(tmp_path / "alone" / codec)
        assert made[codec].fidelity == alone[codec].fidelity


def test_what_is_wrong_with_a_codec_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10) if "full" in str(path) else usage)
    along = {tmp_path / "full": LabelCodec.parse("fp32"), tmp_path / "good": LabelCodec.parse("int8")}
    stored(tmp_path / "work", "fp16", along=along)
    stored(tmp_path / "alone", "int8")
    assert files(tmp_path / "good") == files(tmp_path / "alone") and not files(tmp_path / "full")


@pytest.mark.parametrize("every", [1, 2])
def test_static_labels_stopped_again_and_again_are_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr("bench.kit.labels.static._AT_ONCE", 5)
    images, codec = image_set(), LabelCodec.parse("int8")
    made, told = stopped_every(
        every, lambda progress: static_labels(Judge(), images, codec, ORDER, SIDE, tmp_path, CPU, progress)
    )
    whole = static(images, "int8")
    assert told == [1, 2, 3, 4, 5]
    assert made.parts.keys() == whole.parts.keys()
    assert all(torch.equal(made.parts[name], part) for name, part in whole.parts.items())


def test_a_disk_that_cannot_hold_them_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=500)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"take 0.00 GiB but .* has 0.00 GiB left; make room"):
        stored(tmp_path / "work", progress=lambda *_, **__: pytest.fail("it began"))
    monkeypatch.undo()
    stored(tmp_path / "work")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=0))
    stored(tmp_path / "work")  # all is there


# -- refused by name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": {"seed": 7}}, "seed 5, expected 7"),
        ({"plan": {"min_scale": 0.5}}, "min_scale 0.3, expected 0.5"),
        ({"plan": {"mix": "mixup"}}, "mix cutmix, expected mixup"),
        ({"epochs": 6}, "epochs 5, expected 6"),
        ({"batch_size": 12}, "batch_size 10, expected 12"),
        ({"images": 4}, "images 24, expected 4"),
        ({}, ""),
    ],
)
def test_another_schedule_is_told_by_its_first_difference(changes: dict[str, Any], message: str) -> None:
    ours = schedule(image_set())
    plan = PLAN.model_copy(update=changes.get("plan", {}))
    theirs = ours.model_copy(update={**changes, "plan": plan})
    assert theirs.differs(ours) == message


@pytest.mark.parametrize("make", [stored, lambda work: static(image_set())])
def test_another_image_set_or_class_order_is_refused(tmp_path: Path, make: Callable[..., LabelSource]) -> None:
    source = label_sources.load(saved(make(tmp_path / "work"), tmp_path / "made"), CPU, {})
    images = image_set()
    source.check(images, ORDER)
    changed = images.pixels.clone()
    changed[3, 0, 0, 0] ^= 1
    for other in (Images(changed, images.labels), Images(images.pixels, images.labels.flip(0)), image_set(5)):
        with pytest.raises(UserError, match="made for another image set .* or label these again"):
            source.check(other, ORDER)
    with pytest.raises(UserError, match="another class order .*000000, expected 111111"):
        source.check(images, "1" * 64)


def test_images_are_the_same_ones_when_read_from_their_files(tmp_path: Path) -> None:
    images = image_set()
    image_files.save(images, tmp_path / "images", "png")
    stored(tmp_path / "work", images=image_files.load(tmp_path / "images")).check(images, ORDER)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"labels-00001.safetensors holds \d+ bytes instead of"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "labels-00001.safetensors holds"),
        (lambda path: path.unlink(), "labels-00001.safetensors is missing; label the images again"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"')),
            "labels-00001.safetensors holds labels of another shape",
        ),
    ],
)
def test_a_damaged_shard_is_found_before_training(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    made = saved(stored(tmp_path / "work"), tmp_path / "made")
    path = made / "labels-00001.safetensors"
    whole = path.read_bytes()
    path.unlink()  # it is linked
    path.write_bytes(whole)
    StoredLabels.load(made, CPU)
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        StoredLabels.load(made, CPU)
    assert "\n" not in str(caught.value)


# -- memory

READ_ALL = """
import sys
from pathlib import Path
import torch
from bench.kit.labels.stored import StoredLabels, images_digest

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile"))) / 1024

class Shown:
    def __init__(self, epoch, batch, rows):
        self.epoch, self.batch, self.rows, self.indices = epoch, batch, rows, None
    def __len__(self):
        return self.rows

source = StoredLabels.load(Path(sys.argv[1]), torch.device("cpu"))
layout, total = source.layout, torch.zeros(())
places = [pair for shard in range(layout.shards) for pair in layout.kept(shard)]
total += source.soft_labels(Shown(*places[0], len(layout.schedule.rows(places[0][1]))), 0).sum()
start = most = resident()
for place in places:
    total += source.soft_labels(Shown(*place, len(layout.schedule.rows(place[1]))), 0).sum()
    if place[1] == 0:
        most = max(most, resident())
print(most - start, float(total))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks the kernel for the memory in use")
def test_reading_takes_the_memory_of_two_shards_however_many_there_are(tmp_path: Path) -> None:
    """64 MB of labels in shards of 2 MB."""

    class Constant(Judge):
        def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
            return torch.full((len(views), 8000), 0.5)

    images = Images(torch.zeros(100, 3, 2, 2, dtype=torch.uint8), torch.arange(100) % CLASSES)
    plan = schedule(images, 40, 20, AugmentationConfig(size=2, crop="none"))
    source = stored(tmp_path / "work", "fp16", images, plan, label_model=Constant(), shard_bytes=2_000_000)
    assert source.layout.total > 64e6 and source.layout.shards >= 32
    saved(source, tmp_path / "made")
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, tmp_path / "made"], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    growth, total = map(float, done.stdout.split())
    assert total == pytest.approx(0.5 * (40 * 100 + 20) * 8000, rel=1e-5)
    assert growth < 10  # MiB


# -- one label an image


def static(images: Images, codec: str = "fp16", size: int = SIDE) -> StaticLabels:
    with tempfile.TemporaryDirectory() as work:
        return static_labels(Judge(), images, LabelCodec.parse(codec), ORDER, size, Path(work), CPU, silent)


@pytest.mark.parametrize("mix", ["cutmix", "mixup", "none"])
@pytest.mark.parametrize("codec", ["fp32", "fp16", "int8", "topk2"])
def test_static_labels_are_those_of_the_plain_images_by_their_shares(tmp_path: Path, mix: Any, codec: str) -> None:
    images = image_set()
    plain = AugmentedBatch(images.pixels.float() / 255, *[torch.arange(24)] * 4, 1.0, 0, 0)
    coder = codec_for(LabelCodec.parse(codec), CLASSES)
    own = coder.decode(coder.encode(Judge().soft_labels(plain, 0)))
    source = label_sources.load(saved(static(images, codec), tmp_path), CPU, {})
    assert source.schedule() is None and source.replayed_batches(0) is None
    stream = views_of(images, PLAN.model_copy(update={"mix": mix}))
    for views in Resident(images.pixels, images.labels).views(stream.config, 3, 10, CPU):
        assert torch.equal(images.labels[views.partner_indices], views.partner_labels)
        if mix == "none":
            assert torch.equal(views.partner_indices, views.indices)
        for row, index, partner in zip(
            source.soft_labels(views, 0), views.indices.tolist(), views.partner_indices.tolist(), strict=True
        ):
            wanted = views.weight * own[index] + (1 - views.weight) * own[partner]
            torch.testing.assert_close(row, wanted, atol=1e-6, rtol=1e-5)


def test_static_labels_weigh_a_row_an_image(tmp_path: Path) -> None:
    saved(static(image_set()), tmp_path)
    assert load_file(tmp_path / "labels.safetensors")["logits"].nbytes == 24 * CLASSES * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.safetensors", "source.json"]


@pytest.mark.parametrize("codec", ["prune2", "coords"])
def test_static_labels_have_nothing_to_prune(codec: str) -> None:
    with pytest.raises(UserError, match=f"static:.*{codec}.*no batches to prune and no coordinates"):
        static(image_set(), codec)


# -- the teacher at some precision


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """A ResNet with statistics and biases that are not what they start as."""
    folder = tmp_path_factory.mktemp("teacher")
    network = NETWORK.model_copy(update={"arch": "resnet18-small-w16"})
    torch.manual_seed(3)
    model = network.build()
    for _ in range(3):
        model(torch.rand(20, 3, SIDE, SIDE))
    trajectory.save(folder, network, ORDER, {1: model.net.state_dict()}, {1: 0.5}, 0.5)
    return Trajectory.load(folder, CPU)


@pytest.mark.parametrize(
    ("precision", "share", "error"), [("fp32", 1, 0.0), ("fp16", 1 / 2, 1e-2), ("int8", 1 / 4, 0.2)]
)
def test_a_rounded_teacher_is_smaller_and_nearly_as_good(
    tmp_path: Path, teacher: Trajectory, precision: Any, share: float, error: float
) -> None:
    views = next(Resident(image_set().pixels, image_set().labels).views(views_of(image_set(), PLAN).config, 0, 24, CPU))
    exact = OnlineTeacher.of(teacher).soft_labels(views, 0)
    source = OnlineTeacher.of(teacher, precision)
    answer = source.soft_labels(views, 0)
    assert (answer - exact).abs().max() <= error * exact.std()
    assert precision == "fp32" or not torch.equal(answer, exact)
    folder = saved(source, tmp_path / "made")
    again = label_sources.load(folder, CPU, {})
    assert torch.equal(again.soft_labels(views, 0), answer)
    assert files_of(saved(again, tmp_path / "again")) == files_of(folder)
    tensors = load_file(folder / "teacher.safetensors")
    numbers = sum(tensor.nbytes for tensor in tensors.values())
    assert numbers == pytest.approx(share * sum(t.nbytes for t in load_file(teacher.weights_file()).values()), rel=0.05)
    facts = json.loads((folder / "source.json").read_text())
    assert facts.get("precision", "fp32") == precision


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_int8_weights_have_a_scale_for_each_output_channel(tmp_path: Path, teacher: Trajectory) -> None:
    saved(OnlineTeacher.of(teacher, "int8"), tmp_path)
    small, full = load_file(tmp_path / "teacher.safetensors"), load_file(teacher.weights_file())
    for name, weights in full.items():
        if weights.ndim < 2:
            assert small[name].dtype == (torch.float16 if weights.is_floating_point() else weights.dtype)
            continue
        assert small[name].dtype == torch.int8 and small[name + ".scale"].dtype == torch.float32
        for channel, steps, scale in zip(weights, small[name], small[name + ".scale"], strict=True):
            assert float(scale) == pytest.approx(float(channel.abs().max()) / 127)
            assert (steps.float() * scale - channel).abs().max() <= scale * 0.501


def test_input_extras_make_another_image_set_and_dense_labels_do_not() -> None:
    pixels, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)
    rows, maps = torch.arange(8).view(4, 2), torch.ones(4, 8, 8, dtype=torch.uint8)
    made = Images(pixels, labels, {"points": rows, "masks": maps})
    assert images_digest(made) == images_digest(Images(pixels, labels, {"points": rows}))
    others = [Images(pixels, labels), made, Images(pixels, labels, {"points": rows + 1})]
    assert len({images_digest(images) for images in others}) == 3
