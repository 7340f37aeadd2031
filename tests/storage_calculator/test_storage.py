"""The calculator: against published tables, files really written, and networks really built."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.api import Images, LabelSource, registry
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from bench.format import ratio
from bench.kit.labels.online import rounded
from bench.kit.labels.static import static_labels
from bench.kit.labels.storing import store
from bench.kit.models import build
from bench.kit.views import AugmentedBatch
from bench.storage_calculator.output import drift, file_stem, render_csv, render_page, write
from bench.storage_calculator.papers import Claim, claims
from bench.storage_calculator.request import SMALL, SUITE, StorageRequest
from bench.storage_calculator.sizes import AuthorFiles, Size, author_files, image_bytes, network_size, sizes
from bench.storage_calculator.tables import groups, tables

MIB, GIB = 2**20, 2**30
BOARDS = Path(__file__).parents[2] / "leaderboards" / "suites" / "storage"


def lines(labels: str, method: str = "sre2l", **asked: Any) -> list[Size]:
    return sizes(StorageRequest(labels=tuple(labels.split(",")), methods=(method,), **asked))


def one_format(method: str = "sre2l", **asked: Any) -> AuthorFiles:
    (found,) = author_files(StorageRequest(methods=(method,), **asked))
    return found


# -- the authors' own files


@pytest.mark.parametrize(
    ("ipc", "batch", "pure", "written", "unit", "files"),
    [
        (1, 1024, "572.2", "580.1", MIB, 300),
        (10, 1024, "5.588", "5.665", GIB, 3000),
        (50, 1024, "27.94", "28.326", GIB, 14_700),
        (100, 1024, "55.88", "56.652", GIB, 29_400),
        (200, 1024, "111.76", "113.303", GIB, 58_800),
        (200, 128, "111.76", "114.33", GIB, 468_900),
    ],
)
def test_sre2l_on_imagenet(ipc: int, batch: int, pure: str, written: str, unit: int, files: int) -> None:
    found = one_format(classes=1000, ipc=(ipc,), batch_size=batch)
    assert f"{found.logit_bytes / unit:.{len(pure.partition('.')[2])}f}" == pure and found.files == files
    assert found.file_bytes / unit == pytest.approx(float(written), rel=5e-4)  # the container hangs on torch
    assert found.logit_bytes == 300 * ipc * 1000 * 1000 * 2
    assert found.file_bytes - found.logit_bytes - 25 * 300 * ipc * 1000 == 2600 * files


@pytest.mark.parametrize(
    ("method", "asked", "pure", "written", "files"),
    [
        ("sre2l", {"classes": 100, "ipc": (1,), "batch_size": 100}, "5.72", "7.2", 300),
        ("sre2l", {"classes": 100, "ipc": (10,), "batch_size": 100}, "57.2", "71.8", 3000),
        ("sre2l", {"classes": 100, "ipc": (50,), "batch_size": 100}, "286.1", "359", 15_000),
        ("g_vbsm", {"classes": 1000, "ipc": (10,)}, "5722.0", "5824.5", 3000),
        ("g_vbsm", {"dataset": "cifar100", "ipc": (10,)}, "190.7", "266", 16_000),
        ("g_vbsm", {"dataset": "cifar10", "ipc": (10,)}, "1.9", "7.7", 1000),
        ("g_vbsm", {"dataset": "tiny-imagenet", "ipc": (50,)}, "381.5", "439", 10_000),
    ],
)
def test_other_sets(method: str, asked: dict[str, Any], pure: str, written: str, files: int) -> None:
    """Of CIFAR-100 and Tiny-ImageNet, epochs and batches are those of G_VBSM's own recipe."""
    found = one_format(method, **asked)
    assert f"{found.logit_bytes / MIB:.{len(pure.partition('.')[2])}f}" == pure and found.files == files
    assert found.index == (method == "g_vbsm")
    assert found.file_bytes / MIB == pytest.approx(float(written), rel=5e-3, abs=0.05)


# -- shares


