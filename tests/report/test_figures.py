"""Figures: they show the rows and nothing else, always as the same bytes, whatever names they meet."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree as Tree

import numpy as np
import pandas as pd
import pytest

from bench.report.figures import Figure, draw, draw_figures, kept
from bench.report.figures.charts import of_board, on_lines, storage
from bench.report.figures.drawing import INK, SHEET, _lines, _name_lines, duration, set_scale, short
from bench.report.figures.looks import GREY, MARKERS, PALETTE, looks
from bench.report.results import to_frame
from bench.report.rows import pool
from bench.store.entries import Entry
from bench.store.predictions import SUFFIX, pack
from tests.report.board_data import BACKBONE, entry, grid, three

HOSTILE = [
    "<script>alert('1')</script>&amp;",
    "$\\frac{1$ ^_{",
    "w" * 300,
    "\u202eשלום",
    "データ蒸留",
    "a|b\n\x00c",
    'id="tip:',
]


def applied() -> Any:
    """The style sheet alone."""
    import matplotlib.style

    return matplotlib.style.context(SHEET, after_reset=True)


def drawn(entries: list[Entry], folder: Path | None = None) -> dict[str, Figure]:
    """The figures by name without the folder."""
    frame = to_frame(entries)
    with TemporaryDirectory() as place:
        found = draw_figures(pool(frame), frame, folder or Path(place))
    return {one.name.partition("/")[2]: one for one in found}


@cache
def usual() -> dict[str, Figure]:
    """The figures of :func:`grid`, drawn once."""
    return drawn(grid())


def marks(entries: list[Entry]) -> dict[str, dict[str, set[tuple[float, float]]]]:
    """Figure → method → what its marks show: (x, y), both rounded; † is in front of published ones."""
    frame, found = to_frame(entries), {}
    with applied():
        for chart in of_board(pool(frame), frame):
            own: dict[str, set[tuple[float, float]]] = {}
            for line in _lines(chart).axes[0].lines if chart.form in ("line", "step") else ():
                if line.get_marker() not in ("None", None, ""):
                    hollow = "† " if line.get_markerfacecolor() == "none" else ""
                    places = zip(line.get_xdata(), line.get_ydata(), strict=True)
                    own.setdefault(hollow + str(line.get_label()), set()).update(
                        (round(float(x), 1), round(float(y), 1)) for x, y in places
                    )
            found[chart.name] = {method: places for method, places in own.items() if places}
    return found


def words(figure: Figure) -> list[str]:
    """The texts of a figure."""
    return ["".join(node.itertext()) for node in Tree.fromstring(figure.svg).iter() if node.tag.endswith("text")]


def test_files_have_short_names_and_hold_what_is_returned(tmp_path: Path) -> None:
    found = drawn(grid(), tmp_path)
    assert list(found) == ["labels-ipc1", "labels-ipc10", "ipc-hard", "ipc-online", "bytes", "time", "storage"]
    for name, one in found.items():
        assert (tmp_path / f"digits/{name}.svg").read_text(encoding="utf-8") == one.svg
        assert one.title and one.caption and one.alt.startswith(one.title)


def test_marks_are_the_numbers_of_the_rows() -> None:
    found = marks(grid())
    assert found["labels-ipc10"] == {"HeLlO": {(40_000, 71)}, "RDED": {(1_300_000, 91)}, "Random real": {(0, 51)}}
    assert found["bytes"]["HeLlO"] == {(40_000 + 2000 + BACKBONE["bytes"], 71)}  # images + labels + frozen backbone
    assert {x for own in found["time"].values() for x, _ in own} == {25.5}
    assert found["ipc-online"]["RDED"] == {(1, 91), (10, 91)}


def test_lines_are_named_at_their_ends_and_references_are_there() -> None:
    assert {"HeLlO 71.0", "RDED 91.0", "Random real 51.0", "Full data 98.0"} <= set(words(usual()["labels-ipc10"]))
    caption = usual()["labels-ipc10"].caption
    assert "Student convnet3, protocol common, version 1." in caption and "n = 3 distilled sets" in caption


def test_the_best_within_a_budget_needs_a_measured_baseline() -> None:
    """Random real images were measured with hard labels alone, so HeLlO's 71 % is not called the best."""
    assert "Random real, hard, 51.0 %" in usual()["labels-ipc10"].caption
    alone = drawn([one for one in grid() if one.method != "random_real"])["labels-ipc10"]
    assert "Best mean" not in alone.caption


