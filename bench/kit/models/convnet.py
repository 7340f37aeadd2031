"""ConvNet-D, the small network of the dataset-distillation literature."""

from __future__ import annotations

from torch import Tensor, nn

from bench.errors import UserError


class ConvNet(nn.Module):
    """D blocks of 3x3 convolution, norm, ReLU and 2x2 average pooling, then one linear layer.

    Width 128 and batch norm as in RDED (``load_model`` of its repository), or norm by instance as in dataset
    condensation, MTT and G_VBSM's pool, whose names the parameters have. (B, 3, S, S) → (B, classes).

    Raises:
        UserError: the image is too small to be halved D times.
    """

    def __init__(self, depth: int, width: int, classes: int, image_size: int, by_instance: bool = False):
        super().__init__()
        side = image_size >> depth
        if side < 1:
            raise UserError(f"convnet{depth} halves images {depth} times: {image_size} px are too few")
        blocks: list[nn.Module] = []
        for index in range(depth):
            blocks += [
                nn.Conv2d(width if index else 3, width, 3, padding=1),
                nn.GroupNorm(width, width) if by_instance else nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * side * side, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(self.features(pixels).flatten(1))  # type: ignore[no-any-return]
