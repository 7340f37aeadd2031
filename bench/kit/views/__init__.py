"""Views: augmented batches that are made on the device and can be made again from (seed, epoch, image,
batch).

``AugmentationConfig`` says what is done to an image, ``AugmentationStream`` does it for whole
batches, ``AugmentedBatch`` is one;
``resized_crop`` is the batched crop on its own.
"""

from __future__ import annotations

from bench.api.augmentation import AugmentationConfig, AugmentedBatch
from bench.kit.views.geometry import resized_crop
from bench.kit.views.stream import AugmentationStream, stream_of

__all__ = ["AugmentationConfig", "AugmentationStream", "AugmentedBatch", "resized_crop", "stream_of"]
