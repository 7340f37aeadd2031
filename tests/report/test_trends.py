"""What a suite's authors report beside what was measured: the same direction, or not claimed."""

from __future__ import annotations

from typing import Any

import pytest

from bench.planning.suites import Suite, suite
from bench.report.papers import trends
from bench.report.results import to_frame
from bench.report.rows import pool, records
from bench.store.entries import Entry, in_order


def measured(*top1: float | None, method: str = "hello", **facts: Any) -> list[Entry]:
    usual: dict[str, Any] = {
        "dataset": "digits", "title": "Digits", "labels": "projector", "asked": "native", "via": method, "ipc": 10,
        "student": "convnet3-w32", "protocol": "common[small]", "protocol_version": 1,
    }  # fmt: skip
    usual |= facts
    place = "-".join(str(usual.get(key)) for key in ("dataset", "protocol", "student", "ipc", "student_seed"))
    return [
        Entry(
            cell=f"{method}-{place}-{seed}", method=method, seed=seed, top1=value, **usual,
            state="missing" if value is None else "done",
        )
        for seed, value in enumerate(top1)
    ]  # fmt: skip


def a_suite(*found: dict[str, Any]) -> Suite:
    form = {"datasets": ["digits"], "methods": ["hello", "rded"]}
    usual = {"claim": "HeLlO above RDED", "more": "hello", "less": "rded"}
    trends = [{**usual, **one} for one in found]
    return Suite.model_validate(
        {"title": "T", "source": "S", "about": "A", "full": form, "small": {}, "trends": trends}
    )


def findings(whole: Suite, entries: list[Entry]) -> list[Any]:
    frame = to_frame(in_order(entries))
    known = dict(enumerate(records(rows := pool(frame))))
    found = records(trends.findings(whole, rows, frame))
    return [one._replace(more=known[one.more], less=known[one.less]) for one in found]


def render(whole: Suite, entries: list[Entry]) -> str:
    frame = to_frame(in_order(entries))
    return trends.render(whole, pool(frame), frame)


def finding(*entries: list[Entry], **trend: Any) -> Any:
    (one,) = findings(a_suite(trend), [entry for some in entries for entry in some])
    return one


HELLO, RDED = (0.60, 0.64, 0.62, 0.63, 0.61), (0.50, 0.56, 0.52, 0.53, 0.52)


def test_differences_by_hand() -> None:
    """Differences .10 .08 .10 .10 .09, mean .094, s = .008944; t(.975, 4) · s / √5 = .011106. Of 10,000 images the test
    set alone gives 1.96 · √(.094 · .906 / 10,000) = .0057."""
    place = {"dataset": "fashion-mnist"}
    hello, rded = measured(*HELLO, **place), measured(*RDED, method="rded", labels="teacher", **place)
    one = finding(hello, rded, printed=[43.7, 42.0])
    assert one.mean == pytest.approx(0.094)
    assert one.high - one.mean == pytest.approx(0.011106, abs=2e-6)
    assert one.n == 5 and one.direction == "same"
    assert finding(hello, rded, printed=[42.0, 43.7]).direction == "other"  # they found it the other way round
    assert finding(rded, hello, more="rded", less="hello").direction == "other"
    text = render(a_suite({"printed": [43.7, 42.0], "dataset": "imagenet-1k"}), [*hello, *rded])
    assert "Beside theirs: 1 the same way; 1 of 1 means point their way." in text
    cells = [
        cell.strip().replace("\u00a0", " ")
        for cell in next(one for one in text.splitlines() if "43.7" in one).split("|")[1:-1]
    ]
    assert cells == [
        "HeLlO above RDED", "43.7 : 42 (imagenet-1k)", "10", "convnet3-w32", "62.0 : 52.6", "+9.4 (+8.3 to +10.5)", "5",
        "same",
    ]  # fmt: skip


def test_what_is_not_claimed() -> None:
    hello = measured(*HELLO)
    noisy = finding(hello, measured(0.5, 0.74, 0.59, 0.7, 0.55, method="rded"))
    assert noisy.direction == "not claimed" and noisy.n == 5
    few = finding(measured(*HELLO[:3]), measured(0.1, 0.12, 0.11, method="rded"))
    assert few.direction == "not claimed" and few.high > few.low > 0
    alone = finding(measured(0.9), measured(0.1, method="rded"))
    assert alone.direction == "not claimed" and alone.n == 1 and alone.low is None
    constant = finding(hello, measured(*(value - 0.05 for value in HELLO), method="rded"))
    assert constant.direction == "not claimed"
    assert finding(hello, measured(*HELLO, method="rded")).direction == "not claimed"


def test_several_trends_are_corrected_together() -> None:
    """One at p = .04 alone is claimed, and is not beside another."""
    rded = measured(0.575, 0.645, 0.592, 0.613, 0.60, method="rded")
    entries = [*measured(*HELLO), *rded]
    (one,) = findings(a_suite({}), entries)
    both = findings(a_suite({}, {"claim": "other", "more": "rded", "less": "hello"}), entries)
    assert one.p < both[0].p == pytest.approx(2 * one.p)