@pytest.mark.parametrize(
    ("method", "shares", "weight"),
    [
        ("hello", ["5.4e-3", "5.4e-4", "1.1e-4", "2.7e-5"], 3_267_424),
        ("hello[store_dtype=float16]", ["2.7e-3", "2.7e-4", "5.4e-5", "1.4e-5"], 1_633_712),
    ],
)
def test_the_projector_beside_all_labels(method: str, shares: list[str], weight: int) -> None:
    found = lines("native", method, classes=1000)
    assert [ratio(line.label_ratio) for line in found] == shares
    assert {(line.label_bytes, line.model_numbers, line.public_parameters) for line in found} == {
        (weight, 816_856, 38_316_896)
    }
    assert [line.full_label_bytes for line in found] == [6 * 10**8, 6 * 10**9, 3 * 10**10, 12 * 10**10]


def test_imagenet_100() -> None:
    found = lines("native", "hello", dataset="imagenet-100", ipc=(1, 10, 50))
    assert [ratio(line.label_ratio) for line in found] == ["0.42", "0.042", "8.4e-3"]
    assert found[0].label_bytes == 4 * 629_720
    assert [f"{line.full_label_bytes / MIB:.3g}" for line in found] == ["5.72", "57.2", "286"]


def test_images_are_lplds() -> None:
    assert [image_bytes(1000 * ipc, 224) for ipc in (1, 10, 50)] == [15_000_000, 150_000_000, 750_000_000]
    assert image_bytes(200_000, 224) / 1e9 == pytest.approx(2.98, rel=0.01)
    assert image_bytes(1000, 112) * 4 == image_bytes(1000, 224)


# -- ours, against files


class Judge(LabelSource):
    """Labels any view, with numbers of no meaning."""

    kind = "judge"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return torch.randn(len(views.pixels), self.classes, generator=torch.Generator().manual_seed(step))

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


def nobody(done: int, total: int, **_: float) -> None:
    """Is told nothing."""


def image_set(classes: int, ipc: int, side: int = 8) -> Images:
    labels = torch.arange(classes).repeat_interleave(ipc)
    return Images(torch.zeros(len(labels), 3, side, side, dtype=torch.uint8), labels)


CODECS = (
    "vq2",
    "lowrank2",
    "lowrank3+int8",
    "lowrank2+int4+prune2",
    "int4",
    "pool2",
    "pool3+topk2+coords",
    "fp16",
    "fp32",
    "int8",
    "prune3",
    "topk2",
    "renorm2",
    "prune2+topk3+int8",
    "coords",
    "prune4+coords",
)


BYTES = [  # LPLD, LPQLD, HALD, VQAE and SCORE as formulas, on ImageNet-1K at IPC 10 and 50; batches of 100
    ("int8", 3_012_000_000, 15_060_000_000), ("topk10", 126_000_000, 630_000_000),
    ("renorm10", 120_000_000, 600_000_000), ("prune40", 150_000_000, 750_000_000),
    ("prune10+renorm100", 120_000_000, 600_000_000), ("prune10+renorm50", 60_000_000, 300_000_000),
    ("prune10+renorm10", 12_000_000, 60_000_000), ("pool10", 200_000_000, 1_000_000_000),
    ("pool15", 300_000_000, 1_500_000_000), ("pool2", 40_000_000, 200_000_000), ("pool30", 600_000_000, 3_000_000_000),
    ("lowrank7+perimage", 182_000_000, 910_000_000), ("lowrank4+perimage", 104_000_000, 520_000_000),
    ("lowrank20+perclass", 160_000_000, 640_000_000), ("lowrank32", 192_064_000, 960_064_000),
    ("lowrank32+int8", 96_064_064, 480_064_064), ("vq64", 193_813_456, 961_813_456), ("vq8", 25_223_632, 121_223_632),
    ("features512", 3_073_026_000, 15_361_026_000), ("static:fp16", 20_000_000, 100_000_000),
    ("static:int8", 10_040_000, 50_200_000), ("static:topk10", 420_000, 2_100_000),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "at_10", "at_50"), BYTES)
