"""What a board says: pooled like with like, claims nothing it has not seen, and shows any text as it is."""

from __future__ import annotations

import html
import re
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from bench import format as fmt
from bench.report.board import render
from bench.report.publish import render_csv
from bench.report.results import to_frame
from bench.report.rows import pool
from bench.report.winners import first_sentence, winners
from bench.store.entries import Entry, in_order
from tests.report.board_data import BACKBONE, entry, three

EVERY = ("0 B", "10 KiB")


def rows_of(entries: list[Entry]) -> pd.DataFrame:
    return pool(to_frame(in_order(entries)))


def board(entries: list[Entry], **texts: str) -> str:
    frame = to_frame(in_order(entries))
    return render("Digits", frame, pool(frame), **texts)


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of every table as a reader sees them, by heading."""
    found: list[list[dict[str, str]]] = []
    heads: list[str] = []
    cells: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            cells = []
        elif token.type == "inline" and token.level >= 4:
            cells.append("".join(child.content for child in token.children or ()).replace(fmt.NO_BREAK, " "))
        elif token.type == "tr_close":
            if len(found[-1]) == 0 and not heads:
                heads = cells
            else:
                found[-1].append(dict(zip(heads, cells, strict=True)))
        elif token.type == "table_close":
            heads = []
    return found


def main(text: str) -> list[list[dict[str, str]]]:
    """Tables of one IPC each, without what is folded away behind them."""
    return [table for table in tables(text) if "n" in table[0]]


# -- rows


def test_a_row_shows_what_was_measured() -> None:
    text = board(three((0.88, 0.90, 0.92), public=(BACKBONE,)))
    (row,), (details,) = tables(text)
    assert row == {
        "Method": "HeLlO", "Labels": "projector ¹", "n": "3", "Top-1 %": "90.0 ± 2.0",
        "95 % interval": "85.0 to 95.0", "Label bytes": "39.1 KiB + 9.3 MiB", "Pareto": "●",
    }  # fmt: skip
    assert details == {
        "Method": "HeLlO", "Labels": "projector ¹", "Oracle %": "92.0", "Images": "2.0 KiB",
        "Label share": "0.067",  # 40,000 / (300 · 100 · 10 · 2)
        "Seconds": "26",
    }  # fmt: skip
    assert "[HeLlO][hello]" in text and "[hello]: https://arxiv.org/abs/2408.08201" in text
    assert "[projector][labels]" in text and '<a id="labels"></a>' in text
    widths = {len(line) for line in text.splitlines() if line.startswith("| ") and "HeLlO" in line[:12]}
    assert len(widths) == 2  # the source is aligned, too


def test_only_the_best_mean_is_bold_and_below_five_sets_nothing_is_claimed() -> None:
    entries = three((0.90, 0.91, 0.92)) + three((0.895, 0.91, 0.92), method="rded") + three((0.1,) * 3, method="sre2l")
    text = board(entries)
    assert len(re.findall(r"\*\*\d\d\.\d\s", text)) == 1 and "*" not in [row["Δ to best"][-1:] for row in main(text)[0]]
    assert "with 3 distilled sets per row no difference is claimed" in text
    assert main(text)[0][0]["Δ to best"] == ""
    many = [entry(seed=seed, top1=0.9 + 0.002 * (seed % 3)) for seed in range(6)]
    many += [entry(seed=seed, top1=0.5 + 0.003 * (seed % 2), method="rded") for seed in range(6)]
    many += [entry(seed=seed, top1=0.9 + 0.003 * (seed % 2), method="sre2l") for seed in range(6)]
    shown = {row["Method"]: row["Δ to best"] for row in main(board(many))[0]}
    assert shown["RDED"].endswith("*") and not shown["HeLlO"].endswith("*") and not shown["SRe2L"].endswith("*")
    assert "no difference is claimed" not in board(many)


@pytest.mark.parametrize(
    ("best", "other", "said"),
    [
        ((0.9, 0.91, 0.92), (0.5, 0.52), "−39.5 (2 pairs)"),
        ((0.9, 0.92), (0.5, 0.52, 0.9), "−40.0 (2 pairs)"),
        ((0.9, 0.91), (0.5, 0.52), "−39.5"),
        ((0.9, 0.91), (0.5,), "−40.0 (1 pair)"),
        ((0.9, 0.91, 0.92, 0.9), (0.5, 0.51, 0.55), "−39.0 (−44.0 to −34.0, 3 pairs)"),
    ],
)
def test_pairs_are_counted_where_seeds_differ_and_two_make_no_interval(
    best: tuple[float, ...], other: tuple[float, ...], said: str
) -> None:
    entries = [entry(seed=seed, top1=top1) for seed, top1 in enumerate(best)]
    entries += [entry(seed=seed, top1=top1, method="rded") for seed, top1 in enumerate(other)]
    text = board([*entries, entry(method="full_data", labels="hard", ipc=None)])
    assert [row["Δ to best"] for row in main(text)[0]] == ["", said, ""]
    sets = "–".join(map(str, sorted({len(best), len(other)})))
    assert f"with {sets} distilled sets per row no difference is claimed" in text


def test_one_image_in_each_of_three_seeds_is_no_evidence() -> None:
    """The committed digits board: rows that differ by exactly one test image of 360 in every seed."""
    entries = three((0.9, 0.91, 0.92)) + three((0.9 - 1 / 360, 0.91 - 1 / 360, 0.92 - 1 / 360), method="rded")
    (delta,) = [row["Δ to best"] for row in main(board(entries))[0] if row["Method"] == "RDED"]
    low, high = (float(one.replace("−", "-")) for one in re.findall(r"[−+][\d.]+", delta)[1:])
    assert low < 0 < high
    assert "0.001" not in board(entries)


def test_tables_are_of_one_protocol_ipc_student_and_data() -> None:
    entries = [*three((0.9,) * 3), *three((0.8,) * 3, method="rded"), *three((0.7,) * 3, student="resnet18")]
    entries += [*three((0.6,) * 3, protocol="official"), *three((0.5,) * 3, ipc=1)]
    entries += [one.model_copy(update={"cell": f"new-{one.cell}", "data_digest": "d1"}) for one in three((0.4,) * 3)]
    entries += [one.model_copy(update={"cell": f"p-{one.cell}", "protocol_digest": "p1"}) for one in three((0.3,) * 3)]
    text = board(entries)
    assert sorted(len(table) for table in main(text)) == [1, 1, 1, 1, 1, 2]
    assert "version 1 (protocol not recorded, data d1)" in text and "version 1 (protocol p1, data not recorded)" in text
    assert "one of 3 rows of these names, apart in what they were made with: data d1 and protocol not recorded" in text
    assert text.index("### 10 images per class, student convnet3") < text.index("student resnet18")


def test_code_and_settings_that_differ_are_rows_of_their_own_and_other_machines_a_footnote() -> None:
    entries = [entry(seed=0, plugin_digests={"hello": "a"}), entry(seed=1, plugin_digests={"hello": "b"})]
    assert rows_of(entries)["n"].tolist() == [1, 1]
    changed = [entry(seed=0), entry(seed=1, changed={"teacher": "r18.pth"})]
    assert rows_of(changed)["n"].tolist() == [1, 1]
    missing = [entry(seed=0, plugin_digests={"hello": "a"}), entry(seed=1, state="missing")]
    assert rows_of(missing)["students_expected"].tolist() == [2]
    machines = [entry(seed=seed, environment={"cpu": cpu, "torch": "2"}) for seed, cpu in enumerate("AAB")]
    text = board(machines)
    assert "90.0 ± 0.0 ¹" in main(text)[0][0]["Top-1 %"] and "- ¹ students of this row differ in cpu (A, B)" in text


def test_label_bytes_that_differ_between_seeds_are_shown() -> None:
    entries = [entry(seed=seed, label_bytes=size) for seed, size in enumerate((1000, 1010, 2000))]
    assert main(board(entries))[0][0]["Label bytes"] == "1,000 B to 2.0 KiB"
    close = [entry(seed=seed, label_bytes=size) for seed, size in enumerate((40_000, 40_001))]
    assert main(board(close))[0][0]["Label bytes"] == "39.1 KiB"


def test_two_records_of_one_seed_are_named_and_the_first_stands() -> None:
    text = board([entry(cell="one"), entry(cell="two", top1=0.1)])
    assert "1 record left out:" in text and "`two: another record of hello, projector has seed 0`" in text
    assert main(text)[0][0]["Top-1 %"] == "90.0"


def test_best_comes_first_and_full_data_closes_every_table() -> None:
    entries = [*three((0.97, 0.98, 0.99), method="full_data", labels="hard", ipc=None)]
    for ipc in (1, 10):
        entries += [*three((0.9, 0.91, 0.92), ipc=ipc), *three((0.5, 0.61, 0.52), method="rded", ipc=ipc)]
    for table in main(board(entries)):
        assert [row["Method"] for row in table] == ["HeLlO", "RDED", "Full data (ref.)"]
        assert (table[-1]["Δ to best"], table[-1]["Pareto"]) == ("", "")
    alone = board(three((0.9,) * 3, method="full_data", labels="hard", ipc=None))
    assert "### Full data" in alone and "Nothing is measured here yet" in alone


def test_missing_and_failed_cells_are_seen_and_nothing_else_is_there() -> None:
    entries = [
        *three((0.9, 0.9, 0.9))[:2],
        entry(seed=2, state="failed", reason="out of memory\nat step 3", cell="broken-cell"),
        *(entry(method="rded", seed=seed, state="missing") for seed in range(3)),
        *(entry(method="sre2l", seed=seed, state="failed", reason="loss is NaN") for seed in range(40)),
    ]
    text = board(entries)
    shown = {row["Method"]: (row["n"], row["Top-1 %"]) for row in main(text)[0]}
    assert shown == {"HeLlO": ("2/3", "90.0 ± 0.0 fail¹"), "RDED": ("0/3", "missing"), "SRe2L": ("0/40", "fail²")}
    assert "- ¹ failed: out of memory at step 3: `broken-cell`" in text and " and 35 more" in text
    assert "2 of 46 students done (41 failed, 3 missing)" in text


def test_several_students_per_set_are_counted_and_their_spread_shown() -> None:
    values = {(0, 0): 0.90, (0, 1): 0.92, (1, 0): 0.94, (1, 1): 0.96, (2, 0): 0.86, (2, 1): 0.88}  # means 91, 95, 87
    entries = [entry(seed=s, student_seed=k, top1=top1, cell=f"{s}-{k}") for (s, k), top1 in values.items()]
    (row,), (details,) = tables(board(entries))
    assert (row["n"], row["Top-1 %"]) == ("3 × 2", "91.0 ± 4.0")
    assert row["95 % interval"] == "81.1 to 100.0"  # 4.302653 · 4 / √3: three sets, not six students
    # MSW = 3 · 2 / 3 = 2, MSB = 2 · 32 / 2 = 32: √((32 - 2) / 2) = 3.87 and √2
    assert details["σ sets, students"] == "3.9, 1.4"
    assert main(board(entries[:3]))[0][0]["n"] == "2 × 1–2"


def test_backbones_settings_and_metrics_have_their_notes() -> None:
    other = {"name": "RN50", "sha256": "ab" * 32, "bytes": 153_000_000}
    long = "pool=9,score=a-longer-setting"
    entries = [entry(public=(BACKBONE,), top1=0.5), entry(method=f"rded[{long}]", public=(other, BACKBONE), top1=0.4)]
    text = board(entries)
    assert (
        "- ¹ frozen backbone icon-clip, sha256 3fa93fa93fa93fa9, 9,712,345 bytes\n" in text and "backbone RN50" in text
    )
    assert [row["Labels"] for row in main(text)[0]] == ["projector ¹", "projector ³ ¹"]
    assert main(text)[0][1]["Method"] == "RDED ²" and f"- ² settings other than its own: {long}" in text
    assert main(board([entry(method="rded[pool=9]")]))[0][0]["Method"] == "RDED pool=9"
    masks = board([entry(metric="mean IoU")])
    assert "Mean IoU %" in masks and "intersection over union" in masks and "top-1 %" not in masks.lower()


# -- winners and the sentence


def random(*top1: float, labels: str = "projector", **facts: Any) -> list[Entry]:
    return three(top1 or (0.5, 0.5, 0.5), method="random_real", labels=labels, **facts)


def test_winners_are_named_only_beside_a_random_baseline() -> None:
    entries = three((0.5,) * 3, method="rded", labels="hard", label_bytes=0)
    entries += random(0.6, 0.6, 0.6, labels="hard", label_bytes=0)
    entries += three((0.7,) * 3, label_bytes=300_000) + random(0.65, 0.65, 0.65, label_bytes=300_000)
    entries += three((0.95,) * 3, method="rded", labels="teacher:int8", label_bytes=400_000)
    entries += random(0.9, 0.9, 0.9, labels="teacher", label_bytes=2_000_000)
    found = [
        (one.least, one.most, one.best.method, one.distilled.method, one.unmeasured)
        for one in winners(rows_of(entries))
    ]
    int8 = ("RDED, teacher:int8",)
    assert found == [
        (0, 100 * 1024, "random_real", "rded", ()), (1 << 20, 1 << 20, "hello", "hello", int8),
        (10 << 20, None, "random_real", "hello", int8),
    ]  # fmt: skip
    table = tables(board(entries))[0]
    assert [row["Label budget"] for row in table] == ["0 B to 100 KiB", "1 MiB", "10 MiB or more"]
    assert table[1] == {
        "IPC": "10", "Label budget": "1 MiB", "Best": "HeLlO, projector: 70.0 ± 0.0", "Best distilled set": "the same",
        "Random, same labels": "65.0 ± 0.0", "Baseline not measured": "RDED, teacher:int8",
    }  # fmt: skip
    assert "Baseline not measured: random real images were measured" in board(three((0.9,) * 3))


def test_labels_of_any_weight_find_their_budget() -> None:
    entries = [
        entry(label_bytes=1_285 << 30),
        entry(method="random_real", label_bytes=1_285 << 30),
    ]  # ImageNet-21K, IPC 20
    (one,) = winners(rows_of(entries))
    assert (one.best.label_bytes, one.most) == (1_285 << 30, None)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (three((0.5, 0.5, 0.6)) + random(0.9, 0.9, 0.9),
         "Under equal labels, random real images have a higher mean than every distilled set at IPC 10; with 3"),
        (three((0.9, 0.9, 0.9)) + random(0.5, 0.6, 0.5),
         "Under equal labels, 1 of 1 compared row have a higher mean than random real images, HeLlO with projector"),
        ([entry(top1=0.8), *random(0.7, 0.5, 0.6)],  # by 10 points on the seed that both have, not by 20
         "Under equal labels, 1 of 1 compared row have a higher mean than random real images, HeLlO with projector "
         "labels at IPC 10 by the most (+10.0 points)"),
        ([entry(top1=0.8, seed=7), *random(0.7, 0.5, 0.6)],
         "HeLlO has the highest mean of the distilled sets, 80.0 % at IPC 10 with 39.1 KiB of labels; random real "
         "images were not measured under the same labels and seeds, so nothing says"),
        (three((0.9, 0.9, 0.9)), "HeLlO has the highest mean of the distilled sets, 90.0 % at IPC 10 with 39.1 KiB of"),
        (random(), "No distilled set is measured here, only baselines"),
        ([entry(state="missing")], "Nothing is measured here yet."),
    ],
)  # fmt: skip
def test_a_board_opens_with_a_sentence(entries: list[Entry], said: str) -> None:
    sentence = first_sentence(rows_of(entries))
    assert sentence.startswith(said) and board(entries).splitlines()[2] == f"**{fmt.escape(sentence)}**"
    if "measured here" not in said:
        assert sentence.endswith("360 test images make digits a smoke test, not evidence.")


# -- DD-Ranking


def scored(**changed: Any) -> list[Entry]:
    images = {"images": "hello-images"}
    return [
        entry(top1=0.8, parents={**images, "labels": "p"}, **changed),
        entry(labels="hard", top1=0.5, parents=images, **changed),
        entry(method="random_real", top1=0.7, parents={"images": "random", "labels": "p"}, **changed),
        entry(method="full_data", labels="hard", ipc=None, top1=0.9, **changed),
    ]


def score(entries: list[Entry], protocol: str = "common") -> pd.Series:
    rows = rows_of(entries)
    return rows[(rows["method"] == "hello") & (rows["labels"] == "projector") & (rows["protocol"] == protocol)].iloc[0]


def test_scores_come_from_the_rows_they_need() -> None:
    found = score(scored())
    assert (found["hlr"], found["ior"], found["lrs"]) == pytest.approx((0.4, 0.1, 0.209679), abs=1e-6)
    assert pd.isna(found["ars"]) and "0.210" in board(scored()) and "LRS" not in tables(board(three((0.9,) * 3)))[1][0]
    for absent in (1, 2, 3):
        assert pd.isna(score([one for at, one in enumerate(scored()) if at != absent])["lrs"])
    other = scored()
    other[2] = other[2].model_copy(
        update={"parents": {"images": "random", "labels": "q"}, "changed": {"set": ["hello.conv_rank=4"]}}
    )
    assert pd.isna(score(other)["ior"])  # random images under other labels of the same name


def test_augmentation_robustness_takes_the_same_recipe_without_augmentation() -> None:
    plain = [
        one.model_copy(update={"top1": value})
        for one, value in zip(scored(protocol="plain", recipe="r", augmented=False), (0.7, 0.5, 0.4, 0.9), strict=True)
    ]
    assert score([*scored(recipe="r"), *plain])["ars"] == pytest.approx(0.363140, abs=1e-6)
    assert pd.isna(score([*scored(recipe="r"), *plain], "plain")["ars"])
    assert pd.isna(score([*scored(recipe="other"), *plain])["ars"])


# -- hostile text


HOSTILE = [
    "a|b`c\n<script>*d*</script>[x](y)\u202e\\", "=cmd|' /C calc'!A0", "@" + "x" * 300, "+1\t-2\r\n",
    "<img src=x onerror=alert(1)>" * 12, "\u2067\u05d0\u05d1\u2069 " * 40, "``` </details> ```",
]  # fmt: skip


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_names_break_nothing(evil: str) -> None:
    names = dict.fromkeys(("method", "labels", "title", "dataset", "protocol", "student", "asked", "via"), evil)
    changed = {"set": [evil], "clip": evil, "teacher": evil}
    done = entry(**names, environment={evil: evil}, changed=changed, damaged=(evil,))
    failed = entry(**names, seed=1, state="failed", reason=evil, changed=changed)
    text = board([done, failed, entry(**{**names, "method": f"a[{evil}]"})])
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<script" not in page and "<img" not in page and "<em>d" not in page
    assert not {"\u202e", "\u2067", "\u2069"} & set(page)
    assert (page.count("<details>"), page.count("</details>")) == (1, 1)
    cells = [html.unescape(re.sub("<[^>]*>", " ", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)]
    assert max(len(word) for cell in cells for word in cell.split(" ")) <= 24  # no table is wider than a page
    assert max(map(len, cells)) <= 2.5 * fmt.LONGEST
    csv = render_csv(rows_of([done]))
    assert len(csv.splitlines()) == 2 and not re.search(r'(?:^|,)"?[=+@\t]', csv.splitlines()[1])


@pytest.mark.parametrize(
    "text", ["a|b", "_x_ ~~y~~ random_real", "1 < 2 & 3 > 2", "`z` **b** [l](u) \\", "$a$ # !", "![i](u)"]
)
def test_escaped_text_shows_itself(text: str) -> None:
    assert html.unescape(MarkdownIt("commonmark").enable("strikethrough").renderInline(fmt.escape(text))) == text


def test_sizes_ratios_points_and_names_of_files() -> None:
    sizes = {0: "0 B", 1023: "1,023 B", 1024: "1.0 KiB", 1_048_064: "1.0 MiB", 600_000_000: "572 MiB"}
    assert {count: fmt.size(count) for count in sizes} == sizes
    # HeLlO's 572 MB and 110 GB (arXiv 2408.08201) are epochs · images · classes · 2 in binary units.
    assert fmt.size(300 * 200_000 * 1000 * 2) == "112 GiB"
    ratios = {0.0: "0", 5.4e-5: "5.4e-5", 0.00543: "5.4e-3", 0.068: "0.068", 0.5: "0.50", 733.3: "733"}
    assert {value: fmt.ratio(value) for value in ratios} == ratios
    assert [fmt.points(value) for value in (-0.012, 0.012, -0.0001)] == ["−1.2", "+1.2", "+0.0"]
    assert fmt.slug("tiny-imagenet") == "tiny-imagenet" and fmt.slug("../..").isalnum()
    assert fmt.slug("folder:/a/b") != fmt.slug("folder:/a-b")


def test_the_csv_keeps_integers_and_precision() -> None:
    entries = [one.model_copy(update={"image_bytes": 2000 + 2 * (one.seed == 0)}) for one in three((0.88, 0.90, 1 / 3))]
    entries += [entry(method="full_data", labels="hard", ipc=None, state="failed", reason="no")]
    heads, first, last = (line.split(",") for line in render_csv(rows_of(entries)).splitlines())
    row, full = dict(zip(heads, first, strict=True)), dict(zip(heads, last, strict=True))
    assert (row["n"], row["n_expected"], row["states"], row["image_bytes"]) == ("3", "3", "done=3", "2001")
    assert row["top1_mean"] == f"{(0.88 + 0.9 + 1 / 3) / 3:.9g}" and row["seconds_total"] == "25.5"
    assert (full["ipc"], full["states"], full["top1_mean"], full["worse"]) == ("", "failed=1", "", "")


# -- rows pool only what is alike


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"data_digest": "d1"}, {"data_digest": "d2"}, "data d1"),
        ({"protocol_digest": "p1"}, {"protocol_digest": "p2"}, "protocol p2"),
        ({"plugin_digests": {"hello": "a"}}, {"plugin_digests": {"hello": "b"}}, "code of hello b"),
        ({"plugin_digests": {"classification": "a"}}, {"plugin_digests": {"theirs": "b"}}, "code of theirs b"),
        ({"plugin_settings": {"hello": {"rank": 4, "lr": 1}}}, {"plugin_settings": {"hello": {"rank": 8, "lr": 1}}},
         "hello.rank 8"),
        ({"changed": {}}, {"changed": {"teacher": "r18.pth"}}, '--teacher "r18.pth"'),
        ({}, {"data_digest": "d2"}, "data not recorded"),
    ],
)  # fmt: skip
def test_what_is_not_alike_is_two_rows_that_say_in_words_how_they_differ(
    one: dict[str, Any], other: dict[str, Any], said: str
) -> None:
    entries = [*three((0.9,) * 3, **one), *(entry(seed=seed, cell=f"x{seed}", **other) for seed in (3, 4))]
    rows = rows_of(entries)
    assert sorted(rows["n"]) == [2, 3] and rows["remarks"].str.len().tolist() == [1, 1]
    text = board(entries)
    assert "one of 2 rows of these names, apart in what they were made with: " in text
    assert said in text.replace("\\", "") and "hello.lr" not in text


def test_what_no_record_says_is_alike_and_what_was_never_computed_belongs_to_what_was() -> None:
    made = [entry(seed=0, data_digest="d", plugin_settings={"hello": {"rank": 4}}), entry(seed=1, state="missing")]
    assert rows_of(made)["n_expected"].tolist() == [2]
    assert rows_of(three((0.9,) * 3))["remarks"].tolist() == [[]]


def test_copies_of_test_images_are_a_footnote() -> None:
    text = board([entry(seed=seed, overlap={"training": 12, "images": seed, "allowed": 1}) for seed in range(3)])
    assert "- ¹ 12 of the test images are training images, too" in text
    assert "- ² 2 of the synthetic images are test images" in text
    assert "90.0 ± 0.0 ¹ ²" in main(text)[0][0]["Top-1 %"]


def test_a_budget_affords_what_the_heaviest_seed_needs() -> None:
    entries = [entry(seed=seed, label_bytes=size) for seed, size in enumerate((0, 40_000, 40_000))]
    entries += random(labels="projector", label_bytes=40_000)
    assert [one.least for one in winners(rows_of(entries))] == [100 * 1024]
    assert main(board(entries))[0][0]["Label bytes"] == "0 B to 39.1 KiB"
