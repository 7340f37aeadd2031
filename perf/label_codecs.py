"""Decoding of fitted codecs in a student's step, at 100 classes and 32 px: what is left of a step's speed.

A step of a ConvNet-3 of width 32 on a batch of 50, with labels that stay in memory, against the same step that decodes
them. The codecs are fitted to random logits.

    python perf/label_codecs.py [--device cuda]

A ratio is bare seconds over those with decoding, the median over the rounds; 1 means that decoding costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from clock import Ratios, main, side_by_side  # beside this file
from torch import Tensor
from torch.nn import functional as F

from bench.api.stored.codec import LabelCodec
from bench.kit.labels import fitted
from bench.kit.labels.codecs import codec_for
from bench.kit.models import build

CLASSES, BATCH = 100, 50


def measure(device: torch.device, tiny: bool) -> Ratios:
    """Yield the share of a step's speed that each codec leaves."""
    student = build("convnet3-w32", CLASSES, 32, (0.5,) * 3, (0.25,) * 3).to(device).train()
    optimizer = torch.optim.AdamW(student.parameters())
    pixels, logits = torch.rand(BATCH, 3, 32, 32, device=device), 3 * torch.randn(1000, CLASSES, device=device)
    fitted.MIN_STEPS = 1  # what it learns costs nothing to decode

    def step(labels: Callable[[], Tensor], times: int = 1 if tiny else 4) -> None:
        for _ in range(times):
            target = F.log_softmax(labels() / 4, 1)
            loss = F.kl_div(F.log_softmax(student(pixels) / 4, 1), target, reduction="batchmean", log_target=True)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    variants = {"bare": lambda: step(lambda: logits[:BATCH])}
    for text in ("fp16", "int4", "vq8", "vq64", "lowrank32", "lowrank32+int8"):
        spec = LabelCodec.parse(text)
        found = fitted.fit_vq(logits, spec.size, 0) if spec.fit == "vq" else fitted.fit_lowrank(spec, logits[None])
        codec = codec_for(spec, CLASSES, found if spec.fit else None)
        parts = codec.encode(logits[:BATCH])
        variants[f"decode_{text}"] = lambda codec=codec, parts=parts: step(lambda: codec.decode(parts))  # type: ignore[misc]
    yield from side_by_side(variants, device, 1 if tiny else 9).items()


if __name__ == "__main__":
    main(__doc__, measure)
