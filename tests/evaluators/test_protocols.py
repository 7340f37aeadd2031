"""The protocols that come with the package: all readable, each under its own name, with the papers' numbers."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from bench.api import catalogue, registry
from bench.errors import UserError
from bench.planning.protocols import OFFICIAL, USUAL, all_protocols, changed, choose, read_settings
from evaluators.student_protocol import ClassificationProtocol, by_ipc

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


def test_a_student_may_have_a_batch_and_a_rate_of_its_own() -> None:
    rules = protocol("official-rded-small-100")
    own = {(d, s): rules.for_student(d, s) for d in ("cifar100", "icons-100") for s in ("convnet3", "vgg11")}
    assert {key: (by_ipc(one.batch_size, 10), one.lr) for key, one in own.items()} == {
        ("cifar100", "convnet3"): (25, 2e-3), ("cifar100", "vgg11"): (100, 5e-4),
        ("icons-100", "convnet3"): (100, 1e-3), ("icons-100", "vgg11"): (100, 5e-4),
    }  # fmt: skip


def test_official_recipes_are_in_single_precision_and_say_where_they_are_not() -> None:
    assert all(
        not one.amp for name, one in all_protocols().items() if name.startswith(OFFICIAL) for one in [protocol(name)]
    )
    assert changed(protocol("official-rded"), {"amp": True}).name == "official-rded[amp=True]"


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
        ('loss = "l2"', r"mine.toml: loss: .*'kl', 'mse' or 'cosine', not 'l2'"),
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
