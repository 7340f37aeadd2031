"""The page of a data set: what it holds, that no name can break it, and that it is always the same bytes."""

from __future__ import annotations

import base64
import io
import random
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from bench.report_legacy.board import Row, make_rows
from bench.report_legacy.curves import HEIGHT, MOST_POINTS, WIDTH, curve_lines
from bench.report_legacy.entries import Entry, LeftOut
from bench.report_legacy.page import render_page
from bench.report_legacy.page_template import scale_of
from bench.report_legacy.pictures import Pictures, Sheet, read_pictures, write_pictures
from bench.report_legacy.scores import Scores
from PIL import Image

from bench.api import Images
from bench.errors import UserError
from bench.exchange.nearest_images import _nearest, _spread, draw_pictures
from bench.kit import images
from bench.planning import manifest
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from bench.store.record import Record, RunFacts

EVIL = "\"><script>owned=1</script><img src=x onerror=owned=2>&amp;{{ 7*7 }}</style></title>'\u202e\u0000\n|`*"
SVG = (
    '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 50" aria-label="Cost &amp; gain">'
    '<circle cx="20" cy="20" r="9" fill="currentColor"><title>HeLlO: 93.9 %</title></circle></svg>\n<!-- seal -->\n'
)


def entry(**facts: Any) -> Entry:
    usual: dict[str, Any] = {"method": "hello", "labels": "projector", "ipc": 10, "protocol": "common", "seed": 0}
    usual |= {"dataset": "digits", "title": "Digits", "student": "convnet3", "protocol_version": 1, "state": "done"}
    usual |= facts
    if usual["state"] == "done":
        done = {
            "top1": 0.9,
            "oracle_top1": 0.92,
            "image_bytes": 2000,
            "label_bytes": 40_000,
            "full_label_bytes": 600_000,
        }
        done |= {"seconds": {"teacher": 20.0, "evaluate": 5.5}, "peak_memory": 1 << 30, "epochs": 100, "images": 100}
        done |= {"curve": ((50, 0.5), (100, 0.9)), "environment": {"device": "cpu", "commit": "abc123"}}
        usual = done | usual
    place = [str(usual[key]) for key in ("method", "labels", "ipc", "student", "protocol", "seed")]
    usual.setdefault("cell", "-".join(place))
    return Entry(**usual)


def three(top1: tuple[float, float, float], **facts: Any) -> list[Entry]:
    return [entry(seed=seed, top1=value, **facts) for seed, value in enumerate(top1)]


def grid() -> list[Entry]:
    entries = []
    base = {"name": "icon-clip", "sha256": "3fa9" * 16, "bytes": 9_712_345}
    for ipc in (1, 10):
        entries += three((0.7, 0.71, 0.72), ipc=ipc, public=(base,))
        entries += three((0.9, 0.91, 0.92), ipc=ipc, method="rded", labels="teacher", label_bytes=1_300_000)
        entries += three((0.4, 0.61, 0.52), ipc=ipc, method="random_real", labels="hard", label_bytes=0)
    entries += three((0.8, 0.8, 0.8), student="resnet18")
    entries += [entry(method="sre2l", seed=0, state="failed", reason="out of memory")]
    return [*entries, *three((0.97, 0.98, 0.99), method="full_data", labels="hard", ipc=None, label_bytes=0)]


def page(entries: list[Entry], title: str = "Digits", **options: Any) -> str:
    options.setdefault("commands", lambda row: f"python -m bench run \\\n    --methods {row.base} --ipc {row.ipc}")
    return render_page(title, make_rows(entries), **options)


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


def test_every_row_is_there_without_a_script() -> None:
    read = Read(page(grid()))
    rows = make_rows(grid())
    assert len(read.all("tr", "row")) == len(read.all("tr", "more")) == len(rows)
    assert len(read.all("table", "board")) == 1
    assert read.open == []
    for control in (
        *read.all("form"),
        *read.all("button", "copy"),
        *(b for b in read.all("button") if b.get("id") == "theme"),
    ):
        assert "hidden" in control  # what needs the script is shown by it


def test_numbers_are_those_of_the_rows() -> None:
    text = page(three((0.88, 0.90, 0.92)))
    for shown in ("90.0", "± 2.0", "±5.0", "39.1 KiB", 'title="40,000 bytes"', "2.0 KiB", "0.067", 'data-v="0.9'):
        assert shown in text, shown
    assert "teacher 20 · evaluate 5.5" in text
    assert "1.0 GiB" in text


def test_groups_are_ranked_and_ties_with_the_best_are_bold() -> None:
    text = page(grid(), baselines=("random_real", "full_data"), titles={"rded": "RDED"})
    first = text[text.index("10 images per class") : text.index("Full data (reference)")]
    order = [first.index(f"<bdi>{name}</bdi></th>") for name in ("RDED", "hello")]
    assert order == sorted(order)
    assert "<i><bdi>random_real</bdi></i>" in first
    marks = [attrs["class"] for attrs in Read(text).all("td", "top1")]
    ties = [
        row.ties
        for row in sorted(make_rows(grid()), key=lambda r: (r.ipc is None, r.ipc or 0, r.student, -(r.top1.mean or -1)))
    ]
    assert ["best" in (mark or "") for mark in marks] == ties
    assert any(ties) and not all(ties)


