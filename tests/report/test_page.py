"""The page of a board: what it holds, that no name can break it, and that it is always the same bytes."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bench.api import Images
from bench.errors import UserError
from bench.exchange.nearest_images import _nearest, _spread, draw_grids
from bench.kit import images
from bench.planning import manifest
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.report.image_grid import ImageGrid, read_grids
from bench.report.page import CURVE, _bars, _curve
from bench.report.rows import pool, records
from bench.report.winners import first_sentence
from bench.store.artifacts import Store
from bench.store.record import Record, RunFacts
from tests.report.board_data import EVIL, entry, figure, frame_of, grid, grids, page, png, three


class Read(HTMLParser):
    """Tags with their attributes, and the text inside each."""

    VOID = frozenset({"meta", "br", "img", "input"})

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        return [
            attrs for name, attrs in self.found if name == tag and kind in ("", *(attrs.get("class") or "").split())
        ]


# -- what it holds


def test_every_row_is_there_without_a_script(tmp_path: Path) -> None:
    read = Read(page(tmp_path, grid()))
    assert len(pool(frame_of(grid()))) == 8  # full data close both tables
    assert len(read.all("tr", "row")) == len(read.all("tr", "more")) == 9
    assert len(read.all("table", "board")) == 1 and read.open == []
    theme = [button for button in read.all("button") if button.get("id") == "theme"]
    for control in (*read.all("form"), *read.all("button", "copy"), *theme):
        assert "hidden" in control  # what needs the script is shown by it


def test_numbers_are_those_of_the_rows(tmp_path: Path) -> None:
    text = page(tmp_path, three((0.88, 0.90, 0.92)))
    for shown in (
        "90.0\u00a0±\u00a02.0",
        "39.1 KiB",
        'title="40,000 bytes"',
        "2.0\u00a0KiB",
        "0.067",
        'data-v="0.9',
        "1.0 GiB",
    ):
        assert shown in text, shown
    assert "teacher 20 · evaluate 5.5" in text
    (row,) = pool(frame_of(three((0.88, 0.90, 0.92)))).itertuples()
    assert f"{100 * row.top1_low:.1f} to {100 * row.top1_high:.1f}" in text


def test_groups_are_ranked_and_the_best_mean_alone_is_bold(tmp_path: Path) -> None:
    text = page(tmp_path, grid())
    ten = text[text.index("<bdi>10 images per class") : text.index("</tbody>", text.index("<bdi>10 images per class"))]
    order = [ten.index(f">{name}<") for name in ("RDED", "HeLlO", "Random real", "SRe2L")]
    order.append(ten.index("Full data (ref.)"))
    assert order == sorted(order)
    assert "<em>Random real</em>" in ten
    assert ten.count("<strong>") == 1 and ten.index("<strong>") < order[1]


def test_failed_cells_and_unread_records_are_named(tmp_path: Path) -> None:
    text = page(tmp_path, grid(), left_out='{"cell": 3} (cell: not a string)')
    assert "21 of 22 students done (1 failed)" in text
    assert "out of memory" in text
    assert "1 record left out" in text and "{&quot;cell&quot;: 3} (cell: not a string)" in text
    assert "left out" not in page(tmp_path, grid())


def test_protocols_have_tables_and_captions_of_their_own(tmp_path: Path) -> None:
    read = Read(page(tmp_path, grid() + three((0.5, 0.5, 0.5), protocol="official")))
    assert len(read.all("table", "board")) == 2
    assert read.text["caption"] == ["Protocol common, version 1", "Protocol official, version 1"]


def test_tables_say_what_is_measured(tmp_path: Path) -> None:
    text = page(tmp_path, three((0.5, 0.5, 0.5), metric="mean IoU"))
    assert ">Mean IoU %</th>" in text and "Top-1 %" not in text
    assert ">Top-1 %</th>" in page(tmp_path, three((0.5, 0.5, 0.5)))


def test_what_environments_agree_in_is_said_once(tmp_path: Path) -> None:
    other = {"device": "cuda", "commit": "abc123"}
    text = page(tmp_path, [*three((0.88, 0.90, 0.92))[:2], entry(seed=2, environment=other)])
    assert text.count("abc123") == 1 and "device cpu, cuda" in text
    assert text.count("<br>device cpu") == 2 and text.count("<br>device cuda") == 1
    assert "<br>device" not in page(tmp_path, three((0.88, 0.90, 0.92)))


def test_scores_have_columns_where_there_are_any(tmp_path: Path) -> None:
    made = {"parents": {"images": "set"}}
    entries = [*three((0.6, 0.6, 0.6), **made), *three((0.5, 0.5, 0.5), labels="hard", label_bytes=0, **made)]
    entries += three((0.4, 0.4, 0.4), method="random_real")
    entries += three((0.97, 0.97, 0.97), method="full_data", ipc=None, labels="hard")
    assert ">LRS</th>" in page(tmp_path, entries) and ">ARS</th>" not in page(tmp_path, entries)
    assert ">LRS</th>" not in page(tmp_path, entries[:3])


def test_figures_stand_inline_with_their_titles_and_texts(tmp_path: Path) -> None:
    text = page(tmp_path, grid(), [figure("Cost & gain"), figure("Other")])
    assert text.count("<circle") == 2 and text.count("Nothing else.") == 2
    assert 'aria-label="Cost &amp; gain. One mark."' in text and "<b>Other.</b>" in text


def test_figures_that_would_make_a_page_large_are_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.page.DRAWN", len(figure().svg))
    text = page(tmp_path, grid(), [figure(), figure("Other")])
    assert text.count("<circle") == 1 and '<a href="digits/one.svg">Other</a>' in text


def test_the_board_s_own_words_frame_the_table(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        grid(),
        published="## Published\n\n| a | b |\n|---|---|\n| 76<wbr>.0 † | <b>x</b> ![i](http://h/i.png) |",
    )
    read = Read(text)
    assert (
        0
        < text.index("Which method at which label budget")
        < text.index('id="rows"')
        < text.index("How to read the tables")
    )
    assert "To reproduce" not in text and "### " not in text
    assert first_sentence(pool(frame_of(grid()))) in read.text["p"]
    assert "<td>76.0 †</td>" in text and "&lt;b&gt;x&lt;/b&gt;" in text and "<img" not in text
    assert "Published" not in page(tmp_path, grid())
    assert "a id=" in text and "&lt;a id" not in text and "&lt;details" not in text


def test_nothing_is_loaded_from_outside(tmp_path: Path) -> None:
    text = page(tmp_path, grid(), [figure()], grids())
    for tag, attrs in Read(text).found:
        for name in ("src", "xlink:href", "action", "srcset", "data"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)
        assert tag != "link" and (tag in ("a", "use") or "href" not in attrs)
    assert "url(" not in text[text.index("<style>") : text.index("</style>")]
    assert "default-src 'none'" in text.replace("&#39;", "'")


def test_a_large_board_shows_fronts_and_the_best_of_each_method_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = [one for k in range(20) for one in three((0.1, 0.1, 0.1), labels=f"stored:topk{k}+fp16", label_bytes=10**7)]
    monkeypatch.setattr("bench.report.page.MOST", 8)
    text = page(tmp_path, [*grid(), *worse])
    assert text.count('class="row"') == 9 and "stored:topk" not in text[text.index('class="board"') :]
    assert "The board has 28 rows. Here are 8" in text
    assert "The board has" not in page(tmp_path, grid())


# -- hostile text, and always the same bytes


def test_hostile_text_shows_as_text(tmp_path: Path) -> None:
    evil = dict.fromkeys(("method", "labels", "title", "dataset", "protocol", "student"), EVIL)
    done = entry(**evil, environment={EVIL: EVIL}, cell=EVIL, parents={EVIL: EVIL})
    other = entry(**evil, seed=1, cell="other", environment={EVIL: "x"})
    failed = entry(**evil, seed=2, cell="third", state="failed", reason=EVIL)
    pictures = grids(dataset=EVIL, classes=(EVIL,), of_classes=1, methods=(EVIL,))
    text = page(tmp_path, [done, other, failed], [figure(EVIL)], pictures, left_out=EVIL, published="## P\n\n" + EVIL)
    read = Read(text)
    assert len(read.all("script")) == len(read.all("style")) == 1
    assert len(read.all("img")) == 1  # the grid
    assert not any(name.startswith("on") for _, attrs in read.found for name in attrs)
    assert "\u202e" not in text and "\0" not in text
    assert "{{ 7*7 }}" in text and read.open == []


def test_the_same_rows_are_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    expected = page(tmp_path, grid(), [figure()], grids())
    for entries in (grid()[::-1], grid()[5:] + grid()[:5]):
        assert page(tmp_path, entries, [figure()], grids()) == expected


# -- curves and intervals


def curve(*entries: Any) -> str:
    frame = frame_of(list(entries))
    (row,) = pool(frame).itertuples()
    return _curve(row, {one.cell: one for one in frame.itertuples()})


def test_curves_span_their_box_and_end_at_the_last_epoch() -> None:
    assert curve(entry(curve=((50, 0.5), (100, 1.0)))) == '<polyline points="50,15 100,0"/>'
    points = curve(entry(curve=tuple((epoch, epoch / 1000) for epoch in range(1, 1001)))).split('"')[1].split()
    assert len(points) <= CURVE and points[-1] == "100,0"
    assert curve(entry(curve=())) == ""


def test_nothing_unknown_is_shown_by_its_name_in_python(tmp_path: Path) -> None:
    text = page(tmp_path, [*grid(), entry(seed=5, curve=(), seconds={}, peak_memory=None, label_bytes=None)])
    assert not any(word in "".join(Read(text).text["td"]) for word in ("None", "nan", "NaN", "<NA>"))


@pytest.mark.parametrize(
    ("top1", "ends"),
    [((0.745, 0.75, 0.755), (0.7, 0.8)), ((0.99, 0.99, 0.99), (0.9, 1.0)), ((0.0, 0.9, 1.0), (0, 1))],
)
def test_a_scale_holds_its_intervals(top1: tuple[float, float, float], ends: tuple[float, float]) -> None:
    (row,) = records(pool(frame_of(three(top1, test_images=100_000))))
    bars = _bars([row])
    assert (bars["low"], bars["high"]) == pytest.approx(ends)
    low, mean, high = bars["at"][row.Index]
    assert 0 <= low <= mean <= high <= 100 and (mean == pytest.approx(50) or top1[0] != 0.745)


def test_rows_without_numbers_are_blank(tmp_path: Path) -> None:
    text = page(tmp_path, [entry(state="missing")])
    assert ">0/1<" in text and "intervals drawn from 0 to 100 %" in text and ">missing<" in text
    assert '<td class="n" data-v="">—</td>' in text and "None" not in text


# -- distilled images


def test_grids_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "digits.pictures.json"
    assert read_grids(path) is None
    path.write_text(grids().render())
    assert read_grids(path) == grids()
    assert grids().sheets[0].size == (34, 20)


@pytest.mark.parametrize("bad", ["{", "{}", '{"dataset": 3}'])
def test_a_broken_file_of_grids_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "digits.pictures.json"
    path.write_text(bad)
    with pytest.raises(UserError, match=r"digits\.pictures\.json"):
        read_grids(path)


@pytest.mark.parametrize("text", ["x", "aGVsbG8=", '"><script>', base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()])
def test_a_grid_is_a_png(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        ImageGrid(methods=("hello",), seed=0, cell="x", distance=0, png=text)


def test_a_page_shows_the_grids_with_their_classes(tmp_path: Path) -> None:
    text = page(tmp_path, grid(), pictures=grids())
    assert "<bdi>HeLlO</bdi>, <bdi>RDED</bdi>" in text
    assert '<li title="zero">' in text and 'width="34" height="20"' in text and png(34, 20) in text
    assert "2 of 10 classes" in text and "the first 1 of them" in text


def test_classes_are_spread_evenly() -> None:
    assert _spread(10, 10) == list(range(10))
    assert _spread(100, 10) == list(range(0, 100, 10))
    assert _spread(3, 10) == [0, 1, 2]


def test_the_nearest_is_the_nearest() -> None:
    candidates = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own = candidates[[7, 31]].clone()
    own[0, 0, 0, 0] ^= 3
    assert torch.equal(_nearest(own, candidates), candidates[[7, 31]])


def test_grids_are_drawn_from_a_store(tmp_path: Path) -> None:
    """Two methods that share their images share a grid; the first seed that is done is shown."""
    store = Store(tmp_path)
    asked = plan(Request(methods=("hello", "rded"), ipc=(1, 2), seeds=(0, 1)))
    manifest.keep(store, asked)
    assert draw_grids(store, "digits") is None
    for cell in asked.stage("distill"):
        if cell.call["ipc"] == 2 and (cell.by, cell.call["seed"]) != ("rded", 0):
            pixels = torch.full((20, 3, 16, 16), 10 * len(cell.by), dtype=torch.uint8)
            with store.draft(cell.id) as draft:
                images.save(Images(pixels, torch.arange(10).repeat_interleave(2)), draft, "png")
                run = RunFacts(started="", seconds=1, peak_memory=1, environment={})
                facts = {"state": "done", "run": run, "files": store.facts(draft)}
                store.commit(draft, Record(id=cell.id, cell=cell, **facts))
    made = draw_grids(store, "digits")
    assert made is not None and draw_grids(store, "digits") == made
    assert (made.ipc, made.each, made.side, len(made.classes)) == (2, 2, 16, 10)
    assert {one.methods: one.seed for one in made.sheets} == {("hello", "rded"): 1, ("random_real",): 0}
    sheet = Image.open(io.BytesIO(base64.b64decode(made.sheets[0].png)))
    assert sheet.size == made.sheets[0].size == (4 * 16 + 2 + 5, 10 * 18)
    assert sheet.convert("LA").getpixel((0, 1)) == (40, 255)  # distilled
    assert sheet.convert("LA").getpixel((16, 1))[1] == 0  # the gap
    with pytest.raises(UserError, match="expected one of"):
        draw_grids(store, "digits", ipc=50)
    replaced = next(store.folder(made.sheets[0].cell).rglob("*.png"))
    replaced.write_bytes(replaced.read_bytes() + b"x")
    with pytest.raises(UserError, match="is not what its record says; bench run makes it again"):
        draw_grids(store, "digits")
