"""SAM (Kirillov et al., "Segment Anything", arXiv 2304.02643) with one point as its prompt, for weights from a file.

The image encoder is timm's; the prompt encoder and the mask decoder follow the paper's Appendix A and have the names
and shapes of segment-anything's checkpoints (facebookresearch/segment-anything, ``sam_vit_b_01ec64.pth``). Of its
outputs the single mask is taken (``multimask_output=False``).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from methods.segmentation.config import SHRINKS
from methods.segmentation.masks import points_of

NAME = "sam_vit_b"
SIDE = 1024  # pixels per side of the encoder's input
MASK_TOKENS = 4  # the single mask, then three that differ in how much of a thing they mean
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # `Sam.pixel_mean` and `pixel_std` by 255


class Sam(nn.Module):
    """Pixels (B, 3, S, S) in [0, 1] and clicks (B, 1, S, S) → logits (B, S/4, S/4)."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, side: int, width: int = 256, heads: int = 8, hidden: int = 2048):
        """Build the decoder around an encoder (B, 3, side, side) → (B, width, side/16, side/16): a timm ``samvit``."""
        super().__init__()
        self.side = side
        self.image_encoder = encoder
        self.prompt_encoder = _PromptEncoder(width)
        self.mask_decoder = _MaskDecoder(width, heads, hidden)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, clicks: Tensor) -> Tensor:
        wanted = pixels.shape[2] // SHRINKS
        shrinks = pixels.shape[2] > self.side
        large = F.interpolate(pixels, (self.side, self.side), mode="bilinear", antialias=shrinks)
        features: Tensor = self.image_encoder.forward_features((large - self.mean) / self.std)  # type: ignore[operator]
        prompts = self.prompt_encoder(*points_of(clicks[:, 0]))
        logits = self.mask_decoder(features, self.prompt_encoder.grid(features.shape[2]), prompts,
                                   self.prompt_encoder.no_mask_embed.weight)  # fmt: skip
        made: Tensor = F.interpolate(logits[:, None], (wanted, wanted), mode="bilinear", antialias=True)[:, 0]
        return made


class SamB(Sam):
    """With the ViT-B encoder, as published."""

    def __init__(self) -> None:
        import timm

        super().__init__(timm.create_model("samvit_base_patch16", pretrained=False, num_classes=0), SIDE)


def load_official(model: Sam, state: dict[str, Tensor], file: Path) -> None:
    """Load a state dict in segment-anything's layout.

    Raises:
        UserError: names or shapes are another model's.
    """
    from timm.models.vision_transformer_sam import checkpoint_filter_fn

    renamed: dict[str, Tensor] = checkpoint_filter_fn(state, model.image_encoder)  # type: ignore[no-untyped-call]
    encoder = {f"image_encoder.{name}": t for name, t in renamed.items()}
    others = {name: t for name, t in state.items() if name.startswith(("prompt_encoder.", "mask_decoder."))}
    try:
        model.load_state_dict({**encoder, **others})
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines() if line.strip()][1]
        raise UserError(f"{file} is not segment-anything's checkpoint of ViT-B: {first[:150]}") from None


class _PromptEncoder(nn.Module):
    """Encode a point as two tokens: itself, and the placeholder of a box that is not given."""

    def __init__(self, width: int):
        super().__init__()
        self.pe_layer = _Fourier(width // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))  # ground, thing, two corners
        self.not_a_point_embed = nn.Embedding(1, width)
        # for masks as prompts, of which there are none here; part of every checkpoint
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2), LayerNorm2d(4), nn.GELU(),
            nn.Conv2d(4, 16, 2, 2), LayerNorm2d(16), nn.GELU(), nn.Conv2d(16, width, 1),
        )  # fmt: skip
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(self, points: Tensor, there: Tensor) -> Tensor:
        """Points (B, 2), row and column as shares of the sides; where none is there, both tokens stand for none."""
        nothing = self.not_a_point_embed.weight.expand(len(points), -1)
        thing = self.pe_layer(points.flip(1)) + self.point_embeddings[1].weight
        return torch.stack([torch.where(there[:, None], thing, nothing), nothing], 1)

    def grid(self, side: int) -> Tensor:
        """Encode the positions of the features, (1, side², C)."""
        middles = (torch.arange(side, device=self.no_mask_embed.weight.device) + 0.5) / side
        down, right = torch.meshgrid(middles, middles, indexing="ij")
        made: Tensor = self.pe_layer(torch.stack([right, down], -1).flatten(0, 1))[None]
        return made


class _Fourier(nn.Module):
    """Random Fourier features of positions (…, 2) in [0, 1], x before y."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, half: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, half))

    def forward(self, places: Tensor) -> Tensor:
        turns = 2 * math.pi * ((2 * places - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([turns.sin(), turns.cos()], -1)


class _MaskDecoder(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.transformer = _TwoWay(width, heads, hidden)
        self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(MASK_TOKENS, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, 2), LayerNorm2d(width // 4), nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, 2), nn.GELU(),
        )  # fmt: skip
        self.output_hypernetworks_mlps = nn.ModuleList(_layers(width, width // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = _layers(width, MASK_TOKENS)  # its own rating of each mask: unused here

    def forward(self, features: Tensor, positions: Tensor, prompts: Tensor, no_mask: Tensor) -> Tensor:
        """Features (B, C, s, s), positions (1, s², C), prompts (B, P, C) → logits (B, 4s, 4s) of the single mask."""
        batch, width, side, _ = features.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        image = features.flatten(2).transpose(1, 2) + no_mask
        tokens, image = self.transformer(image, positions, torch.cat([own, prompts], 1))
        upscaled = self.output_upscaling(image.transpose(1, 2).reshape(batch, width, side, side))
        first, second, last = self.output_hypernetworks_mlps[0].layers  # type: ignore[misc]
        weights = last(F.relu(second(F.relu(first(tokens[:, 1])))))
        return torch.einsum("bc,bchw->bhw", weights, upscaled)


def _layers(width: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(width, to) for to in (width, width, outputs))})


class _TwoWay(nn.Module):
    """Tokens and image attend to each other, twice, and then the tokens to the image once more."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.layers = nn.ModuleList(_TwoWayLayer(width, heads, hidden, first=index == 0) for index in range(2))
        self.final_attn_token_to_image = _Attention(width, width // 2, heads)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, image: Tensor, positions: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        tokens = prompts
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompts, positions)
        found = self.final_attn_token_to_image(tokens + prompts, image + positions, image)
        return self.norm_final_attn(tokens + found), image


class _TwoWayLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, first: bool):
        super().__init__()
        self.first = first
        self.self_attn = _Attention(width, width, heads)
        self.cross_attn_token_to_image = _Attention(width, width // 2, heads)
        self.mlp = nn.ModuleDict({"lin1": nn.Linear(width, hidden), "lin2": nn.Linear(hidden, width)})
        self.cross_attn_image_to_token = _Attention(width, width // 2, heads)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, prompts: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are still the prompts themselves: nothing is added to them
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            tokens = tokens + self.self_attn(tokens + prompts, tokens + prompts, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + prompts, image + positions, image))
        tokens = self.norm3(tokens + self.mlp["lin2"](F.relu(self.mlp["lin1"](tokens))))
        image = self.norm4(image + self.cross_attn_image_to_token(image + positions, tokens + prompts, tokens))
        return tokens, image


class _Attention(nn.Module):
    """Attention of several heads, at an inner width of its own."""

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, asking: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q, k, v = (
            projection(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection, tokens in ((self.q_proj, asking), (self.k_proj, keys), (self.v_proj, values))
        )
        found = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
