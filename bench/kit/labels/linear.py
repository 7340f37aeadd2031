"""Labels as coefficients of a few vectors of logits: a low-rank basis, or a network's features and its linear head."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from bench.api.stored.codec import LabelCodec
from bench.kit.labels.numbers import LEVELS, Codec, Parts, pack, unpack

STEPS = 50  # of robust PCA (assumed)


@final
class Linear(Codec):
    """Coefficients (B, R) of a basis (R, C), of whole numbers with one scale per coefficient.

    ``lowrank`` encodes logits without their mean (SCORE, arXiv 2503.13935, compresses them by low rank; the rest is
    assumed), ``features`` the penultimate features, of which the head is the basis and the offset.
    """

    def __init__(self, spec: LabelCodec, numbers: Codec, fitted: Parts, images: int):
        self.spec, self.numbers, self.fitted, self.images = spec, numbers, fitted, images

    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        found = logits if self.spec.fit == "features" else self.coefficients(logits, self._own("basis", images))
        if self.spec.numbers not in LEVELS:
            return self.numbers.encode(found)
        most = LEVELS[self.spec.numbers]
        return {"logits": pack((found / self._own("scale", images)).round().clamp(-most, most), most)}

    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        if self.spec.numbers in LEVELS:
            found = unpack(parts["logits"], self.spec.size) * self._own("scale", images)
        else:
            found = self.numbers.decode(parts)
        basis = self._own("basis", images)
        logits = found @ basis[0] if len(basis) == 1 else (found[:, None] @ basis)[:, 0]
        return logits + self.fitted["offset"].float() if "offset" in self.fitted else logits

    def coefficients(self, logits: Tensor, basis: Tensor) -> Tensor:
        """Return those (B, R) by which a basis (1 or B, R, C) comes nearest to logits (B, C) without their mean."""
        rows = (logits - logits.mean(1, keepdim=True))[:, None]
        gram = basis @ basis.mT  # nearly the identity, as the basis is rounded
        nearest: Callable[[Tensor], Tensor] = lambda x: torch.linalg.solve(gram, basis @ x.mT).mT  # noqa: E731
        if self.spec.rpca:
            rows = robust(rows, lambda x, _: nearest(x) @ basis)
        return nearest(rows)[:, 0]

    def _own(self, name: str, images: Tensor | None) -> Tensor:
        """Return what was fitted for each of the images, or once for all."""
        tensor = self.fitted[name].float() if len(self.fitted[name]) == 1 else self.fitted[name]
        if len(tensor) == 1 or images is None:
            return tensor
        return tensor.index_select(0, images * len(tensor) // self.images).float()


def fit_lowrank(spec: LabelCodec, rows: Tensor) -> Parts:
    """Fit a basis to each group of logits (G, n, C): the first right singular vectors."""
    rows = rows - rows.mean(2, keepdim=True)
    if spec.rpca:
        rows = robust(rows, _shrunk)
    less = torch.linalg.qr(rows, mode="r").R if rows.shape[1] > rows.shape[2] else rows  # of the same vectors
    basis = torch.linalg.svd(less, full_matrices=False).Vh[:, : spec.size]
    return _stored(spec, {"basis": basis.contiguous()}, rows @ basis.mT)


def fit_features(spec: LabelCodec, features: Tensor, weight: Tensor, bias: Tensor) -> Parts:
    """Take a head's weight (C, D) and bias (C,); ``features`` (1, n, D) give the scales of whole numbers."""
    return _stored(spec, {"basis": weight.T[None].contiguous(), "offset": bias}, features)


def _stored(spec: LabelCodec, fitted: Parts, coefficients: Tensor) -> Parts:
    kept = {name: tensor.to(torch.float32 if spec.numbers == "fp32" else torch.float16)
            for name, tensor in fitted.items()}  # fmt: skip
    if spec.numbers in LEVELS:
        scale = coefficients.abs().amax(1) / LEVELS[spec.numbers]
        kept["scale"] = scale.clamp(min=torch.finfo(torch.float16).tiny).half()
    return kept


def robust(rows: Tensor, low: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the low-rank part of rows (G, n, C), without sparse errors: robust PCA by inexact ALM (Lin et al., 2010).

    Args:
        low: the nearest matrices of low rank, given by how much a singular value may shrink (G, 1, 1).
    """
    weight = 1 / max(rows.shape[1:]) ** 0.5
    norm = torch.linalg.matrix_norm(rows, 2)[:, None, None].clamp(min=1e-12)
    rho, sparse = 1.25 / norm, torch.zeros_like(rows)
    dual = rows / torch.maximum(norm, rows.abs().amax((1, 2), keepdim=True) / weight)
    for _ in range(STEPS):
        part = low(rows - sparse + dual / rho, 1 / rho)
        left = rows - part + dual / rho
        sparse = left.sign() * (left.abs() - weight / rho).clamp(min=0)
        dual = dual + rho * (rows - part - sparse)
        rho = (rho * 1.5).clamp(max=1.25e7 / norm.min())
    return part


def _shrunk(rows: Tensor, by: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    return torch.matmul(left * (values[:, None] - by).clamp(min=0), right)