def test_two_runs_are_the_same_bytes_in_any_order_and_whatever_the_user_set() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "xtick.direction": "in", "svg.fonttype": "path", "text.usetex": False}):
        mine = dict(mpl.rcParams)
        again = drawn(grid()[::-1])
        assert dict(mpl.rcParams) == mine
    assert again == usual()


def test_another_process_gives_the_same_bytes() -> None:
    code = "from tests.report.test_figures import usual; import hashlib;"
    code += "print(hashlib.sha256(''.join(one.svg for one in usual().values()).encode()).hexdigest())"
    where = {
        **os.environ,
        "PYTHONHASHSEED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path])),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where, check=True)
    assert done.stdout.strip() == hashlib.sha256("".join(one.svg for one in usual().values()).encode()).hexdigest()


def test_importing_loads_neither_matplotlib_nor_torch() -> None:
    code = (
        "import sys, bench.report.figures, bench.report.page; print({'matplotlib', 'torch', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_figures_take_the_colour_of_their_page_and_hold_no_date() -> None:
    for one in usual().values():
        assert INK not in one.svg and "currentColor" in one.svg and "var(--ink" in one.svg
        assert "<metadata" not in one.svg and "<?xml" not in one.svg


@pytest.mark.parametrize("count", [1, 2, 3])
def test_intervals_are_drawn_from_three_distilled_sets_on_and_never_widen_the_panel(count: int) -> None:
    entries = [
        entry(seed=seed, top1=0.5 + 0.1 * seed, method=name) for seed in range(count) for name in ("hello", "rded")
    ]
    figure = drawn(entries)["labels-ipc10"]
    assert ("95 % intervals" in figure.caption) == (count >= 3)
    assert ("stroke-opacity: 0.5" in figure.svg.replace("stroke-opacity: 0.25", "")) == (count >= 3)
    ticks = [float(text) for text in words(figure) if text.replace(".", "").isdigit()]
    mean = 100 * (0.5 + 0.05 * (count - 1))
    assert ticks and all(abs(tick - mean) < 5.01 for tick in ticks)  # two equal means: the least span


def test_nothing_measured_is_no_figure() -> None:
    assert drawn([entry(state="missing"), entry(seed=1, state="failed")]) == {}
    assert "labels-ipc10" not in drawn([entry(label_bytes=None)])


@pytest.mark.parametrize(("missing", "figure"), [("image_bytes", "bytes"), ("seconds", "time")])
def test_what_was_not_measured_is_left_out(missing: str, figure: str) -> None:
    known, unknown = entry(method="rded"), entry(**{missing: {} if missing == "seconds" else None})
    assert set(marks([known, unknown])[figure]) == {"RDED"}


def test_no_spread_of_accuracies_bytes_or_times() -> None:
    assert len(drawn([entry(top1=top1, method=name, label_bytes=8) for name, top1 in (("a", 1.0), ("b", 0.0))])) == 3
    assert len(drawn([entry(labels="hard", label_bytes=0, seed=seed) for seed in (0, 1)])) == 3


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_break_nothing(name: str, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"method": name, "labels": f"{name} of {name}", "student": name, "title": name}
    facts |= {"protocol": name, "dataset": f"digits {name}"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn(
            [entry(**facts), entry(**facts | {"student": "other", "label_bytes": None, "seconds": {}})], tmp_path
        )
    for path in tmp_path.rglob("*.svg"):
        assert path.parent.parent == tmp_path and str(path.relative_to(tmp_path)).isascii() and len(path.name) < 255
        tags = {node.tag.partition("}")[2] for node in Tree.parse(path).getroot().iter()}
        assert tags <= {"svg", "g", "path", "use", "defs", "text", "tspan", "style", "clipPath", "rect"}
    (one,) = [figure for kind, figure in found.items() if kind.startswith("labels-ipc10")]
    assert f"{short(name)} 90.0" in words(one)


def test_each_student_and_protocol_has_figures_of_its_own_and_students_share_a_map() -> None:
    found = drawn([*grid(("convnet3", "mlp")), *three((0.5, 0.6, 0.7), protocol="official", method="sre2l")])
    assert {"labels-ipc10", "labels-ipc10-common-mlp", "labels-ipc10-official-convnet3", "students-ipc10"} <= set(found)
    assert "SRe2L 60.0" in words(found["labels-ipc10-official-convnet3"])
    assert not any("SRe2L" in text for text in words(found["labels-ipc10"]))
    assert {"convnet3", "mlp", "HeLlO", "RDED", "Random real", "71.0", "91.0"} <= set(words(found["students-ipc10"]))
    assert "students-ipc10" not in usual()


def test_figures_say_what_is_measured() -> None:
    found = drawn([entry(metric="mean IoU", seed=seed) for seed in (0, 1)])
    assert all("mean IoU (%)" in words(one) for one in found.values())
    assert "top-1 accuracy (%)" in words(usual()["labels-ipc1"])


def test_published_numbers_are_hollow_and_never_on_a_line() -> None:
    facts: dict[str, Any] = {
        "dataset": "imagenet-1k",
        "student": "resnet18",
        "labels": "stored:fp16",
        "label_bytes": 6 << 30,
    }
    entries = [entry(method="sre2l", protocol="official-sre2l", top1=0.2, **facts), entry(protocol="common", **facts)]
    found, figure = marks(entries), drawn(entries)["labels-ipc10-official-sre2l"]
    theirs = {(round(float(x), -8), y) for x, y in found["labels-ipc10-official-sre2l"]["† SRe2L"]}
    assert (6_100_000_000, 21.3) in theirs and "published" in figure.caption
    assert "SRe2L 20.0" in words(figure) and "SRe2L 21.3" not in words(figure)
    assert not any("†" in name for name in found["labels-ipc10"])  # another recipe


# -- classes


def test_accuracy_per_class_comes_from_kept_predictions(tmp_path: Path) -> None:
    true = np.repeat(np.arange(3, dtype=np.uint16), 4)
    guess = np.array([0, 0, 0, 0, 1, 1, 0, 0, 2, 0, 0, 0], dtype=np.uint16)
    path = tmp_path / f"digits{SUFFIX}"
    path.write_bytes(pack({"kept": (guess, true)}))
    frame = to_frame([entry(cell="kept", top1=7 / 12), entry(cell="other", method="rded")])
    frame["predictions"] = [str(path) if cell == "kept" else "" for cell in frame["cell"]]
    (one,) = [one for one in draw_figures(pool(frame), frame, tmp_path) if "classes" in one.name]
    assert one.name == "digits/classes-ipc10"
    assert {"HeLlO", "100.0", "50.0", "25.0"} <= set(words(one)) and "RDED" not in words(one)


STEPS = {"hello": [(2, 0.9), (5, 0.8), (10, 0.7)], "rded": [(2, 1.0), (5, 0.6), (10, 0.5)]}


def in_steps(protocol: str = "continual-3") -> list[Entry]:
    found = [entry(method="full_data", labels="hard", ipc=None, protocol=protocol, steps=((2, 1.0), (10, 0.95)))]
    for method, seed in ((method, seed) for method in STEPS for seed in range(3)):
        steps = tuple((classes, top1 - 0.02 * seed) for classes, top1 in STEPS[method])
        facts: dict[str, Any] = {"method": method, "labels": "projector" if method == "hello" else "teacher"}
        facts |= {"protocol": protocol, "seed": seed, "metric": "mean top-1", "cell": f"{protocol}-{method}-{seed}"}
        found.append(entry(top1=sum(top1 for _, top1 in steps) / 3, steps=steps, **facts))
    return found


def test_steps_show_the_mean_after_each_with_its_interval() -> None:
    found = drawn(in_steps())
    assert next(iter(found)) == "steps-ipc10-online"  # a page shows it first
    shown = marks(in_steps())["steps-ipc10-online"]
    assert shown == {"HeLlO": {(2, 88), (5, 78), (10, 68)}, "RDED": {(2, 98), (5, 58), (10, 48)}}
    assert {"RDED 48.0", "HeLlO 68.0", "Full data 95.0"} <= set(words(found["steps-ipc10-online"]))
    both = drawn([*in_steps(), *in_steps("continual-5")])
    assert sum(name.startswith("steps") for name in both) == 2
    assert not any(name.startswith("steps") for name in usual())


def test_students_of_one_set_count_as_one_in_steps() -> None:
    steps = {(0, 0): 0.5, (0, 1): 0.7, (1, 0): 0.9}
    entries = [
        entry(cell=f"{seed}-{student}", seed=seed, student_seed=student, top1=top1, steps=((3, top1),))
        for (seed, student), top1 in steps.items()
    ]
    assert marks(entries)["steps-ipc10-online"] == {"HeLlO": {(3, 75)}}


@pytest.mark.parametrize("count", [1, 11, 1000])
def test_many_classes_fit(count: int) -> None:
    steps = tuple((classes, 1 / classes) for classes in range(1, count + 1, max(1, count // 100)))
    figure = drawn([entry(steps=steps)])["steps-ipc10-online"]
    assert 1 <= sum(text.replace(",", "").isdigit() for text in words(figure)) <= 24


# -- storage


def test_ways_to_label_that_weigh_the_same_share_a_line(tmp_path: Path) -> None:
    weights = pd.DataFrame(
        [
            (method, labels, ipc, weight * ipc)
            for ipc in (1, 10)
            for method, labels, weight in (
                ("a", "stored:fp16", 1000), ("b", "stored:fp16 of ensemble", 1001), ("a", "projector", 50),
                ("b", "projector", 90), ("a", "hard", 0),
            )
        ],
        columns=["method", "labels", "ipc", "bytes"],
    )  # fmt: skip
    images = pd.Series({1: 10.0, 10: 100.0})
    assert set(storage(weights, images).data["line"]) == {"stored:fp16", "projector (a)", "projector (b)"}
    svg = draw(storage(weights, images), tmp_path / "set.svg", png=True)
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "set.svg").read_text(encoding="utf-8") == svg
    assert {"stored:fp16 9.8 KiB", "images 100 B"} <= set(words(Figure("set", "", "", svg)))
    assert draw(storage(weights[::-1], images), tmp_path / "again.svg") == svg


def test_what_is_still_right_is_kept_and_all_else_is_noticed(tmp_path: Path) -> None:
    entries = grid()
    frame = to_frame(entries)
    rows = pool(frame)
    first, path = drawn(entries, tmp_path), tmp_path / "digits/labels-ipc10.svg"
    assert [one.svg for one in draw_figures(rows, frame, tmp_path, write=False)] == [one.svg for one in first.values()]
    stamp = path.stat().st_mtime_ns
    assert drawn(entries, tmp_path) == first and path.stat().st_mtime_ns == stamp
    for spoiled in (first["labels-ipc10"].svg.replace("HeLlO", "HELLO"), "", "no picture"):
        path.write_text(spoiled, encoding="utf-8")
        missing = [one.name for one in draw_figures(rows, frame, tmp_path, write=False) if not one.svg]
        assert missing == ["digits/labels-ipc10"]
    assert drawn(entries, tmp_path) == first
    more = to_frame([*entries[:-1], entry(seed=7, top1=0.1)])  # other means: the picture is another's
    (chart,) = [one for one in of_board(pool(more), more) if one.name == "labels-ipc10"]
    assert not kept(chart, path)


# -- looks


def test_no_two_methods_look_alike() -> None:
    names = [f"m{index}" for index in range(40)] + [f"m0[rank={rank}]" for rank in range(5)]
    found = looks(names)
    assert len({(look.colour, look.marker) for look in found.values()}) == len(names)
    assert {found[f"m0[rank={rank}]"].colour for rank in range(5)} == {found["m0"].colour}


def test_a_method_looks_the_same_on_every_board_and_strangers_take_the_next_free() -> None:
    alone, among = looks(["rded"]), looks(["rded", "a_stranger", "hello", "sre2l", "z[x=1]"])
    assert alone["rded"] == among["rded"]
    installed = looks(["external", "g_vbsm", "hello", "promptable", "rded", "sre2l"])
    taken = {(look.colour, look.marker) for look in installed.values()}
    assert len({look.colour for look in installed.values()}) == len(installed)
    assert (among["a_stranger"].colour, among["a_stranger"].marker) not in taken


def test_baselines_are_grey() -> None:
    assert looks(["random_real"])["random_real"].colour == GREY and GREY not in PALETTE
    assert len(set(MARKERS)) == len(MARKERS)


@pytest.mark.parametrize("paper", ["#fdfdfc", "#15171a"])
def test_colours_are_seen_on_light_and_dark(paper: str) -> None:
    from matplotlib.colors import to_rgb

    def light(colour: str) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    for colour in (*PALETTE, GREY):  # WCAG 2.2, success criterion 1.4.11
        lighter, darker = sorted((light(colour), light(paper)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_long_names_keep_both_ends() -> None:
    assert short("a" * 30 + "z" * 30) == "a" * 16 + "…" + "z" * 7
    assert short("short") == "short" and len(short("w" * 99)) <= 24


# -- axes


def axes() -> Any:
    from matplotlib.figure import Figure as Canvas

    return Canvas().subplots()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 1024, 2**20], ["0", "1 KiB", "10 KiB", "100 KiB", "1 MiB"]),
        ([3000], ["1 KiB", "10 KiB"]),
        ([0, 2**40], ["0", "10 KiB", "1 MiB"]),
        ([0], ["0", "1 KiB"]),
    ],
)
def test_byte_ticks_are_round(values: list[int], names: list[str]) -> None:
    with applied():
        own = axes()
        set_scale(own, "x", "bytes", pd.Series(values, dtype="float64"))
        shown = [text.get_text() for text in own.get_xticklabels()]
        assert shown[: len(names)] == names
        low, high = own.get_xlim()
        assert low < min(values) and max(values) < high


@pytest.mark.parametrize("count", [1, 2, 7, 12, 40])
def test_labels_never_touch(count: int) -> None:
    with applied():
        own = axes()
        _name_lines(own, [(1.0 - 0.001 * index, f"m{index}", INK) for index in range(count)])
        places = sorted(text.xyann[1] for text in own.texts)
        assert all((b - a) * own.figure.get_figheight() > 0.06 * 3.6 for a, b in pairwise(places))
        assert places[0] >= 0 and places[-1] <= 1


def test_the_line_of_a_method_is_the_best_that_a_budget_affords() -> None:
    points = pd.DataFrame({"method": "a", "cost": [5, 1, 3, 1], "mean": [90.0, 50.0, 40.0, 60.0]})
    found = on_lines(points, "cost")
    assert found.loc[found["kind"] == "", ["cost", "mean"]].values.tolist() == [[1, 60.0], [5, 90.0]]


def test_times_are_worded() -> None:
    assert [duration(value) for value in (0.9, 30, 90, 7200)] == ["0.9 s", "30 s", "1.5 min", "2 h"]
