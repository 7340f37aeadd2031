"""The protocols that come with the package: all readable, each under its own name, with the papers' numbers."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from bench.api import catalogue, registry
from bench.errors import UserError
from bench.planning.protocols import USUAL, all_protocols, choose, read_settings
from evaluators.classification import ClassificationProtocol
from evaluators.student_protocol import by_ipc

FILES = sorted(path.name for path in files("evaluators.protocols").iterdir() if path.name.endswith(".toml"))


def protocol(name: str) -> ClassificationProtocol:
    found = all_protocols()[name]
    assert isinstance(found, ClassificationProtocol)
    return found


def chosen(wanted: str, dataset: str, method: str) -> ClassificationProtocol:
    found = choose(wanted, catalogue.dataset(dataset), method)
    assert isinstance(found, ClassificationProtocol)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_protocol_of_its_own_name(name: str) -> None:
    values = tomllib.loads((files("evaluators.protocols") / name).read_text(encoding="utf-8"))
    read = read_settings(registry.evaluator(values.get("evaluator", USUAL)).Config, values, name)
    assert f"{read.name}.toml" == name  # so names are unique
    assert read.version >= 1 and read.title
    assert bool(read.methods) == (read.track == "official")
    assert set(read.datasets) <= set(catalogue.names())


def test_no_file_is_lost() -> None:
    assert len(all_protocols()) == len(FILES) >= 8


# RDED's batches (argument.py of LINs-lab/RDED): 10, 50, 100 for IPC 1, 10, 50; twice as many for 100 and 1000
# classes; always 100 on Tiny-ImageNet; and its crop and shuffle, which only do something from 128 px up
RDED = {
    "imagenet-1k": ((20, 100, 200), 2),
    "imagenet-100": ((20, 100, 200), 2),
    "imagenette": ((10, 50, 100), 2),
    "imagewoof": ((10, 50, 100), 2),
    "cifar10": ((10, 50, 100), 1),
    "cifar100": ((20, 100, 200), 1),
    "tiny-imagenet": ((100, 100, 100), 1),
}


@pytest.mark.parametrize("dataset", RDED)
def test_rdeds_own_recipe(dataset: str) -> None:
    batches, mosaic = RDED[dataset]
    rules = chosen("official", dataset, "rded")
    assert tuple(by_ipc(rules.batch_size, ipc) for ipc in (1, 10, 50)) == batches
    assert rules.shuffle == mosaic
    assert (rules.crop, rules.min_scale) == (("rrc", 0.5) if mosaic == 2 else ("none", 0.08))
    assert by_ipc(rules.epochs, 10) == 300
    assert (rules.optimizer, rules.lr, rules.weight_decay) == ("adamw", 1e-3, 0.01)
    assert (rules.schedule, rules.loss, rules.temperature) == ("half_cosine", "kl", 20.0)
    assert (rules.mix, rules.alpha, rules.flip) == ("cutmix", 1.0, True)
    assert rules.bn_momentum == pytest.approx(1 - (1 - 0.1) ** 2)
    assert rules.ema is None
    assert rules.lr_by_student == {
        "vgg11": 5e-4, "efficientnet_b0": 2e-3, "mobilenet_v2": 2.5e-3, "alexnet": 1e-4, "vit_b_16": 1e-4,
        "swin_v2_t": 1e-4,
    }  # fmt: skip


@pytest.mark.parametrize("dataset", ["imagenet-1k", "imagenet-100", "digits"])
def test_hellos_own_recipe_is_edcs_where_the_paper_is_silent(dataset: str) -> None:
    rules = chosen("official", dataset, "hello")
    assert (rules.optimizer, rules.lr, rules.weight_decay) == ("adamw", 1e-3, 0.01)
    assert (by_ipc(rules.epochs, 10), by_ipc(rules.batch_size, 10)) == (300, 100)
    assert (rules.loss, rules.ce_weight, rules.mix, rules.alpha) == ("mse", 0.025, "cutmix", 1.0)
    assert (rules.schedule, rules.ema, rules.shuffle, rules.min_scale) == ("half_linear", 0.99, 2, 0.5)


# (epochs, batch, optimizer, rate, decay, loss, temperature or weight of the cross entropy, mix)
SRE2L = {
    "imagenet-1k": (300, 1024, "adamw", 1e-3, 0.01, "kl", 20.0, "cutmix"),
    "tiny-imagenet": (100, 256, "sgd", 0.2, 1e-4, "kl", 20.0, "none"),
    "cifar100": (400, 128, "adamw", 1e-3, 0.01, "kl", 30.0, "mixup"),
}
G_VBSM = {
    "imagenet-1k": (300, 1024, "adamw", 1e-3, 0.01, "mse", 0.1, "cutmix"),
    "cifar100": (1000, 64, "sgd", 0.1, 5e-4, "mse", 0.15, "cutmix"),
    "cifar10": (1000, 100, "adamw", 1e-3, 0.0, "mse", 0.15, "cutmix"),
    "tiny-imagenet": (100, 100, "sgd", 0.1, 5e-4, "mse", 0.1, "cutmix"),
}


@pytest.mark.parametrize(
    ("method", "dataset", "expected"),
    [("sre2l", *item) for item in SRE2L.items()] + [("g_vbsm", *item) for item in G_VBSM.items()],
)
def test_the_recipes_of_sre2l_and_g_vbsm(method: str, dataset: str, expected: tuple[object, ...]) -> None:
    rules = chosen("official", dataset, method)
    assert rules.schedule == "cosine"
    last = rules.temperature if rules.loss == "kl" else rules.ce_weight
    found = by_ipc(rules.epochs, 10), by_ipc(rules.batch_size, 10), rules.optimizer, rules.lr, rules.weight_decay
    assert (*found, rules.loss, last, rules.mix) == expected
    on_tiny = dataset == "tiny-imagenet"
    assert rules.squared_temperature == (on_tiny and method == "sre2l") == (rules.warmup == 5)
    assert rules.accumulate == (2 if on_tiny and method == "g_vbsm" else 1)
    assert rules.crop == ("shift" if (method, dataset) == ("sre2l", "cifar100") else "rrc")


@pytest.mark.parametrize(
    "dataset", [name for name in catalogue.names() if catalogue.dataset(name).task == "classification"]
)
@pytest.mark.parametrize("method", ["rded", "hello", "sre2l", "g_vbsm"])
def test_every_data_set_has_both_tracks(dataset: str, method: str) -> None:
    assert chosen("common", dataset, method).track == "common"
    official = chosen("official", dataset, method)
    assert official.track == "official" and method in official.methods
    assert chosen("common", dataset, "rded") == chosen("common", dataset, "hello")  # one recipe for all


def test_masks_have_one_recipe_of_their_own() -> None:
    found = choose("common", catalogue.dataset("icon-scenes"), "promptable")
    assert (found.name, found.evaluator, found.track) == ("segmentation", "segmentation", "common")
    with pytest.raises(UserError, match="no official protocol"):
        choose("official", catalogue.dataset("icon-scenes"), "promptable")


def test_recipes_sized_for_a_cpu_say_so() -> None:
    for name in ("digits", "fashion-mnist"):
        rules = chosen("common", name, "rded")
        assert rules.name == f"common-{name}-cpu" and "CPU" in rules.title


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epoch = 3", r"unknown key in mine.toml 'epoch' \(did you mean 'epochs'\?\)"),
        ("tempreature = 3.0", r"'tempreature' \(did you mean 'temperature'\?\)"),
        (
            "full_data = { epochs = 3, batch_size = 4, batchsize = 4 }",
            r"'full_data.batchsize' \(did you mean 'full_data.batch_size'",
        ),
        ('loss = "l2"', r"mine.toml: loss: .*'kl' or 'mse'.*not 'l2'"),
        ("tests = 0", r"mine.toml: tests: .*greater than or equal to 1"),
    ],
)
def test_a_file_of_ones_own_with_a_slip_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    key = line.split(" = ")[0]
    kept = [
        text for text in (files("evaluators.protocols") / "common.toml").read_text().splitlines()
        if not text.startswith(f"{key} =")
    ]  # fmt: skip
    Path("mine.toml").write_text("\n".join([line, *kept]))
    with pytest.raises(UserError, match=message) as caught:
        chosen("mine.toml", "digits", "rded")
    assert "\n" not in str(caught.value)


def test_an_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown protocol 'comon' \(did you mean 'common'\?\)"):
        chosen("comon", "digits", "rded")
