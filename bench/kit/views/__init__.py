"""Views: augmented batches, made on the device and reproducible from (seed, epoch, image, batch).

``AugmentationConfig`` describes the augmentation, ``AugmentationStream`` makes an ``AugmentedBatch`` by it;
``resized_crop`` is the batched crop on its own.
"""

from __future__ import annotations

from bench.api.augmentation import AugmentationConfig, AugmentedBatch
from bench.kit.views.geometry import resized_crop
from bench.kit.views.stream import AugmentationStream, stream_of

__all__ = ["AugmentationConfig", "AugmentationStream", "AugmentedBatch", "resized_crop", "stream_of"]
