"""Codecs of stored logits: what comes back, how exactly, and in how many bytes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api.stored.codec import LabelCodec
from bench.api.stored.layout import ITEM_BYTES, label_columns
from bench.kit.labels.codecs import Fp32, Int8, Largest, Parts, codec_for, is_complete

DTYPES = {"F32": torch.float32, "F16": torch.float16, "I8": torch.int8, "U8": torch.uint8, "I16": torch.int16}
DTYPES |= {"I32": torch.int32}
CODECS = (
    "fp32",
    "fp16",
    "int8",
    "topk1",
    "topk3+fp32",
    "topk3",
    "topk3+int8",
    "renorm1+int8",
    "renorm3",
    "renorm3+fp32",
)


def logits(rows: int = 64, classes: int = 12, spread: float = 6.0, seed: int = 0) -> Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * spread


def there_and_back(text: str, values: Tensor) -> tuple[Parts, Tensor]:
    codec = codec_for(LabelCodec.parse(text), values.shape[1])
    parts = codec.encode(values)
    return parts, codec.decode(parts)


def probabilities(row: Tensor) -> list[float]:
    """Of a row, by plain Python."""
    top = max(row.tolist())
    shares = [math.exp(x - top) for x in row.tolist()]
    total = sum(shares)
    return [share / total for share in shares]


@pytest.mark.parametrize("text", CODECS)
@pytest.mark.parametrize("classes", [3, 12, 257, 40000])
def test_a_row_has_the_stated_columns_and_bytes(text: str, classes: int) -> None:
    parts, back = there_and_back(text, logits(5, classes))
    columns = label_columns(LabelCodec.parse(text), classes)
    assert {name: (part.dtype, tuple(part.shape)) for name, part in parts.items()} == {
        column.name: (DTYPES[column.dtype], (5, column.width)) for column in columns
    }
    assert sum(part.nbytes for part in parts.values()) == 5 * sum(column.row_bytes for column in columns)
    assert back.shape == (5, classes) and back.dtype == torch.float32


def test_bytes_a_view_of_imagenet() -> None:
    def row(text: str) -> int:
        return sum(ITEM_BYTES[c.dtype] * c.width for c in label_columns(LabelCodec.parse(text), 1000))

    assert row("fp32") == 4000 and row("fp16") == 2000 and row("int8") == 1004
    assert row("topk10") == 11 * 2 + 10 * 2 and row("topk10+int8") == 11 + 4 + 20
    assert row("renorm10") == 40  # LPQLD's MR-10: fp16 value and int16 index
    assert row("topk1000") == 4000  # nobody is left to share the rest


def test_fp32_is_exact_and_fp16_is_clamped_to_finite_numbers() -> None:
    values = torch.tensor([[1e30, -1e30, 65519.0, 0.1, -0.0, 1e-9, math.inf, -math.inf]])
    assert torch.equal(there_and_back("fp32", values)[1], values)
    back = there_and_back("fp16", values)[1]
    assert torch.isfinite(back).all()
    assert back[0, :2].tolist() == [65504.0, -65504.0] and back[0, 3].item() == pytest.approx(0.1, rel=5e-4)
    usual = logits()
    torch.testing.assert_close(there_and_back("fp16", usual)[1], usual, rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize("spread", [1e-9, 1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, -17.3, 900.0])
def test_int8_errs_by_half_a_step_at_most(spread: float, offset: float) -> None:
    values = (logits(200, 30, spread, seed=3) + offset).clamp(-6e4, 6e4)
    parts = Int8().encode(values)
    middle, step = parts["range"].float().unbind(1)
    error = (Int8().decode(parts) - values).abs().amax(1)
    # where a row is narrower than fp16 numbers lie apart, the offset's own rounding is what is left
    limit = torch.maximum(step / 2, middle.abs() * 2**-11 - 127 * step)
    assert (error <= limit * 1.0001 + 1e-6 * values.abs().amax()).all()
    width = values.amax(1) - values.amin(1)
    assert (step <= (width / 254 + middle.abs() * 2**-11 / 127) * 1.001 + 2**-13).all()  # no step is wasted
    assert parts["logits"].abs().max() <= 127


@pytest.mark.parametrize("row", [[3.0], [2.5, 2.5, 2.5], [0.0, 0.0], [1e30, -1e30], [-math.inf, 5.0, 4.0]])
def test_int8_of_odd_rows(row: list[float]) -> None:
    values = torch.tensor([row])
    back = there_and_back("int8", values)[1]
    wanted = values.clamp(-65504, 65504)
    assert torch.isfinite(back).all()
    assert (back - wanted).abs().max() <= (wanted.max() - wanted.min()) / 253 + 1e-3


@pytest.mark.parametrize(("classes", "keep"), list(itertools.product([1, 2, 12, 300], [1, 2, 7])))
def test_top_k_is_marginal_smoothing(classes: int, keep: int) -> None:
    if keep > classes:
        return
    values = logits(6, classes, seed=classes)
    codec, whole = Largest(keep, classes, Fp32(), renorm=False), Largest(classes, classes, Fp32(), renorm=False)
    back = codec.decode(codec.encode(values))
    for row, found in zip(values, back, strict=True):
        shares = probabilities(row)
        ranked = sorted(range(classes), key=lambda index: -shares[index])
        rest = sum(shares[index] for index in ranked[keep:])
        smooth = [rest / (classes - keep)] * classes if keep < classes else [0.0] * classes
        for index in ranked[:keep]:
            smooth[index] = shares[index]
        torch.testing.assert_close(found.softmax(0), torch.tensor(smooth), rtol=1e-4, atol=1e-7)
        kept = torch.tensor(ranked[:keep])
        assert torch.equal(found[kept], row[kept])  # the logits themselves, not up to a constant
    assert whole.decode(whole.encode(values)).equal(values)


@pytest.mark.parametrize("classes", [200, 256, 257, 32768, 65536, 70000])
def test_every_class_has_an_index(classes: int) -> None:
    values = torch.zeros(3, classes)
    values[0, classes - 1], values[1, classes // 2], values[2, 0] = 9, 9, 9
    for codec in (Largest(1, classes, Fp32(), renorm) for renorm in (False, True)):
        assert codec.decode(codec.encode(values)).argmax(1).tolist() == [classes - 1, classes // 2, 0]


@pytest.mark.parametrize("numbers", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("heat", [1.0, 4.0, 20.0])
def test_renorm_gives_the_rest_nothing_and_a_finite_divergence(numbers: str, heat: float) -> None:
    values = logits(20, 50, spread=40.0)
    back = there_and_back(f"renorm5+{numbers}", values)[1]
    kept = values.topk(5, 1).indices
    shares = (back / heat).softmax(1)
    assert shares.scatter(1, kept, 0).abs().max() == 0
    if numbers == "fp32":
        wanted = torch.zeros_like(values).scatter(1, kept, (values.gather(1, kept) / heat).softmax(1))
        torch.testing.assert_close(shares, wanted)
    student = torch.randn(20, 50, requires_grad=True)
    target = F.log_softmax(back / heat, 1)
    loss = F.kl_div(F.log_softmax(student / heat, 1), target, reduction="batchmean", log_target=True)
    loss.backward()
    assert student.grad is not None and torch.isfinite(loss) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize("text", CODECS)
def test_ties_and_extremes_stay_finite_and_keep_the_best(text: str) -> None:
    tied = torch.zeros(2, 12)
    tied[1, 4] = tied[1, 9] = 3.0
    back = there_and_back(text, tied)[1]
    assert torch.isfinite(back).all() and int(back[1].argmax()) in (4, 9)
    far = torch.full((1, 12), -3e4)
    far[0, 7] = 3e4
    back = there_and_back(text, far)[1]
    assert torch.isfinite(back).all() and int(back.argmax()) == 7
    one = there_and_back(text.replace("k3", "k1").replace("m3", "m1"), torch.tensor([[2.0], [-1.0]]))[1]
    torch.testing.assert_close(one, torch.tensor([[2.0], [-1.0]]))


@pytest.mark.parametrize("text", CODECS)
def test_rows_are_independent_and_nothing_waits_for_the_device(text: str) -> None:
    values, codec = logits(), codec_for(LabelCodec.parse(text), 12)
    parts, back = there_and_back(text, values)
    some = torch.tensor([5, 40, 2])
    assert torch.equal(codec.decode({name: part[some] for name, part in parts.items()}), back[some])
    assert torch.equal(codec.decode(codec.encode(values[some])), back[some])
    unknown = torch.empty(4, 12, device="meta")  # holds no values: reading one on the host fails
    assert codec.decode(codec.encode(unknown)).shape == (4, 12)


def test_only_renorm_is_incomplete() -> None:
    incomplete = [text for text in (*CODECS, "renorm12") if not is_complete(LabelCodec.parse(text), 12)]
    assert incomplete == ["renorm1+int8", "renorm3", "renorm3+fp32"]
