"""The augmented batches of a set of images, of any epoch, in any order.

Nothing here waits for the device: what the host must know (boxes for lazily read images, the weight and the
box of a mix) is drawn on the host, and what the device must know is sent there once per epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bench.api.augmentation import AugmentationConfig, AugmentedBatch
from bench.errors import UserError
from bench.kit.views.boxes import CROP_WIDTH, random_resized_boxes
from bench.kit.views.draws import (
    BATCH_WIDTH,
    IMAGE_WIDTH,
    Column,
    Floats,
    Purpose,
    permutation,
    some_uniforms,
    span_uniforms,
)
from bench.kit.views.geometry import apply_weights, mirrored
from bench.kit.views.mixing import Mixture, draw_mixture, mix
from bench.kit.views.table import SpanTable, draw_table

COLOURS = 3  # channels of the pixels; extra channels follow
SPANS_HELD = 2  # a loader that reads ahead works on the next epoch while this one is being finished
STREAMS_HELD = 4  # of those that splits ask for
BATCHES_AT_ONCE = 16  # whose mixtures are drawn together
SPAN_IMAGES = 512  # smaller sets are drawn several epochs at a time, up to this many views
REPLAY_BYTES = 128 * 2**20  # of tables of single batches: 40 bytes a view, and small ones' weights


class AugmentationStream:
    """The views of ``count`` images under an augmentation config.

    The order of an epoch is fixed by (seed, epoch), the geometry of a view by (seed, epoch, image), the
    weight and box of a mix by (seed, epoch, batch number), the partners by (seed, epoch, images of the
    batch). No state is kept between calls but caches.
    """

    def __init__(self, config: AugmentationConfig, count: int):
        self.config, self.count = config, count
        self._span = max(1, SPAN_IMAGES // max(1, count))  # epochs drawn at a time
        self._table = lru_cache(SPANS_HELD)(self._draw_table)
        self._image_draws = lru_cache(SPANS_HELD)(self._draw_images)
        self._batch_draws = lru_cache(SPANS_HELD)(self._draw_batches)
        self._order = lru_cache(SPANS_HELD)(self._draw_order)
        self._replayed: OrderedDict[tuple[object, ...], tuple[Tensor, tuple[SpanTable, Mixture | None]]] = OrderedDict()
        self._replayed_bytes = 0

    def order(self, epoch: int) -> Tensor:
        """Return the order of the images in ``epoch``: a permutation, int64 (count,), on the host."""
        return self._order(epoch)

    def batches(self, epoch: int, batch_size: int, device: torch.device | str = "cpu") -> Iterator[tuple[int, Tensor]]:
        """Yield number and indices int64 (B,) of the batches of ``epoch``, on ``device``; the last may be shorter."""
        order = self.order(epoch).to(device, non_blocking=True)
        yield from enumerate(torch.split(order, batch_size))

    def make(self, pixels: Tensor, labels: Tensor, indices: Tensor, epoch: int, batch: int) -> AugmentedBatch:
        """Make the views of the images ``indices`` as batch number ``batch`` of ``epoch``, on the device of the pixels.

        Args:
            pixels: uint8 (count, 3 + P, H, W); after the colours come P extra channels, if any.
            labels: int64 (count,) on that device; indices: int64 (B,), there or on the host.

        Raises:
            UserError: the config shuffles patches and its factor does not divide the sides of the images.
            ValueError: ``pixels`` are not ``count`` images.
        """
        self._expect(pixels)
        indices = indices.to(pixels.device, non_blocking=True)
        chosen, own = pixels.index_select(0, indices), labels.index_select(0, indices)
        return self._views(chosen, own, indices, epoch, batch)

    def again(self, pixels: Tensor, labels: Tensor, epoch: int, batch: int, batch_size: int) -> AugmentedBatch:
        """Make one batch of an epoch on its own, with the bits that :meth:`batches` and :meth:`make` give it.

        For students of pruned labels, whose epochs mix batches of many: only the batch's own rows are drawn, and the
        latest ``REPLAY_BYTES`` of them are kept. Arguments and errors are those of :meth:`make`.
        """
        self._expect(pixels)
        key = epoch, batch, batch_size, pixels.shape[2:], pixels.device
        if key in self._replayed:
            self._replayed.move_to_end(key)
        else:
            indices = self.order(epoch)[batch * batch_size : (batch + 1) * batch_size]
            table = self.table(epoch, indices, pixels.shape[2], pixels.shape[3], pixels.device)
            here = indices.to(pixels.device, non_blocking=True)
            self._replayed[key] = here, (table, self.mixture(epoch, batch))
            self._replayed_bytes += table.bytes
            while self._replayed_bytes > REPLAY_BYTES and len(self._replayed) > 1:
                self._replayed_bytes -= self._replayed.popitem(last=False)[1][1][0].bytes
        indices, drawn = self._replayed[key]
        chosen, own = pixels.index_select(0, indices), labels.index_select(0, indices)
        return self._views(chosen, own, indices, epoch, batch, drawn)

    def table(self, epoch: int, indices: Tensor, height: int, width: int, device: torch.device) -> SpanTable:
        """Draw the choices in ``epoch`` for the images ``indices`` (B,), on the host, of ``height`` x ``width`` pixels.

        Raises:
            UserError: the config shuffles patches and its factor does not divide the sides of the images.
        """
        span, row = self._row(epoch)
        rows = indices.numpy()
        draws = self._image_draws(span)[row + rows]
        return draw_table(self.config, range(epoch, epoch + 1), draws, height, width, device, rows=rows)

    def mixture(self, epoch: int, batch: int) -> Mixture | None:
        """Return the mix of a batch; None where the config mixes nothing."""
        if self.config.mix == "none":
            return None
        span, within = divmod(epoch, self._span)
        group, place = divmod(batch, BATCHES_AT_ONCE)
        return draw_mixture(self.config, self._batch_draws(span, group)[within * BATCHES_AT_ONCE + place])

    def part(self, indices: Tensor, rows: Callable[[int], slice] | None) -> Tensor:
        """Return the images of a batch whose views are wanted; all where ``rows`` is None."""
        if rows is not None and self.config.mix != "none":
            raise ValueError("a part of a batch that is mixed would be mixed with itself; expected mix none")
        return indices if rows is None else indices[rows(len(indices))]

    def boxes(self, epoch: int, indices: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
        """Place the boxes to cut out of lazily read images: int64 (B, 4) on the host, (top, left, height, width).

        Cut, resize to ``config.size`` (``config.antialias``), and give the result to :meth:`finish`.

        Args:
            indices, heights, widths: integers (B,) on the host; the sizes of the images in pixels.

        Raises:
            UserError: the config shuffles patches, which needs the images in memory.
        """
        self._refuse_shuffle()
        high, wide = np.asarray(heights, dtype=np.int64), np.asarray(widths, dtype=np.int64)
        if self.config.crop != "rrc":
            return torch.from_numpy(np.stack([np.zeros_like(high), np.zeros_like(wide), high, wide], axis=1))
        rows = np.asarray(indices, dtype=np.int64)
        draws = some_uniforms(self.config.seed, Purpose.CROP, epoch, rows, CROP_WIDTH)
        return torch.from_numpy(random_resized_boxes(draws, high, wide, self.config.scale, self.config.ratio))

    def finish(self, cropped: Tensor, labels: Tensor, indices: Tensor, epoch: int, batch: int) -> AugmentedBatch:
        """Make the views of images whose boxes were already cut out: shift, flip and mix.

        Args:
            cropped: uint8 (B, 3, S, S), S being ``config.size``, on the device on which the views are wanted;
                CutMix may overwrite it.
            labels: int64 (B,) of these images; indices: int64 (B,); both there or on the host.

        Raises:
            UserError: the config shuffles patches, which needs the images in memory.
        """
        self._refuse_shuffle()
        labels = labels.to(cropped.device, non_blocking=True)
        indices = indices.to(cropped.device, non_blocking=True)
        return self._views(cropped, labels, indices, epoch, batch, cropped=True)

    def _views(
        self,
        pixels: Tensor,
        labels: Tensor,
        indices: Tensor,
        epoch: int,
        batch: int,
        drawn: tuple[SpanTable, Mixture | None] | None = None,
        cropped: bool = False,
    ) -> AugmentedBatch:
        """Make the views of a batch from the epoch's table, or by what was drawn for its images alone."""
        rows: Tensor | None = None
        if drawn is None:
            span, row = self._row(epoch)
            table = self._table(span, pixels.shape[2], pixels.shape[3], pixels.device, cropped)
            rows, mixture = indices + row if row else indices, self.mixture(epoch, batch)
        else:
            table, mixture = drawn
        if not table.identity:
            pixels = apply_weights(*table.weights_of(rows), pixels.float())
        elif self.config.flip:
            pixels = mirrored(pixels, table.flips(rows))
        weight, partner_labels, partner_indices = 1.0, labels, indices
        if mixture is not None:
            partners = table.partners(rows)
            pixels = mix(pixels, partners, mixture)  # before the conversion: bytes move faster than floats
            weight = mixture.weight
            partner_labels, partner_indices = labels.index_select(0, partners), indices.index_select(0, partners)
        views = pixels.float().mul_(1 / 255)
        channels = None
        if views.shape[1] > COLOURS:
            views, channels = views[:, :COLOURS].contiguous(), views[:, COLOURS:].contiguous()
        return AugmentedBatch(views, indices, labels, partner_labels, partner_indices, weight, epoch, batch, channels)

    def _expect(self, pixels: Tensor) -> None:
        if len(pixels) != self.count:
            raise ValueError(f"a stream of {self.count} images was given {len(pixels)}")

    def _row(self, epoch: int) -> tuple[int, int]:
        """Return the span that ``epoch`` belongs to, and its first row in the tables of that span."""
        span, within = divmod(epoch, self._span)
        return span, within * self.count

    def _epochs(self, span: int) -> range:
        return range(span * self._span, (span + 1) * self._span)

    def _draw_images(self, span: int) -> Floats:
        return span_uniforms(self.config.seed, Purpose.IMAGE, self._epochs(span), self.count, IMAGE_WIDTH)

    def _draw_order(self, epoch: int) -> Tensor:
        span, row = self._row(epoch)
        draws = self._image_draws(span)[row : row + self.count, Column.ORDER]
        return torch.from_numpy(permutation(draws))

    def _draw_batches(self, span: int, group: int) -> Floats:
        first, epochs = group * BATCHES_AT_ONCE, self._epochs(span)
        return span_uniforms(self.config.seed, Purpose.BATCH, epochs, BATCHES_AT_ONCE, BATCH_WIDTH, first)

    def _draw_table(self, span: int, height: int, width: int, device: torch.device, cropped: bool) -> SpanTable:
        draws = self._image_draws(span)
        return draw_table(self.config, self._epochs(span), draws, height, width, device, cropped)

    def _refuse_shuffle(self) -> None:
        if self.config.shuffle > 1:
            raise UserError(
                f"shuffle={self.config.shuffle} permutes patches before the crop and needs images in memory; "
                "this set is read from files: use shuffle=1"
            )


@lru_cache(STREAMS_HELD)
def stream_of(config: AugmentationConfig, count: int) -> AugmentationStream:
    """Return the stream of ``count`` images; the latest ones are kept, with their caches."""
    return AugmentationStream(config, count)
