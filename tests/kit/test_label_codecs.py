"""Codecs of stored logits: what comes back, how exactly, and in how many bytes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api.stored.codec import LabelCodec
from bench.api.stored.columns import ITEM_BYTES, fitted_tensors, label_columns
from bench.kit.labels.codecs import Largest, codec_for
from bench.kit.labels.fidelity import compare
from bench.kit.labels.fitted import _shrunk, chosen, fit_features, fit_lowrank, fit_vq, nearest, robust
from bench.kit.labels.numbers import Codec, Fp32, Parts, Whole, pack, unpack

DTYPES = {"F32": torch.float32, "F16": torch.float16, "I8": torch.int8, "U8": torch.uint8, "I16": torch.int16}
DTYPES |= {"I32": torch.int32}
CODECS = (
    "fp32",
    "fp16",
    "int8",
    "int4",
    "topk1",
    "topk3+fp32",
    "topk3",
    "topk3+int8",
    "topk3+int4",
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
    assert row("int4") == 504 and row("topk10+int4") == 6 + 4 + 20
    assert row("vq64") == 64 and row("lowrank7") == 14 and row("lowrank7+int4") == 4 and row("features512") == 1024


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
@pytest.mark.parametrize(("levels", "width"), [(127, 30), (7, 30), (7, 29)])
def test_whole_numbers_err_by_half_a_step_at_most(levels: int, width: int, spread: float, offset: float) -> None:
    values, codec = (logits(200, width, spread, seed=3) + offset).clamp(-6e4, 6e4), Whole(levels, width)
    parts = codec.encode(values)
    middle, step = parts["range"].float().unbind(1)
    error = (codec.decode(parts) - values).abs().amax(1)
    # where a row is narrower than fp16 numbers lie apart, the offset's own rounding is what is left
    limit = torch.maximum(step / 2, middle.abs() * 2**-11 - levels * step)
    assert (error <= limit * 1.0001 + 1e-6 * values.abs().amax()).all()
    reach = values.amax(1) - values.amin(1)
    assert (step <= (reach / (2 * levels) + middle.abs() * 2**-11 / levels) * 1.001 + 2**-13).all()  # none is wasted
    assert unpack(parts["logits"], width).abs().max() <= levels


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
    incomplete = [text for text in (*CODECS, "renorm12") if not LabelCodec.parse(text).complete(12)]
    assert incomplete == ["renorm1+int8", "renorm3", "renorm3+fp32"]


# -- codecs that are fitted


def fitted(text: str, rows: Tensor) -> Codec:
    """Fit to rows (n, C), or (images, epochs, C) where each image has its basis."""
    spec, classes = LabelCodec.parse(text), rows.shape[-1]
    if spec.fit == "vq":
        return codec_for(spec, classes, fit_vq(rows, spec.size, seed=3))
    return codec_for(spec, classes, fit_lowrank(spec, rows if rows.dim() == 3 else rows[None]), len(rows))


def centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(-1, keepdim=True)


def smooth(rows: int = 400, classes: int = 20, rank: int = 6) -> Tensor:
    """Logits of nearly low rank, as networks give them."""
    stream = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, rank, generator=stream).relu() @ torch.randn(rank, classes, generator=stream) * 4
    return hidden + 0.1 * torch.randn(rows, classes, generator=stream)


@pytest.mark.parametrize(
    "text", ["vq4", "lowrank4", "lowrank4+int8", "lowrank5+int4", "lowrank3+fp32", "lowrank2+rpca"]
)
def test_fitted_codecs_have_the_stated_tensors_and_ignore_a_shift(text: str) -> None:
    rows, spec = smooth(), LabelCodec.parse(text)
    codec = fitted(text, rows)
    stated = fitted_tensors(spec, 20, 400)
    have = {name: (t.dtype, tuple(t.shape)) for name, t in codec.fitted.items() if not name.startswith("encoder")}
    assert {name: shape for name, (_, shape) in have.items()} == {name: shape for name, (_, shape) in stated.items()}
    parts = codec.encode(rows)
    assert {name: (part.dtype, part.shape[1]) for name, part in parts.items()} == {
        column.name: (DTYPES[column.dtype], column.width) for column in label_columns(spec, 20)
    }
    shifted = codec.encode(rows + 5)
    same = [torch.equal(part, shifted[name]) if part.dtype == torch.uint8 and spec.fit == "vq" else None
            for name, part in parts.items()]  # fmt: skip
    assert False not in same
    torch.testing.assert_close(
        codec.decode(shifted), codec.decode(parts), atol=0.5 if "int" in text else 0.05, rtol=0.01
    )
    some = torch.tensor([5, 40, 2])
    torch.testing.assert_close(codec.decode(codec.encode(rows[some])), codec.decode(parts)[some], atol=1e-4, rtol=1e-4)


def test_full_rank_is_exact_and_less_loses_the_smallest_singular_values() -> None:
    rows = smooth(60, 12)
    whole = fitted("lowrank12+fp32", rows)
    torch.testing.assert_close(whole.decode(whole.encode(rows)), centred(rows), atol=1e-4, rtol=0)
    for rank in (1, 3, 5):
        codec = fitted(f"lowrank{rank}+fp32", rows)
        lost = (codec.decode(codec.encode(rows)) - centred(rows)).square().sum()
        wanted = torch.linalg.svdvals(centred(rows).double())[rank:].square().sum()
        assert lost.item() == pytest.approx(wanted.item(), rel=1e-3)


def test_a_basis_for_each_image_or_class_is_its_own() -> None:
    stream = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 30, 2, generator=stream) @ torch.randn(8, 2, 12, generator=stream)
    codec, images = fitted("lowrank2+perimage+fp32", rows), torch.tensor([6, 0, 3])
    torch.testing.assert_close(
        codec.decode(codec.encode(rows[images, 4], images), images), centred(rows[images, 4]), atol=1e-3, rtol=1e-3
    )
    by_class = rows.view(4, 60, 12)  # two images each
    spec = LabelCodec.parse("lowrank4+perclass+int8")
    codec = codec_for(spec, 12, fit_lowrank(spec, by_class), 8)
    error = codec.decode(codec.encode(rows[images, 4], images), images) - centred(rows[images, 4])
    assert error.abs().max() < 0.1 and fitted_tensors(spec, 4, 8)["basis"] == ("F16", (4, 4, 4))


def test_robust_pca_finds_a_planted_rank_among_spikes() -> None:
    stream = torch.Generator().manual_seed(2)
    low = torch.randn(1, 80, 3, generator=stream) @ torch.randn(1, 3, 40, generator=stream)
    spikes = (torch.rand(low.shape, generator=stream) < 0.05) * torch.randn(low.shape, generator=stream) * 10
    assert (robust(low + spikes, _shrunk) - low).norm() / low.norm() < 1e-3
    plain, cleaned = fitted("lowrank3+fp32", (low + spikes)[0]), fitted("lowrank3+rpca+fp32", (low + spikes)[0])
    errors = [(codec.decode(codec.encode((low + spikes)[0])) - centred(low[0])).norm() for codec in (plain, cleaned)]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(("numbers", "tolerance"), [("fp32", 1e-5), ("fp16", 0.01), ("int8", 0.2)])
def test_features_and_head_are_the_logits(numbers: str, tolerance: float) -> None:
    """Of a toy linear head with more classes than features."""
    stream = torch.Generator().manual_seed(0)
    weight, bias, hidden = (torch.randn(*shape, generator=stream) for shape in ((50, 8), (50,), (30, 8)))
    spec = LabelCodec.parse(f"features8+{numbers}")
    codec = codec_for(spec, 50, fit_features(spec, hidden[None], weight, bias), 30)
    torch.testing.assert_close(codec.decode(codec.encode(hidden)), hidden @ weight.T + bias, atol=tolerance, rtol=0.01)
    assert spec.complete(50) and not LabelCodec.parse("vq8").complete(50)


def test_more_codes_come_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.kit.labels.fitted.MIN_STEPS", 150)
    rows, found = smooth(600), []
    for codes in (1, 3, 8):
        codec = fitted(f"vq{codes}", rows)
        found.append(compare(rows, codec.decode(codec.encode(rows)))["kl"].mean().item())
    assert found[0] > found[1] > found[2] and found[2] < 0.5 * found[0]
    assert torch.equal(codec.decode(codec.encode(rows)), codec.decode(codec.encode(rows)))


def test_a_code_for_each_row_is_exact() -> None:
    rows = torch.randn(40, 1, 6)
    assert torch.equal(chosen(nearest(rows, rows.transpose(0, 1)), rows.transpose(0, 1)), rows)


@pytest.mark.parametrize("width", [1, 2, 7, 10])
def test_two_nibbles_are_a_byte(width: int) -> None:
    levels = torch.randint(-7, 8, (5, 3, width)).float()
    packed = pack(levels, 7)
    assert packed.dtype == torch.uint8 and packed.shape == (5, 3, -(-width // 2))
    assert torch.equal(unpack(packed, width), levels)


def test_comparison_of_labels() -> None:
    same = compare(logits(), logits() + 3)
    assert all(same[name].abs().max() < 1e-5 for name in ("kl", "kl_20")) and same["agreement"].mean() == 1
    wanted, found = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    assert compare(wanted, found)["kl"].item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
