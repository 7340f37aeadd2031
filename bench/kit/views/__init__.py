"""Views: augmented batches that are made on the device and can be made again from (seed, epoch, image,
batch).

``ViewPlan`` says what is done to an image, ``ViewStream`` does it for whole batches, ``Views`` is such a
batch; ``resized_crop`` is the batched crop on its own.
"""

from __future__ import annotations

from bench.kit.views.geometry import resized_crop
from bench.kit.views.stream import Views, ViewStream
from bench.view_plan import ViewPlan

__all__ = ["ViewPlan", "ViewStream", "Views", "resized_crop"]
