"""`bench published`: measured, published, Δ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import parse, published
from bench.errors import UserError
from bench.store.entries import Entry, write_jsonl

Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the verb in an empty folder, on 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("DISTILL_BENCH_STORE", raising=False)

    def run(*arguments: str) -> str:
        assert published.execute(parse(["published", *arguments])) == 0
        return capsys.readouterr().out

    return run


def measured(folder: Path, *top1: float) -> None:
    facts = {
        "dataset": "imagenet-1k", "title": "ImageNet-1K", "method": "hello", "labels": "projector", "ipc": 10,
        "student": "resnet18", "protocol": "official-hello", "protocol_version": 1, "state": "done",
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    entries = [Entry(cell=f"cell-{seed}", seed=seed, top1=value, **facts) for seed, value in enumerate(top1)]
    (folder / "imagenet-1k.records.jsonl").write_text(write_jsonl(entries), encoding="utf-8")


def line(text: str, *words: str) -> str:
    (found,) = [one for one in text.splitlines() if all(word in one.split() for word in words)]
    return found


def test_without_measurements_it_names_the_command(say: Say) -> None:
    text = say("--dataset", "imagenet-100", "--method", "hello")
    assert line(text, "hello", "48.9").split()[-2:] == ["—", "—"]
    assert "python -m bench run --methods hello --dataset imagenet-100 --ipc 1,10,50 --students resnet18" in text
    assert "--protocol official-hello" in text and "†" in text and "rded" not in text


def test_measured_published_and_the_difference(say: Say, tmp_path: Path) -> None:
    measured(tmp_path / "leaderboards", 0.42, 0.425, 0.43)
    text = say("--dataset", "imagenet-1k", "--method", "hello")
    assert line(text, "43.7", "42.5").rstrip().endswith("42.5 ± 0.5 (3)  −1.2 ± 1.2")
    assert "--ipc 1,50 --students resnet18" in text  # what is left


def test_one_seed_has_no_interval(say: Say, tmp_path: Path) -> None:
    measured(tmp_path / "boards", 0.42)
    text = say("--dataset", "imagenet-1k", "--method", "hello", "--boards", "boards")
    assert line(text, "43.7", "42.0").split()[-3:] == ["42.0", "(1)", "−1.7"]


def test_it_fits_on_100_columns(say: Say) -> None:
    table = say().partition("To measure")[0]
    assert max(map(len, table.splitlines())) <= 110  # the notes are two lines of prose
    rows = [one for one in table.splitlines() if one.startswith(("rded ", "sre2l ", "hello ", "g_vbsm "))]
    assert len(rows) > 100 and max(map(len, rows)) <= 100


PLACE = ("hello", 10, "", "resnet18")


def test_json(say: Say, tmp_path: Path) -> None:
    measured(tmp_path / "leaderboards", 0.42, 0.43)
    found = json.loads(say("--dataset", "imagenet-1k", "--json"))
    one = next(one for one in found if (one["method"], one["ipc"], one["variant"], one["student"]) == PLACE)
    assert one["value"] == 43.7 and one["delta"] == pytest.approx(-1.2)
    assert one["measured_n"] == 2 and one["measured_top1_mean"] == pytest.approx(0.425)
    assert one["label_bytes"] == 4 * 816_856 and one["command"].endswith("--protocol official-hello")
    edc = next(one for one in found if one["method"] == "edc")
    assert edc["command"] is None and edc["obstacle"] == "no plug-in edc" and edc["measured_n"] is None


def test_a_damaged_line_is_named_and_left_out(say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(tmp_path / "leaderboards", 0.42, 0.43)
    path = tmp_path / "leaderboards" / "imagenet-1k.records.jsonl"
    path.write_text("{broken\n" + path.read_text())
    assert published.execute(parse(["published", "--method", "hello", "--json"])) == 0
    done = capsys.readouterr()
    assert "left out: imagenet-1k.records.jsonl: {broken" in done.err
    assert any(one["measured_n"] for one in json.loads(done.out))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--method", "helo"), "unknown method .*'helo' \\(did you mean 'hello'"),
        (("--dataset", "digits"), "unknown dataset with published numbers 'digits'"),
        (("--dataset", "cifar10", "--method", "hello"), "nothing is published of hello on cifar10"),
        (("--store", "nowhere"), "there is no store at nowhere"),
        (("--boards", "nowhere"), "there are no boards in nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], says: str, say: Say) -> None:
    with pytest.raises(UserError, match=says) as error:
        published.execute(parse(["published", *arguments]))
    assert "\n" not in str(error.value)