def test_payloads_of_imagenet_to_the_byte(codec: str, at_10: int, at_50: int) -> None:
    labels = codec if ":" in codec else f"stored:{codec}"
    found = lines(labels, classes=1000, ipc=(10, 50), batch_size=100)
    assert [line.payload_bytes for line in found] == [at_10, at_50]
    for line in found:
        assert line.once_bytes is not None and line.view_bytes is not None and line.label_bytes is not None
        assert 0 <= line.label_bytes - line.payload_bytes < 3e-5 * line.payload_bytes + 300  # headers


def test_payloads_of_imagenet_100_and_of_packed_projectors() -> None:
    asked = {"classes": 100, "ipc": (10,), "batch_size": 100}
    wanted = {
        "stored:fp16": 60_000_000, "stored:int8": 31_200_000, "stored:renorm10": 9_000_000, "static:fp16": 200_000,
        "stored:prune10+renorm10": 900_000, "stored:pool10": 2_000_000,
    }  # fmt: skip
    assert [line.payload_bytes for line in lines(",".join(wanted), **asked)] == list(wanted.values())
    assert [line.label_bytes for line in lines("online,online:int8", "hello", **asked)] == [2_518_880, 654_384]
    packed = lines("online:fp16,online:int8,online:int8+rank,online:int4,online:int4+group64", "hello", classes=1000)
    assert [line.label_bytes for line in packed[::4]] == [1_633_712, 843_448, 819_192, 435_032, 448_696]
    assert [line.labels for line in packed[::4]][1] == "projector:int8"
    request = StorageRequest(classes=1000, ipc=(10, 50), batch_size=100, methods=("sre2l",), labels=("stored:vq8",))
    (table,) = [one for one in tables(request) if one.title.startswith("Payload")]
    assert table.rows == (("stored:vq8+fp16", "8", "1,223,632", "25,223,632", "121,223,632"),)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("classes", "ipc", "epochs", "batch"), [(5, 3, 6, 4), (5, 3, 6, 15), (300, 1, 4, 64)])