def test_failed_cells_and_unread_records_are_named() -> None:
    text = page(grid(), left_out=[LeftOut('{"cell": 3}', "cell: not a string")])
    assert "20 of 25" not in text and "24 of 25 cells done, 1 failed" in text
    assert "out of memory" in text
    assert "1 record can&#39;t be read" in text or "1 record can't be read" in text
    assert "{&#34;cell&#34;: 3} (cell: not a string)" in text
    assert "Left out" not in page(grid())


def test_protocols_have_tables_of_their_own() -> None:
    read = Read(page(grid() + three((0.5, 0.5, 0.5), protocol="official")))
    assert len(read.all("table", "board")) == 2


def test_environments_are_told_apart_once() -> None:
    other = {"device": "cuda", "commit": "abc123"}
    text = page([*three((0.88, 0.90, 0.92))[:2], entry(seed=2, environment=other)])
    assert "2 environments</a>, which differ in device" in text
    assert text.count("abc123") == 1 + 3  # in the head, and of each cell
    assert 'id="environments"' not in page(three((0.88, 0.90, 0.92)))


def test_scores_have_columns_where_there_are_any() -> None:
    rows = make_rows(grid())
    some = {rows[0].key: Scores(hlr=0.1, ior=0.05, lrs=0.255)}
    assert ">LRS</th>" in page(grid(), scores=some) and "0.255" in page(grid(), scores=some)
    assert ">ARS</th>" not in page(grid(), scores=some)
    assert ">LRS</th>" not in page(grid(), scores={rows[0].key: Scores(hlr=0.1)})


def test_figures_stand_inline_with_their_own_titles() -> None:
    text = page(grid(), plots={"front": SVG, "other": SVG.replace(' aria-label="Cost &amp; gain"', "")})
    assert "<?xml" not in text and "<!-- seal -->" not in text
    assert "<summary>Cost &amp; gain</summary>" in text and "<summary>other</summary>" in text
    assert text.count('class="plot" open') == 1


def test_sections_without_content_are_left_out() -> None:
    text = page(grid())
    for name in ("figures", "pictures", "published"):
        assert f'id="{name}"' not in text and f'"#{name}"' not in text
    published = page(
        grid(), published="## †\n\n| a | b |\n|---|---|\n| 76<wbr>.0 † | <b>x</b> ![i](http://h/i.png) |\n"
    )
    assert (
        "<h2>†</h2>" in published
        and "<td>76.0 †</td>" in published
        and "&lt;b&gt;x&lt;/b&gt;" in published
        and "<img" not in published
    )


def test_nothing_points_outside() -> None:
    text = page(grid(), plots={"front": SVG}, pictures=drawn())
    for tag, attrs in Read(text).found:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            if name in attrs and tag != "svg":
                assert (attrs[name] or "").startswith(("#", "data:image/png;base64,")), (tag, attrs)
    assert "url(" not in text[text.index("<style>") : text.index("</style>")]
    assert "default-src 'none'" in text.replace("&#39;", "'")


# -- hostile text, and always the same bytes


def test_hostile_text_shows_as_text() -> None:
    evil = dict.fromkeys(("method", "labels", "title", "dataset", "protocol", "student"), EVIL)
    done = entry(**evil, environment={EVIL: EVIL}, cell=EVIL, parents={EVIL: EVIL})
    other = entry(**evil, seed=1, cell="other", environment={EVIL: "x"})
    failed = entry(**evil, seed=2, cell="third", state="failed", reason=EVIL)
    pictures = drawn(dataset=EVIL, classes=(EVIL,), of_classes=1, methods=(EVIL,))
    text = page(
        [done, other, failed],
        EVIL,
        titles={EVIL: EVIL},
        plots={EVIL: SVG.replace(' aria-label="Cost &amp; gain"', "")},
        pictures=pictures,
        published=EVIL,
        left_out=[LeftOut(EVIL, EVIL)],
        commands=lambda row: f"run '{EVIL}'",
    )
    read = Read(text)
    assert len(read.all("script")) == len(read.all("style")) == 1
    assert len(read.all("img")) == 1  # the sheet
    assert not any(name.startswith("on") for _, attrs in read.found for name in attrs)
    assert "\u202e" not in text and "\0" not in text
    assert "{{ 7*7 }}" in text and read.open == []


def test_the_same_rows_are_the_same_bytes_in_any_order() -> None:
    rows = make_rows(grid())
    options: dict[str, Any] = {"commands": lambda row: row.method, "plots": {"front": SVG}, "pictures": drawn()}
    expected = render_page("Digits", rows, **options)
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert render_page("Digits", rows, **options) == expected


def test_the_page_needs_no_torch() -> None:
    program = "import sys, bench.report_legacy.page; print({'torch', 'matplotlib', 'PIL'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"