def test_pairs_are_counted_honestly() -> None:
    hello, rded = measured(0.6, 0.7, 0.8), measured(0.5, 0.6, 0.7, method="rded")
    assert finding(hello, measured(0.5, 0.6, None, method="rded")).n == 2 < 3
    twice = [
        entry
        for student in (4, 5)
        for method in ("rded", "hello")
        for entry in measured(0.5, 0.6, 0.7, method=method, student_seed=student)
    ]
    assert finding(twice).n == 3
    # only common seeds are pairs: seeds 1 and 2 of one, 0 and 1 of the other
    one = finding(hello[1:], rded[:2])
    assert one.n == 1 and one.mean == pytest.approx(0.1)


def test_only_rows_that_differ_in_nothing_else_are_compared() -> None:
    def none(*entries: list[Entry], **trend: Any) -> None:
        assert findings(a_suite(trend), [entry for some in entries for entry in some]) == []

    hello = measured(0.6, 0.7)
    others: tuple[dict[str, Any], ...] = (
        {"ipc": 1}, {"student": "vit-small"}, {"protocol": "common"}, {"protocol_version": 2}, {"asked": ""},
        {"asked": "stored:topk5"}, {"method": "rded[pool=3]", "via": "rded[pool=3]"}, {"method": "sre2l"},
    )  # fmt: skip
    for other in others:
        none(hello, measured(0.5, 0.6, **{"method": "rded", **other}))
    none(hello, measured(None, None, method="rded"))
    rded = measured(0.5, 0.6, method="rded")
    none(hello, rded, ipc=1)
    none(hello, rded, student="swin_v2_t", kin=["swin-small"])
    none(hello, measured(0.5, 0.6, method="hello[conv_rank=2]", via="hello[conv_rank=2]"))
    assert finding(hello, rded, student="vgg11", kin=["convnet3-w32"]).n == 2
    hard = measured(0.1, 0.2, method="random_real", labels="hard", asked="", via="hello")
    none(hello, hard, less="random_real")
    assert finding(hello, hard, less={"method": "random_real", "labels": "hard"}).n == 2
    across = finding(hello, measured(0.1, 0.2, ipc=1), less={"method": "hello", "ipc": 1})
    assert (across.more.ipc, across.less.ipc) == (10, 1)


def test_official_recipes_are_compared_though_each_is_its_method_s_own() -> None:
    hello = measured(0.6, 0.7, protocol="official-hello")
    rded = measured(0.5, 0.6, method="rded", protocol="official-rded")
    assert finding(hello, rded).n == 2
    small = measured(0.5, 0.6, method="rded", protocol="official-rded[small]")
    assert not findings(a_suite({}), [*hello, *small])
    common = [measured(0.8, 0.9), measured(0.1, 0.2, method="rded")]
    entries = [*hello, *rded, *common[0], *common[1]]
    assert len(findings(a_suite({}), entries)) == 2
    text = render(a_suite({}), entries)
    assert "| Protocol" in text and "| official " in text and "common\\[small\\]" in text
    assert "| Protocol" not in render(a_suite({}), [*hello, *rded])


def test_variants_are_told_apart() -> None:
    probe = measured(0.5, 0.6, method="hello[adapt=head,epochs=6]", via="hello[adapt=head]")
    usual = measured(0.7, 0.8, method="hello[epochs=6]", via="hello")
    one = finding(probe, usual, less="hello[adapt=head]")
    assert one.more.method == "hello[epochs=6]" and one.less.method == "hello[adapt=head,epochs=6]"


def test_a_board_is_about_its_own_data_set_where_the_authors_have_it() -> None:
    whole = suite("baselines")
    for name, count in (("imagenet-1k", 9), ("imagenet-100", 6), ("digits", 15)):
        assert len(trends.about(whole.trends, name)) == count
    text = render(whole, [*measured(*HELLO), *measured(*RDED, method="rded")])
    assert text.count("| HeLlO above RDED") == 1  # both data sets' at IPC 10, of which there is one comparison here
    assert "43.7 : 42 (imagenet-1k); 48.9 : 36 (imagenet-100)" in text.replace("\u00a0", " ").replace("<wbr>", "")
    assert "Beside theirs: 1 the same way; 1 of 1 means point their way." in text
    assert "Not measured here: HeLlO above RDED (imagenet-1k) at IPC 1;" in text and "; and 8 more." in text


def test_nothing_measured_says_so() -> None:
    assert "None of its trends can be seen" in render(a_suite({}), measured(0.6, 0.7))
    assert "trends" not in render(a_suite(), measured(0.6, 0.7))
    assert "Direction" not in render(a_suite({}), [])
