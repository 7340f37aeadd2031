"""SAM: names and shapes of segment-anything's checkpoints, its decoder against loops, and files that hold it or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer_sam import VisionTransformerSAM, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import AugmentedBatch, Dataset, DatasetInfo, GridPoint, TeacherSpec
from bench.errors import UserError
from bench.kit.running import RunningTask
from methods.segmentation import sam
from methods.segmentation.config import TeacherConfig
from methods.segmentation.masks import clicks
from methods.segmentation.promptable import Promptable
from methods.segmentation.sam import Sam, SamB, load_official
from methods.segmentation.scenes import with_masks

CPU = torch.device("cpu")
WIDTH, TINY = 16, 64


def tiny() -> Sam:
    """SAM for 64-px images: two blocks, one of them of windows, and a decoder of width 16."""
    encoder = VisionTransformerSAM(
        img_size=TINY, embed_dim=24, depth=2, num_heads=2, num_classes=0, use_rel_pos=True, window_size=3,
        global_attn_indexes=(1,), neck_chans=WIDTH,
    )  # fmt: skip
    return Sam(encoder, TINY, WIDTH, heads=2, hidden=32)


def drawn(seed: int = 0) -> Sam:
    """With weights that are all far from their start, so that none can be left out unseen."""
    torch.manual_seed(seed)
    model = tiny().eval()
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) * 0.3)
    return model


def official(model: nn.Module) -> dict[str, Tensor]:
    """The state dict as segment-anything would write it."""
    return {name.replace("mlp.fc", "mlp.lin") if name.startswith("image_encoder") else name: tensor.clone()
            for name, tensor in model.state_dict().items()}  # fmt: skip


# -- names and shapes, as in segment-anything's build_sam_vit_b


def published() -> dict[str, tuple[int, ...]]:
    """Every tensor of sam_vit_b_01ec64.pth."""
    shapes: dict[str, tuple[int, ...]] = {}

    def both(name: str, *weight: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, (bias or weight[0],)

    shapes["image_encoder.pos_embed"] = (1, 64, 64, 768)
    both("image_encoder.patch_embed.proj", 768, 3, 16, 16)
    for index in range(12):
        block = f"image_encoder.blocks.{index}"
        for norm in ("norm1", "norm2"):
            both(f"{block}.{norm}", 768)
        for axis in "hw":
            shapes[f"{block}.attn.rel_pos_{axis}"] = (127 if index in (2, 5, 8, 11) else 27, 64)
        both(f"{block}.attn.qkv", 2304, 768)
        both(f"{block}.attn.proj", 768, 768)
        both(f"{block}.mlp.lin1", 3072, 768)
        both(f"{block}.mlp.lin2", 768, 3072)
    shapes["image_encoder.neck.0.weight"] = (256, 768, 1, 1)
    both("image_encoder.neck.1", 256)
    shapes["image_encoder.neck.2.weight"] = (256, 256, 3, 3)
    both("image_encoder.neck.3", 256)
    shapes["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = (2, 128)
    for name in (*(f"point_embeddings.{index}" for index in range(4)), "not_a_point_embed", "no_mask_embed"):
        shapes[f"prompt_encoder.{name}.weight"] = (1, 256)
    for place, shape in ((0, (4, 1, 2, 2)), (1, (4,)), (3, (16, 4, 2, 2)), (4, (16,)), (6, (256, 16, 1, 1))):
        both(f"prompt_encoder.mask_downscaling.{place}", *shape)
    attentions = [("final_attn_token_to_image", 128)]
    for layer in ("layers.0", "layers.1"):
        attentions += [(f"{layer}.self_attn", 256)]
        attentions += [(f"{layer}.cross_attn_{way}", 128) for way in ("token_to_image", "image_to_token")]
        for norm in range(1, 5):
            both(f"mask_decoder.transformer.{layer}.norm{norm}", 256)
        both(f"mask_decoder.transformer.{layer}.mlp.lin1", 2048, 256)
        both(f"mask_decoder.transformer.{layer}.mlp.lin2", 256, 2048)
    for name, inner in attentions:
        for projection in "qkv":
            both(f"mask_decoder.transformer.{name}.{projection}_proj", inner, 256)
        both(f"mask_decoder.transformer.{name}.out_proj", 256, inner)
    both("mask_decoder.transformer.norm_final_attn", 256)
    shapes["mask_decoder.iou_token.weight"], shapes["mask_decoder.mask_tokens.weight"] = (1, 256), (4, 256)
    both("mask_decoder.output_upscaling.0", 256, 64, 2, 2, bias=64)
    both("mask_decoder.output_upscaling.1", 64)
    both("mask_decoder.output_upscaling.3", 64, 32, 2, 2, bias=32)
    heads = [(f"output_hypernetworks_mlps.{index}", 32) for index in range(4)] + [("iou_prediction_head", 4)]
    for name, outputs in heads:
        for place, width in enumerate((256, 256, outputs)):
            both(f"mask_decoder.{name}.layers.{place}", width, 256)
    return shapes


def test_sam_b_has_the_published_names_and_shapes() -> None:
    wanted = published()
    assert len(wanted) == 314  # tensors in the file
    with torch.device("meta"):
        model = SamB()
    stored = {name: torch.empty(shape, device="meta") for name, shape in wanted.items()}
    renamed = checkpoint_filter_fn(stored, model.image_encoder)
    theirs = {f"image_encoder.{name}": tensor.shape for name, tensor in renamed.items()}
    theirs |= {name: tensor.shape for name, tensor in stored.items() if not name.startswith("image_encoder.")}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == theirs
    assert {name: tuple(tensor.shape) for name, tensor in official(model).items()} == wanted
    assert sum(parameter.numel() for parameter in model.parameters()) == 93_735_472
    with torch.device("meta"):
        load_official(model, stored, Path("sam.pth"))


# -- the network against loops


def linear(layer: nn.Module, values: list[float]) -> list[float]:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()  # type: ignore[operator]
    return [sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(weight, bias, strict=True)]  # type: ignore[arg-type]


def norm(layer: nn.Module, values: list[float], epsilon: float = 1e-5) -> list[float]:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + epsilon)
    scaled = zip(values, layer.weight.tolist(), layer.bias.tolist(), strict=True)  # type: ignore[operator,arg-type]
    return [(v - mean) / spread * w + b for v, w, b in scaled]


def plus(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


Tokens = list[list[float]]


def attention(module: nn.Module, asking: Tokens, keys: Tokens, values: Tokens, heads: int) -> Tokens:
    q, k, v = ([linear(getattr(module, f"{name}_proj"), token) for token in tokens]
               for name, tokens in (("q", asking), ("k", keys), ("v", values)))  # fmt: skip
    each = len(q[0]) // heads
    made = []
    for token in q:
        joined: list[float] = []
        for head in range(heads):
            part = slice(head * each, (head + 1) * each)
            scores = [math.exp(sum(a * b for a, b in zip(token[part], key[part], strict=True)) / math.sqrt(each))
                      for key in k]  # fmt: skip
            for place in range(head * each, (head + 1) * each):
                joined.append(sum(s * value[place] for s, value in zip(scores, v, strict=True)) / sum(scores))
        made.append(linear(module.out_proj, joined))  # type: ignore[arg-type]
    return made


def fourier(matrix: list[list[float]], x: float, y: float) -> list[float]:
    turns = [2 * math.pi * ((2 * x - 1) * a + (2 * y - 1) * b) for a, b in zip(*matrix, strict=True)]
    return [math.sin(turn) for turn in turns] + [math.cos(turn) for turn in turns]


def gelu(value: float) -> float:
    return value * (1 + math.erf(value / math.sqrt(2))) / 2


def slow_masks(model: Sam, features: Tensor, point: tuple[float, float] | None) -> list[list[float]]:
    """Logits (4s, 4s) of one image's features (C, s, s), from segment-anything's prompt_encoder.py, mask_decoder.py
    and transformer.py, token by token; ``point`` is (x, y) in [0, 1]."""
    prompt, decoder = model.prompt_encoder, model.mask_decoder
    side = features.shape[1]
    matrix = prompt.pe_layer.positional_encoding_gaussian_matrix.tolist()
    nothing = prompt.not_a_point_embed.weight[0].tolist()
    first = nothing
    if point is not None:
        first = plus(fourier(matrix, *point), prompt.point_embeddings[1].weight[0].tolist())  # type: ignore[operator]
    queries = [decoder.iou_token.weight[0].tolist(), *decoder.mask_tokens.weight.tolist(), first, nothing]
    no_mask = prompt.no_mask_embed.weight[0].tolist()
    places = [(row, column) for row in range(side) for column in range(side)]
    image = [plus(features[:, row, column].tolist(), no_mask) for row, column in places]
    where = [fourier(matrix, (column + 0.5) / side, (row + 0.5) / side) for row, column in places]
    heads = 2

    def added(tokens: Tokens, others: Tokens) -> Tokens:
        return [plus(one, other) for one, other in zip(tokens, others, strict=True)]

    tokens = queries
    for index, layer in enumerate(decoder.transformer.layers):
        if index == 0:
            tokens = attention(layer.self_attn, tokens, tokens, tokens, heads)  # type: ignore[arg-type]
        else:
            asking = added(tokens, queries)
            tokens = added(tokens, attention(layer.self_attn, asking, asking, tokens, heads))  # type: ignore[arg-type]
        tokens = [norm(layer.norm1, token) for token in tokens]  # type: ignore[arg-type]
        found = attention(layer.cross_attn_token_to_image, added(tokens, queries), added(image, where), image, heads)  # type: ignore[arg-type]
        tokens = [norm(layer.norm2, token) for token in added(tokens, found)]  # type: ignore[arg-type]
        hidden = [[max(0.0, v) for v in linear(layer.mlp["lin1"], token)] for token in tokens]  # type: ignore[index]
        tokens = added(tokens, [linear(layer.mlp["lin2"], token) for token in hidden])  # type: ignore[index]
        tokens = [norm(layer.norm3, token) for token in tokens]  # type: ignore[arg-type]
        found = attention(layer.cross_attn_image_to_token, added(image, where), added(tokens, queries), tokens, heads)  # type: ignore[arg-type]
        image = [norm(layer.norm4, place) for place in added(image, found)]  # type: ignore[arg-type]
    last = decoder.transformer.final_attn_token_to_image
    tokens = added(tokens, attention(last, added(tokens, queries), added(image, where), image, heads))
    mask_token = norm(decoder.transformer.norm_final_attn, tokens[1])

    def twice_as_large(grid: list[list[list[float]]], layer: nn.Module) -> list[list[list[float]]]:
        """A transposed convolution of stride and size 2."""
        weight, bias = layer.weight.tolist(), layer.bias.tolist()  # type: ignore[operator]
        return [[[sum(grid[y // 2][x // 2][c] * weight[c][o][y % 2][x % 2] for c in range(len(weight))) + b  # type: ignore[arg-type]
                  for o, b in enumerate(bias)] for x in range(2 * len(grid))] for y in range(2 * len(grid))]  # type: ignore[arg-type]  # fmt: skip

    grid = [[image[row * side + column] for column in range(side)] for row in range(side)]
    grid = twice_as_large(grid, decoder.output_upscaling[0])
    grid = [[[gelu(v) for v in norm(decoder.output_upscaling[1], place, 1e-6)] for place in row] for row in grid]
    grid = [[[gelu(v) for v in place] for place in row] for row in twice_as_large(grid, decoder.output_upscaling[3])]
    weights = mask_token
    for index, layer in enumerate(decoder.output_hypernetworks_mlps[0].layers):  # type: ignore[arg-type]
        weights = linear(layer, weights)
        weights = [max(0.0, v) for v in weights] if index < 2 else weights
    return [[sum(w * v for w, v in zip(weights, place, strict=True)) for place in row] for row in grid]


def test_prompts_and_decoder_are_segment_anything_s() -> None:
    model = drawn().double()
    features = torch.randn(3, WIDTH, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    points = torch.tensor([[0.2, 0.7], [0.9, 0.1], [0.0, 0.0]], dtype=torch.float64)  # row before column
    there = torch.tensor([True, True, False])
    with torch.no_grad():
        prompt = model.prompt_encoder
        positions = prompt.pe_layer(_middles(3))[None]
        found = model.mask_decoder(features, positions, prompt(points, there), prompt.no_mask_embed.weight)
        torch.testing.assert_close(prompt.float().grid(3), positions.float(), atol=1e-5, rtol=1e-5)
        model.double()
    for k, point in enumerate(((0.7, 0.2), (0.1, 0.9), None)):
        wanted = torch.tensor(slow_masks(model, features[k], point), dtype=torch.float64)
        torch.testing.assert_close(found[k], wanted, atol=1e-8, rtol=1e-8)


def _middles(side: int) -> Tensor:
    return torch.tensor([[(column + 0.5) / side, (row + 0.5) / side] for row in range(side) for column in range(side)],
                        dtype=torch.float64)  # fmt: skip


def test_images_are_enlarged_and_normalised_and_masks_come_back_to_a_quarter() -> None:
    model = drawn()
    seen: dict[str, Tensor] = {}
    plain_features: Callable[[Tensor], Tensor] = model.image_encoder.forward_features  # type: ignore[assignment]

    def features(pixels: Tensor) -> Tensor:
        seen["pixels"] = pixels
        seen["features"] = plain_features(pixels)
        return seen["features"]

    model.image_encoder.forward_features = features  # type: ignore[assignment]
    model.mask_decoder.register_forward_hook(lambda module, given, made: seen.update(logits=made))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    planes = clicks(torch.tensor([[9, 20], [16, 4]]), 32, 32)[:, None].float() / 255
    with torch.no_grad():
        made = model(pixels, planes)
        large = F.interpolate(pixels, (TINY, TINY), mode="bilinear")
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(seen["pixels"], (large - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        assert made.shape == (2, 8, 8) and seen["logits"].shape == (2, 16, 16)
        for k, (x, y) in enumerate(((20.5 / 32, 9.5 / 32), (4.5 / 32, 16.5 / 32))):
            wanted = torch.tensor(slow_masks(model, seen["features"][k], (x, y)))
            torch.testing.assert_close(seen["logits"][k], wanted, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(model(pixels, planes.flip(0)), made)
        assert torch.isfinite(model(pixels, torch.zeros_like(planes))).all()


# -- files


def task(work: Path) -> RunningTask:
    info = DatasetInfo(
        name="toy", title="Toy", classes=2, image_size=16, smallest_class=2, train_images=4, test_images=4,
        mean=(0.5,) * 3, std=(0.25,) * 3, teacher=TeacherSpec(), clip="icon-clip", student="promptable-w4",
        task="segmentation", label_shape=(4, 4),
    )  # fmt: skip
    masks = torch.ones(4, 16, 16, dtype=torch.uint8)
    split = with_masks(masks[:, None].repeat(1, 3, 1, 1), torch.tensor([0, 0, 1, 1]), torch.zeros(4, 2).long(), masks)
    data = Dataset(info, ("a", "b"), ("a", "b"), split, split)
    return RunningTask(
        dataset=info, ipc=1, seed=0, data=data, device=CPU, work=work, on_progress=lambda *_, **__: None
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_in_their_layout_is_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(sam, "SamB", tiny)
    model, file = drawn(4), tmp_path / f"sam.{suffix}"
    if suffix == "pth":
        torch.save(official(model), file)
    else:
        save_file(official(model), file)
    teacher = Promptable(TeacherConfig(file=str(file)))
    here = task(tmp_path)
    teacher.check(GridPoint(here.dataset, 1, 0))
    prepared = teacher.prepare(here)
    file.unlink()  # what was taken over needs it no more
    found = teacher.label_model(replace(here, prepared=prepared))
    assert found.parameters() == sum(p.numel() for p in model.parameters())
    pixels, click = torch.rand(2, 3, 16, 16), clicks(torch.tensor([[3, 4], [9, 9]]), 16, 16)[:, None].float() / 255
    nobody = torch.zeros(2, dtype=torch.int64)
    views = AugmentedBatch(pixels, nobody, nobody, nobody, nobody, 1.0, 0, 0, click)
    with torch.no_grad():
        torch.testing.assert_close(found.soft_labels(views, 0), model(pixels, click).flatten(1), atol=1e-4, rtol=1e-4)


def test_the_teacher_s_identity_is_what_its_file_holds(tmp_path: Path) -> None:
    recipes = []
    for name, content in (("a.pth", b"one"), ("b.pth", b"one"), ("c.pth", b"other")):
        (tmp_path / name).write_bytes(content)
        setting = GridPoint(task(tmp_path).dataset, 1, 0)
        method = Promptable(TeacherConfig(file=str(tmp_path / name)))
        recipes.append({**method.config.identity("prepared"), **method.depends_on("prepared", setting)})
    assert recipes[0] == recipes[1] != recipes[2] and str(tmp_path) not in str(recipes)


def test_other_files_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam, "SamB", tiny)
    right = official(tiny())
    one = "mask_decoder.iou_token.weight"
    files: dict[str, object] = {
        "a classifier": {"fc.weight": torch.ones(2, 2)},
        "nothing": {},
        "one missing": {name: tensor for name, tensor in right.items() if name != one},
        "one more": {**right, "mask_decoder.iou_token.bias": torch.ones(1)},
        "another size": {**right, one: torch.ones(1, 2 * WIDTH)},
        "another size of the encoder": {**right, "image_encoder.pos_embed": torch.ones(1, 8, 8, 24)},
        "one more of the encoder": {**right, "image_encoder.extra": torch.ones(1)},
        "no state dict": {"model": {"a": 3}},
    }
    for name, content in files.items():
        file = tmp_path / f"{name}.pth"
        torch.save(content, file)
        with pytest.raises(UserError) as error:
            Promptable(TeacherConfig(file=str(file))).prepare(task(tmp_path))
        message = str(error.value)
        assert "\n" not in message and str(file) in message and len(message) < 400, name
        assert "segment-anything" in message or "no state dict" in message, message
    (tmp_path / "text.pth").write_text("no weights at all")
    with pytest.raises(UserError, match=r"text.pth can't be read as a checkpoint"):
        Promptable(TeacherConfig(file=str(tmp_path / "text.pth"))).prepare(task(tmp_path))
    with pytest.raises(UserError, match="is no file; expected segment-anything's checkpoint"):
        Promptable(TeacherConfig(file=str(tmp_path / "gone.pth"))).check(GridPoint(task(tmp_path).dataset, 1, 0))
