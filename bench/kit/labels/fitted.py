"""Codecs whose decoder is fitted once: a low-rank basis, a network's linear head, or a vector-quantised autoencoder.

The autoencoder is after VQAE (arXiv 2603.03808), which gives neither architecture nor training. All of it is assumed:
an encoder C -> hidden -> M codes, a mirrored decoder, GELU and a layer norm without weights behind the hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api.stored.codec import LabelCodec
from bench.api.stored.columns import VQ_CODES, vq_widths
from bench.kit.labels.numbers import LEVELS, Codec, Parts, pack, unpack
from bench.kit.optim import lr_factor

EPOCHS, MIN_STEPS, BATCH, LR, CLUSTERED = 5, 1000, 256, 1e-3, 4096
DECAY, LAPLACE, COMMITMENT, UNUSED = 0.99, 1e-5, 0.25, 500  # of the codebooks; steps after which a code is redrawn
TEMPERATURE, MSE = 4.0, 0.1  # the loss: KL at T times T², and squared errors
PCA_STEPS = 50  # of robust PCA (assumed)


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
    for _ in range(PCA_STEPS):
        part = low(rows - sparse + dual / rho, 1 / rho)
        left = rows - part + dual / rho
        sparse = left.sign() * (left.abs() - weight / rho).clamp(min=0)
        dual = dual + rho * (rows - part - sparse)
        rho = (rho * 1.5).clamp(max=1.25e7 / norm.min())
    return part


def _shrunk(rows: Tensor, by: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    return torch.matmul(left * (values[:, None] - by).clamp(min=0), right)


@final
class VectorQuantised(Codec):
    """M indices of a byte; what decodes them is fitted. The encoder is among what was fitted, and not stored."""

    def __init__(self, fitted: Parts):
        self.fitted = {name: tensor.float() for name, tensor in fitted.items()}

    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        return {"codes": nearest(encoded(logits, self.fitted), self.fitted["codebooks"]).to(torch.uint8)}

    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        return decoded(chosen(parts["codes"].long(), self.fitted["codebooks"]), self.fitted)


def encoded(logits: Tensor, net: Parts) -> Tensor:
    """Encode logits (B, C), whatever is added to all of a row: (B, M, D)."""
    low, high = net["encoder.range"]
    rows = (logits - logits.mean(1, keepdim=True)).clamp(low, high)
    hidden = _hidden(rows, net["encoder.hidden.weight"], net["encoder.hidden.bias"])
    return F.linear(hidden, net["encoder.out.weight"], net["encoder.out.bias"]).view(
        len(rows), len(net["codebooks"]), -1
    )


def decoded(codes: Tensor, net: Parts) -> Tensor:
    """Decode codes (B, M, D) as logits (B, C)."""
    hidden = _hidden(codes.flatten(1), net["hidden.weight"], net["hidden.bias"])
    return F.linear(hidden, net["out.weight"], net["out.bias"])


def nearest(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Return the indices (B, M) of the nearest of K codes in each codebook (M, K, D)."""
    return torch.cdist(codes.transpose(0, 1), codebooks).argmin(2).T


def chosen(indices: Tensor, codebooks: Tensor) -> Tensor:
    """Return the codes (B, M, D) at indices (B, M)."""
    return codebooks[torch.arange(len(codebooks), device=indices.device), indices]