# -- curves and intervals


def test_curves_span_their_box_and_end_at_the_last_epoch() -> None:
    short = entry(curve=((50, 0.5), (100, 1.0)))
    long = entry(seed=1, curve=tuple((epoch, epoch / 1000) for epoch in range(1, 1001)))
    assert curve_lines([short]) == f'<polyline points="{WIDTH / 2:g},{HEIGHT / 2:g} {WIDTH},0"/>'
    points = curve_lines([long]).partition('points="')[2].partition('"')[0].split()
    assert len(points) <= MOST_POINTS and points[-1] == f"{WIDTH},0"
    assert curve_lines([entry(curve=())]) == ""


@pytest.mark.parametrize(
    ("top1", "scale"),
    [
        ((0.72, 0.72, 0.72), (0.7, 0.8)),
        ((0.3, 0.3, 0.3), (0.3, 0.4)),
        ((1.0, 1.0, 1.0), (0.9, 1.0)),
        ((0.0, 0.9, 1.0), (0, 1)),
    ],
)
def test_a_scale_holds_its_intervals(top1: tuple[float, float, float], scale: tuple[float, float]) -> None:
    assert scale_of(tuple(make_rows(three(top1)))) == pytest.approx(scale)


def test_a_scale_of_nothing_is_the_whole() -> None:
    rows: list[Row] = make_rows([entry(state="missing")])
    assert scale_of(tuple(rows)) == (0, 1)


# -- pictures


def png(width: int, height: int) -> str:
    made = io.BytesIO()
    Image.new("L", (width, height)).save(made, format="png")
    return base64.b64encode(made.getvalue()).decode()


def drawn(methods: tuple[str, ...] = ("hello", "rded"), **facts: Any) -> Pictures:
    sheet = Sheet(methods=methods, seed=0, cell="rded-digits-ipc10-s0-1", distance=3.25, png=png(34, 20))
    usual: dict[str, Any] = {"dataset": "digits", "ipc": 10, "classes": ("zero", "one"), "of_classes": 10}
    return Pictures(**{**usual, "each": 1, "side": 16, "of_side": 16, "sheets": (sheet,), **facts})


def test_pictures_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "digits.pictures.json"
    assert read_pictures(path) is None
    write_pictures(path, drawn())
    assert read_pictures(path) == drawn()
    assert drawn().sheets[0].size == (34, 20)


@pytest.mark.parametrize("bad", ["{", "{}", '{"dataset": 3}'])
def test_a_broken_file_of_pictures_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "digits.pictures.json"
    path.write_text(bad)
    with pytest.raises(UserError, match=r"digits\.pictures\.json"):
        read_pictures(path)


@pytest.mark.parametrize("text", ["x", "aGVsbG8=", '"><script>', base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()])
def test_a_sheet_is_a_png(text: str) -> None:
    with pytest.raises(ValueError, match="base64|PNG"):
        Sheet(methods=("hello",), seed=0, cell="x", distance=0, png=text)


def test_a_page_shows_the_sheets_with_their_classes() -> None:
    text = page(grid(), pictures=drawn(), titles={"hello": "HeLlO"})
    assert "<bdi>HeLlO</bdi>, <bdi>rded</bdi>" in text
    assert '<li title="zero">' in text and 'width="34" height="20"' in text
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


def test_sheets_are_drawn_from_a_store(tmp_path: Path) -> None:
    """Two methods that share their images share a sheet; the first seed that is done is shown."""
    store = Store(tmp_path)
    asked = plan(Request(methods=("hello", "rded"), ipc=(1, 2), seeds=(0, 1)))
    manifest.keep(store, asked)
    assert draw_pictures(store, "digits") is None
    for cell in asked.stage("distill"):
        if cell.call["ipc"] == 2 and (cell.by, cell.call["seed"]) != ("rded", 0):
            pixels = torch.full((20, 3, 16, 16), 10 * len(cell.by), dtype=torch.uint8)
            with store.draft(cell.id) as draft:
                images.save(Images(pixels, torch.arange(10).repeat_interleave(2)), draft, "png")
                run = RunFacts(started="", seconds=1, peak_memory=1, environment={})
                store.commit(draft, Record(id=cell.id, cell=cell, state="done", run=run))
    made = draw_pictures(store, "digits")
    assert made is not None and draw_pictures(store, "digits") == made
    assert (made.ipc, made.each, made.side, len(made.classes)) == (2, 2, 16, 10)
    assert {sheet.methods: sheet.seed for sheet in made.sheets} == {("hello", "rded"): 1, ("random_real",): 0}
    sheet = Image.open(io.BytesIO(base64.b64decode(made.sheets[0].png)))
    assert sheet.size == made.sheets[0].size == (4 * 16 + 2 + 5, 10 * 18)
    assert sheet.convert("LA").getpixel((0, 1)) == (40, 255)  # distilled
    assert sheet.convert("LA").getpixel((16, 1))[1] == 0  # the gap
    with pytest.raises(UserError, match="expected one of"):
        draw_pictures(store, "digits", ipc=50)
