"""Exact top-1 accuracy on real images: no padding, one host sync at the end.

Of several processes at one cell each tests its share of the images, and their right answers are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy

import torch
from torch import Tensor, nn

from bench.api import LabelSource, Split
from bench.kit import distributed
from bench.kit.validation import check_logits
from bench.kit.views import AugmentedBatch


class TestImages:
    """A test split at one size, kept on the device as uint8 where it is small enough, else read again each time.

    Of several processes each has its share of the images, and all must ask together.

    Args:
        limit: at most this many images, evenly spread over the split.
        whole: images are not enlarged before their centre is cut out (see :meth:`bench.api.Split.centered`).
    """

    RESIDENT_BYTES = 8 * 2**30  # ImageNet-1K's 50,000 at 224 px are 7.5 GB (the accelerator's memory has room)

    def __init__(self, split: Split, size: int, device: torch.device, limit: int | None = None, whole: bool = False):
        self.split, self.size, self.device, self.whole = split, size, device, whole
        self.count = len(split) if limit is None else min(limit, len(split))
        self.answers: list[Tensor] = []  # of the last test: the class of the largest logit, batch by batch
        own = distributed.share(self.count)
        self.begin = own.start
        self.chosen = (torch.arange(self.count) * len(split) // self.count)[own]
        self.resident: list[tuple[Tensor, Tensor]] | None = None
        if len(self.chosen) * 3 * size * size <= self.RESIDENT_BYTES:
            self.resident = list(self._read())

    def _read(self) -> Iterable[tuple[Tensor, Tensor]]:
        if len(self.chosen):
            yield from self.split.centered(self.size, self.device, indices=self.chosen, whole=self.whole)

    def first(self, count: int) -> TestImages:
        """Return the first ``count`` of these images, not read again where they are kept."""
        part = copy(self)
        part.count = count
        part.chosen = self.chosen[: max(0, count - self.begin)]
        if self.resident is not None:
            left, part.resident = len(part.chosen), []
            for pixels, labels in self.resident:
                if left > 0:
                    part.resident.append((pixels[:left], labels[:left]))
                left -= len(labels)
        return part

    def top1(self, model: nn.Module) -> float:
        """Return the share of images whose largest logit is their class; ``model`` is put in eval mode for it."""
        training = model.training
        model.eval()
        share = self.share_right(model)
        model.train(training)
        return share

    def top1_of_labels(self, source: LabelSource, width: int) -> float:
        """Return the same for an online label source, which labels each image as it is.

        Raises:
            InvalidResult: its answers are no finite logits of ``width`` classes.
        """
        return self.share_right(lambda pixels: _plain_logits(source, pixels, width))

    @torch.inference_mode()
    def logits_of(self, source: LabelSource, width: int) -> Tensor:
        """Return the logits (N, width) of an online source for the images of this process as they are."""
        batches = self.resident if self.resident is not None else self._read()
        inputs = (pixels.float().div_(255).to(memory_format=torch.channels_last) for pixels, _ in batches)
        return torch.cat([_plain_logits(source, one, width) for one in inputs])

    @torch.inference_mode()
    def share_right(self, answer: Callable[[Tensor], Tensor]) -> float:
        """Return the share of right answers; ``answer`` maps float pixels (B, 3, S, S) in [0, 1] to logits (B, C)."""
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        self.answers = []
        for pixels, labels in self.resident if self.resident is not None else self._read():
            inputs = pixels.float().div_(255).to(memory_format=torch.channels_last)
            predicted = answer(inputs).argmax(1)
            self.answers.append(predicted)
            right += (predicted == labels).sum()
        return int(distributed.all_reduce(right)) / self.count

    def predicted(self) -> Tensor:
        """Return the predicted class of every image in the last test, int64 (count,) on the host; all ranks ask."""
        every = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        if self.answers:
            every[self.begin : self.begin + len(self.chosen)] = torch.cat(self.answers)
        return distributed.all_reduce(every).cpu()


def _plain_logits(source: LabelSource, pixels: Tensor, width: int) -> Tensor:
    nobody = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    logits = source.soft_labels(AugmentedBatch(pixels, nobody, nobody, nobody, nobody, 1.0, 0, 0), 0)
    check_logits(logits, len(pixels), width, source.kind)
    return logits
