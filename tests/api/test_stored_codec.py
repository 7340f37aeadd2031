"""What the user writes after ``stored:``, and what is refused of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bench.api.stored.codec import LabelCodec
from bench.errors import UserError


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("fp16", LabelCodec()),
        ("fp32", LabelCodec(numbers="fp32")),
        ("int8", LabelCodec(numbers="int8")),
        ("topk10", LabelCodec(keep=10)),
        ("renorm5+int8", LabelCodec(keep=5, renorm=True, numbers="int8")),
        ("prune40", LabelCodec(prune=40)),
        ("coords", LabelCodec(coords=True)),
        ("prune10+topk10+fp16", LabelCodec(prune=10, keep=10)),
        ("pool5+int4", LabelCodec(pool=5, numbers="int4")),
        ("vq8+prune4", LabelCodec(prune=4, fit="vq", size=8)),
        ("lowrank7+perimage+rpca+int8", LabelCodec(fit="lowrank", size=7, per="image", rpca=True, numbers="int8")),
        ("features512", LabelCodec(fit="features", size=512)),
    ],
)
def test_parts_are_read(text: str, codec: LabelCodec) -> None:
    assert LabelCodec.parse(text) == codec


def test_order_is_free_and_the_name_is_one() -> None:
    names = {str(LabelCodec.parse(text)) for text in ("topk10+prune4", "prune4+fp16+topk10", "fp16+topk10+prune4")}
    assert names == {"prune4+topk10+fp16"}
    for everything in ("prune3+renorm7+int8+coords", "pool4+lowrank7+perclass+rpca+int4+coords"):
        assert str(LabelCodec.parse(everything)) == everything
    assert str(LabelCodec()) == "fp16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int7", r"unknown part of the codec stored:int7 'int7' \(did you mean 'int8'\?\); known: .*topkK"),
        ("topk", "unknown part of the codec stored:topk 'topk'"),
        ("topk0", "unknown part .* 'topk0'"),
        ("prune0", "unknown part .* 'prune0'"),
        ("prune-2", "unknown part"),
        ("topk1.5", "unknown part"),
        ("topk99999999", "unknown part"),
        ("fp16+", "unknown part of the codec stored:fp16\\+ ''"),
        ("", "unknown part"),
        ("FP16", "unknown part"),
        ("fp16+int8", "labels stored:fp16\\+int8: int8 says numbers a second time"),
        ("topk5+renorm5", "renorm5 says keep a second time"),
        ("prune2+prune3", "prune3 says prune a second time"),
        ("prune2+pool3", "prune and pool both say which batches are kept"),
        ("topk2+vq3", "two ways to write a view"),
        ("lowrank2+vq3", "vq3 says fit a second time"),
        ("vq3+int8", "leave out int8"),
        ("perclass", "are for lowrankR"),
    ],
)
def test_what_is_no_codec_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        LabelCodec.parse(text)
    assert "\n" not in str(caught.value)


def test_what_a_data_set_or_schedule_cannot_give_is_refused() -> None:
    LabelCodec(keep=10, prune=300).check(10, 300, "digits")
    with pytest.raises(UserError, match=r"stored:topk11\+fp16: digits has 10 classes"):
        LabelCodec(keep=11).check(10, 300, "digits")
    with pytest.raises(
        UserError, match=r"stored:prune301\+fp16: keeping one batch in 301 of 300 .* prune300 is the most"
    ):
        LabelCodec(prune=301).check(10, 300, "digits")
    for text, message in (
        ("pool301", "pool300 is all"),
        ("lowrank11", "lowrank10 is all"),
        ("lowrank2+perimage", "mix"),
    ):
        with pytest.raises(UserError, match=message):
            LabelCodec.parse(text).check(10, 300, "digits", "cutmix")


def test_fields_have_bounds() -> None:
    for fields in ({"prune": 0}, {"keep": -1}, {"numbers": "int5"}, {"pool": -1}, {"top": 5}):
        with pytest.raises(ValidationError):
            LabelCodec.model_validate(fields)


def test_a_cell_is_named_by_what_differs_from_the_default() -> None:
    assert LabelCodec.parse("fp16").non_default_fields() == {}
    assert LabelCodec.parse("prune4+topk3").non_default_fields() == {"prune": 4, "keep": 3}