def _hidden(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(F.gelu(F.linear(rows, weight, bias)), bias.shape)


@torch.enable_grad()
def fit_vq(rows: Tensor, codes: int, seed: int) -> Parts:
    """Train on logits (n, C): what decodes, in fp16 and by its stored names, and the encoder (``encoder.…``)."""
    classes, draws = rows.shape[1], torch.Generator().manual_seed(seed)
    rows = rows - rows.mean(1, keepdim=True)
    some = rows.flatten()[:: -(-rows.numel() // 2**20)]
    low, high = torch.quantile(some, torch.tensor([0.001, 0.999], device=rows.device))
    spread = some.std().clamp(min=1e-6)
    hidden, depth = vq_widths(codes, classes)
    layers = {"encoder.hidden": (hidden, classes), "encoder.out": (codes * depth, hidden),
              "hidden": (hidden, codes * depth), "out": (classes, hidden)}  # fmt: skip
    net: Parts = {}
    for name, shape in layers.items():
        drawn = torch.empty(shape).uniform_(-1, 1, generator=draws) / shape[1] ** 0.5
        net[f"{name}.weight"], net[f"{name}.bias"] = drawn.to(rows.device), torch.zeros(shape[0], device=rows.device)
    for name in ("encoder.hidden.weight", "out.weight"):  # logits have a unit spread to the layers between
        net[name] = net[name] / spread if "encoder" in name else net[name] * spread
    weights = [tensor.requires_grad_() for tensor in net.values()]
    net |= {"encoder.range": torch.stack([low, high]), "codebooks": torch.zeros(codes, VQ_CODES, depth).to(rows)}
    with torch.no_grad():
        net["codebooks"] = _clusters(encoded(_drawn(rows, CLUSTERED, draws), net), draws)
    sums, counts = net["codebooks"].clone(), torch.ones(codes, VQ_CODES, device=rows.device)
    idle = torch.zeros(codes, VQ_CODES, device=rows.device)
    optimizer = torch.optim.AdamW(weights, LR)
    steps = max(MIN_STEPS, EPOCHS * -(-len(rows) // BATCH))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * lr_factor("cosine", step, steps)
        batch = _drawn(rows, BATCH, draws)
        z = encoded(batch, net)
        indices = nearest(z.detach(), net["codebooks"])
        codes_of = chosen(indices, net["codebooks"])
        made = decoded(z + (codes_of - z).detach(), net)
        target = F.log_softmax(batch / TEMPERATURE, 1)
        kl = F.kl_div(F.log_softmax(made / TEMPERATURE, 1), target, reduction="batchmean", log_target=True)
        loss = TEMPERATURE**2 * kl + MSE * F.mse_loss(made, batch) + COMMITMENT * F.mse_loss(z, codes_of)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            picked = _one_hot(indices)  # (B, M, K)
            counts.lerp_(picked.sum(0), 1 - DECAY)
            sums.lerp_(torch.einsum("bmk,bmd->mkd", picked, z.detach()), 1 - DECAY)
            total = counts.sum(1, keepdim=True)
            weight = (counts + LAPLACE) / (total + VQ_CODES * LAPLACE) * total
            idle = torch.where(picked.sum(0) > 0, 0, idle + 1)
            dead = idle >= UNUSED
            others = z.detach()[torch.randint(len(z), (VQ_CODES,), generator=draws)].transpose(0, 1)
            sums[dead], counts[dead], idle[dead] = others[dead], 1.0, 0.0
            net["codebooks"] = torch.where(dead[..., None], others, sums / weight[..., None])
    return {name: t.detach() if name.startswith("encoder.") else t.detach().half() for name, t in net.items()}


def _one_hot(indices: Tensor) -> Tensor:
    return torch.zeros(*indices.shape, VQ_CODES, device=indices.device).scatter_(-1, indices[..., None], 1)


def _drawn(rows: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Draw ``count`` rows with replacement, or take all where there are no more."""
    return rows if len(rows) <= count else rows[torch.randint(len(rows), (count,), generator=draws)]


def _clusters(codes: Tensor, draws: torch.Generator) -> Tensor:
    """Return the centres (M, K, D) of ten steps of k-means on codes (n, M, D)."""
    centres = codes[torch.randint(len(codes), (VQ_CODES,), generator=draws)].transpose(0, 1).contiguous()
    for _ in range(10):
        picked = _one_hot(nearest(codes, centres))
        size = picked.sum(0)[..., None]
        centres = torch.where(size > 0, torch.einsum("bmk,bmd->mkd", picked, codes) / size.clamp(min=1), centres)
    return centres
