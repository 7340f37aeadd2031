"""Accelerator hours as methods state them, for estimates at ImageNet size. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

# ms per image of training ResNet-18 at 224 px (HeLlO, arXiv 2408.08201, supplement Table 6: SRe2L's student, one A5000)
STEP = 1e3 * 0.75 / 1024
# 10^9 multiplications of one image at 224 px: torchvision's own figures; of CLIP's image towers, counted by torch
MULTIPLICATIONS = {
    "resnet18": 1.814, "resnet50": 4.089, "resnet101": 7.801, "mobilenet_v2": 0.301, "efficientnet_b0": 0.386,
    "shufflenet_v2_x0_5": 0.040, "swin_v2_t": 5.940, "vgg11": 7.609, "vit_b_16": 17.564, "alexnet": 0.714,
    "RN50": 6.111, "RN101": 9.771, "ViT-B-32": 4.409, "ViT-B-16": 17.563,
}  # fmt: skip


@dataclass(frozen=True)
class MethodCost:
    """Hours of a method's stages at 224 px on one grid point, and the networks that answer a view; None: not known."""

    prepare: float | None = None
    distill: float | None = None
    label: float | None = None
    label_networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudentCost:
    """The printed cost of training ResNet-18 at 224 px under a method's own labels."""

    batch_size: int
    seconds: float  # per iteration
    mebibytes: int

    @property
    def milliseconds_per_image(self) -> float:
        """Milliseconds per image shown."""
        return 1e3 * self.seconds / self.batch_size


def network_hours(images: float, networks: tuple[str, ...], training: bool = False) -> float | None:
    """Hours in which each network sees ``images`` at 224 px; None: a network is not known.

    Networks take as long as their multiplications say, but none less than ResNet-18, because small ones wait for
    memory; a forward pass takes a third of a training step.
    """
    if not networks or not set(networks) <= MULTIPLICATIONS.keys():
        return None
    weights = sum(max(1.0, MULTIPLICATIONS[name] / MULTIPLICATIONS["resnet18"]) for name in networks)
    return images * weights * (1 if training else 1 / 3) * STEP / 3.6e6
