"""``bench show``: the record of a cell, and its images as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.cli import main
from bench.exchange.image_grid import MOST_CLASSES, MOST_EACH, draw
from bench.format import size
from bench.store.artifacts import Store
from bench.store.record import Record
from tests.cli.conftest import Run


def draw_set(root: Path, classes: int, each: int, side: int = 4) -> Path:
    for label in range(classes):
        (root / f"{label:05d}").mkdir(parents=True)
        for index in range(each):
            pixels = np.full((side, side, 3), (label, index, 200), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{label:05d}" / f"class{label:05d}_id{index:05d}.png")
    return root


def colours(picture: Path) -> set[tuple[int, int]]:
    """(class, image) of every tile that can be seen."""
    pixels = np.asarray(Image.open(picture)).reshape(-1, 3)
    return {(r, g) for r, g, b in np.unique(pixels, axis=0).tolist() if b == 200}


def test_every_image_stands_in_the_line_of_its_class(tmp_path: Path) -> None:
    drawn = draw(draw_set(tmp_path / "set", 3, 2), tmp_path / "sheet.png")
    assert str(drawn) == "3 classes × 2 images"
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    rows = [np.flatnonzero((pixels == (label, 1, 200)).all(2).any(1)) for label in range(3)]
    assert [len(row) for row in rows] == [48, 48, 48]  # 4 px enlarged twelve times
    assert rows[0].max() < rows[1].min() and rows[1].max() < rows[2].min()
    columns = [np.flatnonzero((pixels == (1, index, 200)).all(2).any(0)) for index in range(2)]
    assert columns[0].max() < columns[1].min()


def test_a_large_set_is_cut_and_says_so(tmp_path: Path) -> None:
    drawn = draw(draw_set(tmp_path / "set", MOST_CLASSES + 1, MOST_EACH + 3, side=1), tmp_path / "sheet.png")
    assert str(drawn) == "100 classes (of 101) × 20 images (of 23)"
    shown = colours(tmp_path / "sheet.png")
    assert (99, 19) in shown and (100, 0) not in shown and (0, 20) not in shown


def test_a_picture_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    made = draw_set(tmp_path / "set", 2, 2)
    for name in ("a.png", "b.png"):
        draw(made, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"set", "a.png", "b.png"}


def test_a_page_says_what_where_and_how_much_and_json_all(finished: Run) -> None:
    record = finished.record("rded-stored-fp16-digits-ipc2-convnet2-w8-s0")
    said = finished.bench("show", record.id)
    lines = [line.split(maxsplit=1) for line in said.stdout.splitlines()]
    page = {line[0]: line[-1].rstrip() for line in lines[1:]}
    assert said.returncode == 0 and lines[0] == [record.id]
    assert "labels stored:fp16, ipc 2, student convnet2-w8, protocol tiny, dataset" in page["what"]
    assert page["state"].startswith("done in ") and f"from {record.run.started[:10]} " in page["state"]
    assert f"top1 {record.result['top1']:.4g}, " in page["result"] and "curve" not in page["result"]
    assert page["bytes"] == f"images {size(record.result['image_bytes'])}, labels {size(record.result['label_bytes'])}"
    assert page["files"].startswith("predictions.safetensors, ")
    assert (page["images"], page["labels"]) == (record.cell.parents["images"], record.cell.parents["labels"])
    assert page["environment"].endswith(f"commit {record.run.environment['commit']}")
    assert page["in"] == str(finished.store.folder(record.id))
    assert Record.parse(finished.bench("show", record.id, "--json").stdout) == record


def test_images_of_a_distilled_set_and_of_what_was_learned_from_it(finished: Run, tmp_path: Path) -> None:
    said = finished.bench("show", finished.cell("rded-digits-ipc2-s0"))
    assert said.returncode == 0 and "--images rded-digits-ipc2-s0" in said.stdout
    for start, name in (("rded-digits-ipc2-s0", "a.png"), ("rded-hard-digits-ipc2-convnet2-w8-s0", "b.png")):
        done = finished.bench("show", finished.cell(start), "--images", tmp_path / name)
        assert done.returncode == 0 and "drew 10 classes × 2 images" in done.stdout
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_glob_or_a_beginning_of_several_lists_ids_and_states(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sorted(finished.store.ids("cells"))
    for word in ("rded-*", "rded-digits", "*"):
        assert main(["show", word, "--store", str(finished.store.root)]) == 0
        found = [f"{one}  done" for one in ids if one.startswith(word.rstrip("*"))]
        assert capsys.readouterr().out.splitlines() == found and len(found) > 1
    store = Store(tmp_path / "store")
    for index in range(52):
        (store.root / "failures" / f"odd-{index:02d}.json").touch()
    assert main(["show", "odd", "--store", str(store.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::50] == ["odd-00  failed", "and 2 more"] and len(lines) == 51
    assert main(["show", "even-1", "--store", str(store.root)]) == 2
    assert "; expected one of 52 ids; bench show '*' lists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("start", "file", "words"),
    [
        ("teacher-digits", "x.png", "has no images"),
        ("rded-digits-ipc2-s0", "nowhere/x.png", "can't be written"),
        ("rded-digits-ipc2", "x.png", "is the beginning of"),
        ("", "x.png", "unknown cell ''"),
        ("rded-digits-ipc3", "x.png", "did you mean"),
        ("rded-digits-ipc3", "x.png", "bench show 'rded-*' lists"),
        ("rded-*", "x.png", "'rded-*' matches "),
    ],
)
def test_bad_input_is_one_line(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str, file: str, words: str
) -> None:
    code = main(["show", start, "--images", str(tmp_path / file), "--store", str(finished.store.root)])
    printed = capsys.readouterr().err
    assert code == 2 and printed.count("\n") == 1
    assert words in printed
    assert not (tmp_path / file).exists()
