"""Crop, resize, shift, flip and patch shuffle of a whole batch as two batched matrix products.

All of them are separable: what happens to the rows of an image does not depend on its columns. So each image
has a matrix (S, H) for its rows and one (S, W) for its columns, and a view is ``rows @ image @ columns.T``.
This is exact, differentiable in the pixels, and the same few kernels for any mixture of boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST_ENLARGED = 64  # pixels; smaller test images are never enlarged


def axis_weights(
    first: Tensor,
    length: Tensor,
    pixels: int,
    size: int,
    antialias: bool,
    *,
    reverse: Tensor | None = None,
    shift: Tensor | None = None,
    places: Tensor | None = None,
) -> Tensor:
    """Compute interpolation weights (B, size, pixels) of one axis: output i is ``weights[b, i] @ line``.

    The weights are ATen's bilinear ones (align_corners False): a triangle around the centre of output i in
    the box of ``length`` pixels, ``length / size`` wide with antialiasing when that is above one, else one
    pixel wide; pixels beyond the box do not count.

    Args:
        first, length: (B,) the box, in pixels of the axis.
        reverse: (B,) bool, flips the outputs.
        shift: (B,) output i shows what i + shift would; outputs from outside are black.
        places: (B, f) the axis is cut into f strips of equal width, and strip s is first moved to place s.
    """
    position = torch.arange(pixels, device=first.device)
    if places is not None:
        strip = pixels // places.shape[1]
        position = places[:, position // strip] * strip + position % strip
    output = torch.arange(size, device=first.device)
    if reverse is not None:
        output = torch.where(reverse[:, None], size - 1 - output, output)
    if shift is not None:
        output = output + shift[:, None]
    scale = (length / size)[:, None]
    centre = (output + 0.5) * scale - 0.5
    if not antialias:
        centre = torch.minimum(centre.clamp(min=0), (length - 1)[:, None])
    reach = scale.clamp(min=1)[:, :, None] if antialias else 1
    inside = position - first[:, None]
    # a pixel outside the box gets a position that is too far from every output
    inside = torch.where((inside >= 0) & (inside < length[:, None]), inside, -4 * pixels - 4)
    # -reach times the triangle: the norm takes out the factor and the sign
    weights = (inside[:, None, :] - centre[:, :, None]).abs_().sub_(reach).clamp_(max=0)
    weights /= weights.sum(2, keepdim=True)
    if shift is not None:
        black = (output < 0) | (output >= size)
        weights = weights.masked_fill_(black[:, :, None], 0)
    return weights


def apply_weights(rows: Tensor, columns: Tensor, pixels: Tensor) -> Tensor:
    """Compute ``rows @ pixels @ columns.T`` for each channel, (B, 3, S, S) of the pixels' float type.

    ``rows`` are (B, S, H), ``columns`` (B, S, W), ``pixels`` (B, 3, H, W).
    """
    batch, channels, height, width = pixels.shape
    rows, columns = rows.to(pixels.dtype), columns.to(pixels.dtype)
    size = columns.shape[1]
    # Autocast would halve the precision of the pixels; a view is a fact about an image, not a layer.
    with torch.autocast(pixels.device.type, enabled=False):
        across = torch.bmm(pixels.reshape(batch, channels * height, width), columns.transpose(1, 2))
        return torch.matmul(rows[:, None], across.view(batch, channels, height, size))


def resized_crop(pixels: Tensor, boxes: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Crop a box out of each image and resize it bilinearly to a square; differentiable in ``pixels``.

    It does what torchvision's ``resized_crop`` does for float tensors, with a box for each image.

    Args:
        pixels: float32 (B, 3, H, W), any range.
        boxes: integers (B, 4), each (top, left, height, width) inside the image, on the same device.
        size: pixels a side of the output, float32 (B, 3, size, size).
        antialias: widen the filter where the box is larger than ``size``.
    """
    top, left, height, width = boxes.unbind(1)
    rows = axis_weights(top, height, pixels.shape[2], size, antialias)
    columns = axis_weights(left, width, pixels.shape[3], size, antialias)
    return apply_weights(rows, columns, pixels)


def mirrored(pixels: Tensor, flips: Tensor) -> Tensor:
    """Mirror the ``pixels`` (B, C, S, S) where ``flips`` (B,) is 1.

    A selection among the images and their mirror images is several times as fast as ``torch.where`` on single pixels.
    """
    lanes = torch.arange(len(flips), device=flips.device)
    return torch.cat([pixels, pixels.flip(3)]).index_select(0, lanes + flips * len(flips))


def short_side(size: int) -> int:
    """Return the short side out of which a test view of ``size`` pixels is cut."""
    return size if size < _SMALLEST_ENLARGED else size // 7 * 8


def centre(pixels: Tensor, size: int, whole: bool = False) -> Tensor:
    """Make the test view: resize the short side (bilinear, antialiased), then crop the central square.

    The short side becomes ``size // 7 * 8``: 256 for 224, 144 for 128, 72 for 64, as in RDED's ``validate``. It
    becomes ``size`` for ``whole`` images and below 64 pixels; RDED's rule says the same for 32, the only such size
    there. uint8 (..., 3, H, W) become (..., 3, size, size).
    """
    from torchvision.transforms.v2 import functional as transforms  # here: it takes seconds

    resized = transforms.resize(pixels, [size if whole else short_side(size)], antialias=True)
    square: Tensor = transforms.center_crop(resized, [size, size])
    return square