def test_stored_labels_are_weighed_to_the_byte(
    tmp_path: Path, codec: str, classes: int, ipc: int, epochs: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cpu = image_set(classes, ipc), torch.device("cpu")
    plan = AugmentationConfig(size=8, flip=True, mix="cutmix", seed=7)
    schedule = AugmentationSchedule(plan=plan, images=len(images), epochs=epochs, batch_size=batch)
    monkeypatch.setattr("bench.kit.labels.fitted.MIN_STEPS", 1)
    store(Judge(classes), images, schedule, LabelCodec.parse(codec), "0" * 64, tmp_path, cpu, nobody)
    written = sum(path.stat().st_size for path in tmp_path.glob("[lc]*.safetensors"))
    (line,) = lines(f"stored:{codec}", classes=classes, ipc=(ipc,), epochs=epochs, batch_size=batch, image_size=8)
    assert line.label_bytes == written
    assert line.full_label_bytes == 2 * epochs * ipc * classes**2


@pytest.mark.parametrize("codec", ["fp16", "fp32", "int8", "int4", "topk2", "renorm3+int8"])
@pytest.mark.parametrize("classes", [5, 300])
def test_static_labels_are_weighed_to_the_byte(tmp_path: Path, codec: str, classes: int) -> None:
    images, work = image_set(classes, 2), tmp_path / "work"
    work.mkdir()
    made = static_labels(
        Judge(classes), images, LabelCodec.parse(codec), "0" * 64, 8, work, torch.device("cpu"), nobody
    )
    made.save(tmp_path)
    (line,) = lines(f"static:{codec}", classes=classes, ipc=(2,))
    assert line.label_bytes == (tmp_path / "labels.safetensors").stat().st_size


@pytest.mark.parametrize("arch", ["resnet18", "resnet10-small-w16", "resnet50-small-w8"])
def test_teachers_are_weighed_to_the_byte(tmp_path: Path, arch: str) -> None:
    state = build(arch, 11, 32, (0.0,) * 3, (1.0,) * 3).net.state_dict()
    asked = {"classes": 11, "image_size": 32, "teacher": arch, "ipc": (1,)}
    found = lines("teacher:fp32,teacher:fp16,teacher:int8,teacher:int4", **asked)
    for line, precision in zip(found, ("fp32", "fp16", "int8", "int4"), strict=True):
        kept_as = state if precision == "fp32" else rounded(state, precision)  # type: ignore[arg-type]
        save_file({key: tensor.contiguous() for key, tensor in kept_as.items()}, tmp_path / precision)
        assert line.label_bytes == (tmp_path / precision).stat().st_size
        assert line.model_numbers == sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize(
    ("arch", "size", "parameters"),
    [
        ("torchvision:resnet34", 224, 21_289_802), ("resnet50", 224, 23_528_522), ("vit_b_16", 224, 85_806_346),
        ("timm:resnet10t", 64, 4_927_618), ("convnet3", 32, 320_010),
    ],
)  # fmt: skip
def test_any_network_is_counted(arch: str, size: int, parameters: int) -> None:
    assert network_size(arch, 10, size).parameters == parameters


def test_resnet18_as_published() -> None:
    assert network_size("resnet18", 100, 224).parameters == 11_227_812
    assert 4 * network_size("resnet18", 100, 224).parameters / MIB == pytest.approx(42.83, abs=5e-3)
    files = network_size("resnet18", 1000, 224).file_bytes.values()
    assert [f"{size / MIB:.1f}" for size in files] == ["44.6", "22.3", "11.2", "5.6"]


# -- what papers print


def claim(what: str) -> Claim:
    (found,) = [one for one in claims() if one.what == what]
    return found


@pytest.mark.parametrize(
    ("what", "printed", "true_in"),
    [
        ("labels, ImageNet-1K, IPC 1", "572 MB", ["MiB"]),
        ("labels, ImageNet-1K, IPC 200", "110 GB", ["GiB"]),
        ("labels to images, IPC 1", "38 ×", ["as MiB to MB"]),
        ("teacher, ImageNet-100", "10.7 M", ["× 2²⁰"]),
        ("teacher in fp32, ImageNet-100", "42.83 MB", ["MiB"]),
        ("projector, ImageNet-1K", "0.8 M", ["× 10⁶", "× 2²⁰"]),
        ("projector, ImageNet-100", "0.6 M", ["× 10⁶", "× 2²⁰"]),
        ("projector with a whole head", "1.5 M", ["× 2²⁰"]),
        ("linear probe", "1.0 M", ["× 10⁶", "× 2²⁰"]),
        ("saved by the low-rank head (table)", "0.7 M", ["× 2²⁰"]),
        ("saved by the low-rank head (text)", "0.8 M", ["× 10⁶"]),
        ("projector to labels, IPC 200", "0.003 %", ["% in fp32"]),
        ("the same, in an earlier draft", "0.001 %", ["% in fp16"]),
        ("ratio, ImageNet-1K, IPC 1", "1e-4", ["M/MB/10"]),
        ("ratio, ImageNet-1K, IPC 10", "1e-5", ["M/MB/10"]),
        ("ratio, ImageNet-1K, IPC 50", "3e-6", ["M/MB/10"]),
        ("ratio, ImageNet-100, IPC 1", "0.1", ["M/MB"]),
        ("ratio, ImageNet-100, IPC 10", "0.01", ["M/MB"]),
        ("ratio, ImageNet-100, IPC 50", "0.002", ["M/MB"]),
        ("projector, ImageNet-100, IPC 100", "10.20 MB", []),
        ("SRe2L's files, IPC 10", "5.67 GB", ["GiB"]),
        ("SRe2L's files, IPC 200", "113.33 GB", ["GiB"]),
    ],
)
def test_in_which_unit_it_is_true(what: str, printed: str, true_in: list[str]) -> None:
    found = claim(what)
    assert found.printed == printed and [one.unit for one in found.readings if one.fits] == true_in


def test_what_the_claims_come_to() -> None:
    def values(what: str) -> list[float]:
        return [one.value for one in claim(what).readings]

    assert values("labels, ImageNet-1K, IPC 200") == pytest.approx([120, 111.7587])
    assert values("labels to images, IPC 1") == pytest.approx([40, 38.147], rel=1e-4)
    assert values("saved by the low-rank head (text)") == pytest.approx([764_928 / 1e6, 764_928 / 2**20])
    assert values("projector to labels, IPC 200") == pytest.approx([0.0027228, 0.0013614], rel=1e-4)
    assert len(claims()) == len({one.what for one in claims()}) == 24


def test_without_hello_nothing_is_said_of_a_projector(monkeypatch: pytest.MonkeyPatch) -> None:
    def method(name: str) -> Any:
        raise UserError(f"unknown method {name!r}")

    monkeypatch.setattr(registry, "method", method)
    assert len(claims()) == 9 and not any("projector" in one.what for one in claims())


# -- which recipe


def test_each_method_under_its_own_recipe() -> None:
    found = {(line.method, line.ipc): line for line in sizes(StorageRequest(dataset="imagenet-1k", labels=("hard",)))}
    assert {name: line.protocol for (name, _), line in found.items()} == {
        "sre2l": "official-sre2l", "g_vbsm": "official-g_vbsm", "rded": "official-rded", "hello": "official-hello",
        "hello[store_dtype=float16]": "official-hello",
    }  # fmt: skip
    assert [found["rded", ipc].batch_size for ipc in (1, 10, 50)] == [20, 100, 200]
    assert [found["sre2l", ipc].batch_size for ipc in (1, 10)] == [1000, 1024]  # never above the images
    assert {line.epochs for line in found.values()} == {300} and {line.label_bytes for line in found.values()} == {0}


def test_what_is_given_goes_before_the_recipe() -> None:
    (line,) = lines("hard", classes=10, ipc=(3,))
    assert (line.epochs, line.batch_size, line.images) == (300, 30, 30)
    (line,) = lines("hard", dataset="cifar100", ipc=(10,), epochs=7)
    assert (line.epochs, line.batch_size, line.protocol) == (7, 128, "official-sre2l-cifar")
    (line,) = lines("hard", dataset="cifar100", ipc=(10,), epochs=7, batch_size=50)
    assert (line.epochs, line.batch_size, line.protocol) == (7, 50, "as given")


def test_native_labels() -> None:
    found = {line.method: line for line in sizes(StorageRequest(classes=1000, ipc=(1,), labels=("native",)))}
    assert found["sre2l"].labels == "stored:fp16" and found["g_vbsm"].labels == "stored:fp16 of ensemble"
    assert found["rded"].labels == "teacher" and found["rded"].label_bytes == 46_807_448
    assert found["hello"].labels == "projector"


def test_a_baseline_has_the_common_recipe() -> None:
    (line,) = lines("teacher:fp32", "random_real", dataset="digits", ipc=(1,))
    assert line.protocol.startswith("common") and line.label_bytes is not None


def test_a_model_that_is_not_known_weighs_nothing_known() -> None:
    (line,) = lines("online", "g_vbsm", classes=10, ipc=(1,))
    assert line.label_bytes is None and line.label_ratio is None
    (line,) = lines("online", "hello[clip=RN51:openai]", classes=10, ipc=(1,))
    assert line.label_bytes is None


def test_default_labels_that_do_not_fit_are_left_out() -> None:
    found = {line.labels for line in sizes(StorageRequest(classes=5, ipc=(1,), epochs=20, methods=("sre2l",)))}
    assert found == {"stored:fp16", "static:fp16", "teacher", "teacher:int8", "hard"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "name what to count with --classes N, or with --dataset NAME"),
        ({"classes": 10, "dataset": "digits"}, "leave out --classes or --dataset"),
        ({"dataset": "digits", "image_size": 8}, "--image-size is the data set's"),
        ({"dataset": "digit"}, "did you mean 'digits'"),
        ({"dataset": "digits", "ipc": (1, 500)}, "smallest class of digits has 139 training images"),
        ({"classes": 10, "ipc": (0,)}, "images per class are 1 to 100000"),
        ({"classes": 10, "methods": ("helo",)}, "did you mean 'hello'"),
        ({"classes": 10, "methods": ("hello[rank=3]",)}, "unknown key in the settings of hello 'rank'"),
        ({"classes": 10, "labels": ("stored:topk11",)}, "10 classes; keep at most so many logits"),
        ({"classes": 10, "labels": ("stored:prune301",)}, "prune300 is the most on 10 classes"),
        ({"classes": 10, "labels": ("stord",)}, "unknown choice in --labels"),
        ({"classes": 10, "teacher": "resnet19"}, "did you mean 'resnet18'"),
        ({"classes": 10, "labels": ("static:prune3",)}, "no batches to prune"),
    ],
)
def test_what_can_not_be_weighed(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        sizes(StorageRequest(**asked))
    assert says in str(error.value) and "\n" not in str(error.value)


# -- tables and files


def test_methods_that_store_the_same_share_a_row() -> None:
    rows = {(one.labels, one.methods) for one in groups(sizes(SUITE))}
    assert ("stored:fp16", "any") in rows and ("projector", "hello") in rows
    assert ("stored:prune40+fp16", "sre2l, g_vbsm") in rows  # batches of 1,024 leave more behind
    assert ("stored:prune40+fp16", "rded, hello") in rows
    weights = [one.sizes[-1].label_bytes for one in groups(sizes(SUITE))]
    assert weights == sorted(weights, key=lambda size: -(size or 0))


def test_many_ipcs_take_several_tables() -> None:
    found = tables(StorageRequest(classes=20, ipc=tuple(range(1, 9)), image_size=32))
    assert [one.title for one in found].count("Label bytes") == 2
    for one in found:
        assert all(len(row) == len(one.columns) for row in one.rows)
    assert not any("papers" in one.title for one in found)
    assert any("papers" in one.title for one in tables(StorageRequest(classes=20, ipc=(1,)), paper=True))


def test_files_follow_from_the_request(tmp_path: Path) -> None:
    paths = write(SMALL, tmp_path)
    assert {path.name for path in paths} == {
        "digits.md", "digits.csv", "digits.request.json", "digits.svg", "digits.png",
    }  # fmt: skip
    assert drift(tmp_path) == []
    before = {path: path.read_bytes() for path in paths}
    write(SMALL, tmp_path)
    assert {path: path.read_bytes() for path in paths} == before


def damage(path: Path) -> None:
    old, new = (">images per class<", ">images<") if path.suffix == ".svg" else ("stored", "sotred")
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize("file", ["digits.md", "digits.csv", "digits.svg"])
@pytest.mark.parametrize("change", [damage, Path.unlink])
def test_drift_is_found(tmp_path: Path, file: str, change: Callable[[Path], None]) -> None:
    write(SMALL, tmp_path)
    change(tmp_path / file)
    (found,) = drift(tmp_path)
    assert found.startswith(f"{tmp_path / file}: the formulas give another; python -m bench storage --dataset digits")


def test_a_request_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.request.json").write_text('{"dataset": "digits", "why": 1}')
    (line,) = drift(tmp_path)
    assert "x.request.json: can't be read" in line


def test_page_and_csv() -> None:
    page, table = render_page(SUITE), render_csv(SUITE)
    assert page.startswith("# What a student of ImageNet-1K") and "](imagenet-1k.svg)" in page
    assert "python -m bench storage --dataset imagenet-1k`" in page
    assert max(len(line) for line in page.splitlines() if line.startswith("|")) <= 130  # 1,280 px hold it
    (line,) = [one for one in table.splitlines() if one.startswith("hello,projector,200,")]
    assert "12000" in line and "816856" in line and ",2.72285333e-05," in line
    assert file_stem(StorageRequest(classes=30)) == "30-classes"


def test_the_committed_table_holds() -> None:
    assert (BOARDS / "imagenet-1k.md").is_file()
    assert drift(BOARDS) == []


def test_a_request_needs_no_torch() -> None:
    code = "import sys; import bench.storage_calculator.tables, bench.cli.storage; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
