"""The projector of masks as a module and as a label source.

It is a public CLIP's image tower with low-rank updates, a neck and a light decoder.
On disk: ``source.json`` names the public CLIP with its SHA-256 and the settings; ``adapters.safetensors`` holds what
was trained: low-rank matrices, neck and decoder, with the running statistics of the decoder's norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from open_clip import CLIP
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import AugmentedBatch, Task, seed_for
from bench.errors import UserError
from bench.kit.clip.loading import Tokenizer, load_clip
from methods.hello import lora
from methods.hello.projector import AdaptedClip, Normalise, fold_batch_norms
from methods.segmentation.config import SHRINKS, ProjectorConfig
from methods.segmentation.masks import click_maps
from methods.segmentation.networks import MaskDecoder
from methods.segmentation.teacher import MaskLabels, TeacherMasks
from methods.segmentation.train import train

SMALLEST = 32  # how far a ResNet tower shrinks an image


class MaskProjector(nn.Module):
    """Pixels (B, 3, S, S) in [0, 1] and clicks (B, 1, S, S) → logits (B, S/4, S/4).

    The tower gets the image at its own size or the next multiple of 32: without its attention pool, which is left out,
    it consists of convolutions. The neck brings its stages to one width and the logits' size and adds them.
    """

    def __init__(self, tower: ModifiedResNet, config: ProjectorConfig, generator: torch.Generator):
        super().__init__()
        gains = fold_batch_norms(tower)
        tower.attnpool = nn.Identity()
        self.tower = tower.eval().requires_grad_(False)
        lora.attach(tower, lora.select(tower, config.layers, False), config.conv_rank, config.convention, None, gains,
                    generator)  # fmt: skip
        last: list[Any] = [stage[-1] for stage in self._stages()]
        self.neck = nn.ModuleList(nn.Conv2d(one.conv3.out_channels, config.decoder_width, 1) for one in last)
        self.decoder = MaskDecoder(config.decoder_width, config.decoder_width)
        self.normalise = Normalise(tower)

    def _stages(self) -> list[nn.Sequential]:
        return [self.tower.layer1, self.tower.layer2, self.tower.layer3, self.tower.layer4]

    def forward(self, pixels: Tensor, clicks: Tensor) -> Tensor:
        pixels = self.normalise(pixels)
        quarter = [side // SHRINKS for side in pixels.shape[2:]]
        whole = [-(-side // SMALLEST) * SMALLEST for side in pixels.shape[2:]]
        if whole != list(pixels.shape[2:]):
            pixels = F.interpolate(pixels, whole, mode="bilinear")
        features = self.tower.stem(pixels)
        brought: list[Tensor] = []
        for stage, to_width in zip(self._stages(), self.neck, strict=True):
            features = stage(features)
            brought.append(F.interpolate(to_width(features), quarter, mode="nearest"))
        return self.decoder(F.relu(sum(brought)), clicks)  # type: ignore[no-any-return, arg-type]

    def trained(self) -> dict[str, Tensor]:
        """Return what is stored, by name: trainable parameters and the norms' running statistics."""
        buffers = {name: b for name, b in self.decoder.named_buffers(prefix="decoder") if b.is_floating_point()}
        return {**lora.adapters(self), **buffers}


def build(clip: CLIP, config: ProjectorConfig, seed: int = 0) -> MaskProjector:
    """Build the projector before training; the tower is altered.

    Raises:
        UserError: the tower is no ResNet.
    """
    tower = clip.visual
    if not isinstance(tower, ModifiedResNet):
        raise UserError("promptable_lora needs a CLIP whose image tower is a ResNet, e.g. icon-clip or RN50:openai")
    device = clip.logit_scale.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of neck and decoder
        made = MaskProjector(tower, config, torch.Generator().manual_seed(seed))
    return made.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class ProjectorMasks(AdaptedClip, MaskLabels):
    """The masks of a merged projector. Counted is what was trained of it."""

    kind: ClassVar[str] = "mask-projector"
    Config = ProjectorConfig

    def built(self, clip: CLIP, tokenizer: Tokenizer) -> tuple[nn.Module, Mapping[str, Tensor]]:
        self.model = made = build(clip, self.config)
        return made, made.trained()


def train_projector(task: Task, clip_name: str, config: ProjectorConfig, teacher: TeacherMasks) -> ProjectorMasks:
    """Train the projector towards the teacher's masks, as probabilities, on the training split. Resumable."""
    clip, _, base = load_clip(clip_name, task.device)
    projector = build(clip, config, seed_for("promptable-lora-init", task.seed))
    del clip  # with it goes the text tower

    @torch.no_grad()
    def masks(views: AugmentedBatch) -> Tensor:
        return teacher.model(views.pixels, click_maps(views)).sigmoid()  # type: ignore[no-any-return]

    train(projector, task, config.training, masks, seed_for("promptable-lora-views", task.seed))
    tensors = {name: t.detach().to("cpu", copy=True) for name, t in projector.trained().items()}
    return ProjectorMasks(clip_name, base, config, tensors, task.device)
