"""The Python API: tensors are evaluated as a run evaluates them, and slips are refused in one line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bench
from bench.api import Images, catalogue
from bench.kit import data, models
from bench.kit import images as image_files
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from tests.conftest import Bench, environment
from tests.processes import run_command

SHORT = {"epochs": 2, "tests": 1}
CLASSES = 10


@pytest.fixture(scope="module")
def digits() -> Images:
    """Two real images of each class, class by class."""
    train = data.load(catalogue.dataset("digits")).train
    chosen = torch.cat([(train.labels == label).nonzero().flatten()[:2] for label in range(CLASSES)])
    return Images(torch.stack([train.image(int(index)) for index in chosen]), train.labels[chosen])


def top1(images: Any, labels: Any = None, **more: Any) -> float:
    """The accuracy of one student after two epochs."""
    found = bench.evaluate(images, labels, seeds=[0], settings=SHORT, **more)
    assert isinstance(found, bench.Result)
    return found.top1.mean


def test_importing_it_is_light() -> None:
    code = "import sys, bench; dir(bench); assert not {'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        bench.evalute  # noqa: B018


def test_the_same_numbers_as_a_run(bench: Bench, tmp_path: Path) -> None:
    """Images out of the store of ``bench run``, under hard and static labels: the same students, and the same bytes."""
    import bench as api

    chosen = {"methods": ("rded",), "ipc": (1,), "seeds": (0,), "students": ("convnet2-w8",), "baselines": False}
    words = ["--methods", "rded", "--ipc", "1", "--seeds", "0", "--no-baselines", "--labels", "hard,static:fp16",
             "--students", "convnet2-w8", "--set", "protocol.epochs=2", "--set", "teacher.epochs=2",
             "--set", "teacher.arch=convnet2-w8"]  # fmt: skip
    done = bench("run", *words, "--cluster", "inline", "--store", "s", "--out", "b")
    assert done.returncode == 0, done.stderr
    asked = Request(**chosen, labels=("hard", "static:fp16"),
                    overrides={"protocol": {"epochs": 2}, "teacher": {"epochs": 2, "arch": "convnet2-w8"}})  # fmt: skip
    store, grid = Store(tmp_path / "s"), plan(asked)
    for cell in grid.stage("evaluate"):
        record = store.record(cell.id)
        assert record is not None
        labels = None
        if "labels" in cell.parents:
            from safetensors.torch import load_file

            labels = load_file(store.folder(cell.parents["labels"]) / "labels.safetensors")["logits"]
        images = image_files.load(store.folder(cell.parents["images"]))
        found = api.evaluate(images.pixels, labels, seeds=[0], student="convnet2-w8", settings={"epochs": 2})
        (row,) = found.rows
        assert {key: row[key] for key in ("top1", "oracle_top1", "curve")} == {
            key: [tuple(point) for point in record.result[key]] if key == "curve" else record.result[key]
            for key in ("top1", "oracle_top1", "curve")
        }
        if labels is not None:
            assert abs((found.label_bytes or 0) - record.result["label_bytes"]) < 40  # the labeller's name
        assert (found.protocol, found.protocol_version) == (cell.row["protocol"], cell.row["protocol_version"])


def test_ways_to_give_images_agree(digits: Images) -> None:
    expected = top1(digits.pixels)
    assert top1(digits.pixels, digits.labels) == expected
    assert top1(digits.pixels.numpy(), digits.labels.numpy()) == expected
    assert top1(digits.pixels / 255, digits.labels, value_range=(0, 1)) == expected
    assert top1(digits.pixels / 127.5 - 1, value_range=(-1, 1)) == expected
    shuffled = torch.tensor([11, 3, *[i for i in range(20) if i not in (3, 11)]])
    order = shuffled[digits.labels[shuffled].argsort(stable=True)]
    assert top1(digits.pixels[shuffled], digits.labels[shuffled]) == top1(digits.pixels[order])


def test_ways_to_give_soft_labels_agree(digits: Images) -> None:
    """Logits, probabilities, shuffled together with the images, and a callable that knows the images by heart."""
    logits = 3 * torch.randn(len(digits), CLASSES, generator=torch.Generator().manual_seed(0))
    settings = {**SHORT, "mix": "none"}
    expected = bench.evaluate(digits.pixels, logits, seeds=[0], settings=settings)
    likely = bench.evaluate(digits.pixels, logits.softmax(1), seeds=[0], settings=settings, soft="probabilities")
    assert likely.top1.mean == pytest.approx(expected.top1.mean, abs=0.01)  # kl does not see the offset of logits
    half = bench.evaluate(digits.pixels, logits.half(), seeds=[0], settings=settings)
    assert expected.label_bytes is not None and half.label_bytes is not None
    assert expected.label_bytes - half.label_bytes == pytest.approx(2 * logits.numel(), abs=8)
    seen: list[Tensor] = []

    def teacher(views: Tensor) -> Tensor:
        seen.append(views)
        return views.flatten(1)[:, :CLASSES].contiguous()

    online = bench.evaluate(digits.pixels, teacher, seeds=[0, 1], settings=settings, name="theirs")
    assert online.label_bytes is None and online.labels == "online" and online.top1.n == 2
    assert all(float(views.min()) >= 0 and float(views.max()) <= 1 for views in seen)
    frame = online.to_frame()
    assert list(frame["seed"]) == [0, 1] and set(frame["method"]) == {"theirs"} and set(frame["ipc"]) == {2}
    assert float(frame["top1"].mean()) == pytest.approx(online.top1.mean)
    assert "theirs on digits, IPC 2" in str(online) and "(n = 2)" in str(online)


def test_a_module_labels_like_any_callable(digits: Images) -> None:
    torch.manual_seed(0)
    net = models.build("convnet2-w8", CLASSES, 16, (0.5,) * 3, (0.5,) * 3).eval()
    before = torch.get_rng_state()
    assert 0 <= top1(digits.pixels, net) <= 1
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random stream is left alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p / 255, y, {}), "images are float; say which values are black and white"),
        (lambda p, y: (p / 100, y, {"value_range": (0, 1)}), r"outside value_range \(0, 1\); undo the normalisation"),
        (lambda p, y: (p[:-1], y[:-1], {}), "mine returned 1 images of class 9; expected 1|19 images"),
        (lambda p, y: (p[:, :, :8], y, {}), r"shape \(20, 3, 8, 16\), expected \(20, 3, 16, 16\)"),
        (lambda p, y: (p, y[:-1], {}), r"classes are torch.int64 \(19,\), expected integers \(20,\)"),
        (lambda p, y: (p, y.float(), {}), "classes are torch.float32"),
        (lambda p, y: (p, y, {"ipc": 3}), "for IPC 3; expected 30"),
        (lambda p, y: (p, y, {"seeds": []}), "seeds are empty"),
        (lambda p, y: (p, y, {"dataset": "digit"}), "did you mean 'digits'"),
        (lambda p, y: (p, y, {"student": "convnet9"}), "unknown student 'convnet9'"),
        (lambda p, y: (p, y, {"protocol": "comon"}), "did you mean 'common'"),
        (lambda p, y: (p, y, {"settings": {"epoch": 1}}), "did you mean 'epochs'"),
        (lambda p, y: (p, torch.rand(20, 9), {}), r"expected float \(N, 10\)"),
        (lambda p, y: (p, torch.full((20, 10), 0.1), {}), "look like probabilities; say soft="),
        (lambda p, y: (p, torch.full((20, 10), 0.097), {}), "look like probabilities; say soft="),  # cut off
        (lambda p, y: (p, torch.randn(20, 10), {"soft": "probabilities"}), "not probabilities"),
        (lambda p, y: (p // 128, y, {"value_range": (0, 1)}), "are 0 and 255; leave out value_range"),
        (lambda p, y: (p / 255, y, {"value_range": (1, 0)}), "is no range"),
        (lambda p, y: (p / 255, y, {"value_range": (0, 255)}), "from 0 to 1, next to nothing of value_range"),
        (lambda p, y: (p, lambda views: torch.full((len(views), 10), 0.1), {}), "look like probabilities; return"),
        (lambda p, y: (p, y, {"seeds": [0, 0]}), "hold one twice"),
        (lambda p, y: (p, torch.full((20, 10), torch.nan), {}), "not finite"),
        (lambda p, y: (p, lambda views: views.mean((2, 3)), {}), "mine labels with float32 of shape"),
        (lambda p, y: (p, lambda views: None, {}), "mine labels with NoneType"),
    ],
)
def test_slips_are_refused_in_one_line(digits: Images, change: Any, message: str) -> None:
    pixels, labels, more = change(digits.pixels, digits.labels)
    with pytest.raises(bench.UserError, match=message) as raised:
        bench.evaluate(pixels, labels, **{"seeds": [0], "settings": SHORT, **more})
    assert "\n" not in str(raised.value)


def test_words_of_the_command_line() -> None:
    from bench.python_api.running import words

    assert words("ipc", [1, 10]) == ["--ipc", "1,10"] and words("data_root", Path("/x")) == ["--data-root", "/x"]
    assert (
        words("no_baselines", True) == ["--no-baselines"] and words("no_baselines", False) == words("clip", None) == []
    )
    assert words("set", {"a.b": {"c": 1}, "d.e": "f"}) == ["--set", 'a.b={"c": 1}', "--set", "d.e=f"]


class Forked:
    """A command that is forked from what has imported torch, in place of ``subprocess.Popen``."""

    def __init__(self, words: list[str], **_: Any) -> None:
        done = run_command(words[3:], Path.cwd(), environment())
        self.stdout, self.stderr, self.returncode = io.StringIO(done.stdout), io.StringIO(done.stderr), done.returncode

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_run_returns_the_records_of_its_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"protocol.epochs": 1, "protocol.tests": 1}
    chosen: dict[str, Any] = {"methods": ["random_real"], "labels": "hard", "no_baselines": True, "set": short,
                              "students": "convnet2-w8",
                              "cluster": "inline", "store": tmp_path / "s", "out": "b"}  # fmt: skip
    assert len(bench.run(ipc=[1], seeds=[0, 1], dry_run=True, **chosen)) == 0
    monkeypatch.setattr(subprocess, "Popen", Forked)  # one interpreter of its own is enough
    whole = bench.run(ipc=[1], seeds=[0, 1, 2], **chosen)
    assert list(whole["seed"]) == [0, 1, 2] and set(whole["state"]) == {"done"} and whole["top1"].between(0, 1).all()
    again = bench.run(ipc=[1], seeds=[0, 1], **chosen)  # only what was asked for, of all that is in the store
    assert list(again["cell"]) == list(whole["cell"])[:2]
    assert len(bench.load_results(tmp_path / "s")) == 3
    assert "wrote b/digits.md" in capsys.readouterr().out
    with pytest.raises(bench.UserError, match="unknown method 'random'"):
        bench.run(methods=["random"], dry_run=True)
    with pytest.raises(bench.UserError, match="--ipcs"):
        bench.run(methods=["rded"], ipcs=[1])
