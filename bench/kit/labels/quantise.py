"""Label models stored in fewer bits: any saved source, its matrices as whole numbers with scales."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from bench.api.stored.precision import FACTORS, GROUP, Precision
from bench.kit.labels.numbers import LEVELS, pack, unpack

PACKED = "packed"  # in source.json: the precision, and the shapes that half bytes do not tell
CLIPS = 20  # of the largest value, from .7 to 1, the best is taken for int4
_SCALE = ".scale"
State = dict[str, Tensor]


def store_packed(source: Path, target: Path, precision: str) -> None:
    """Write a saved label source again with all its tensors in a precision; vectors stay as they are."""
    kind, shapes = Precision.parse(precision), {}
    for path in sorted(source.glob("*.safetensors")):
        state, kept = balanced(load_file(path)) if kind.numbers != "fp16" else load_file(path), State()
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                kept[name] = tensor
            elif kind.numbers == "fp16":
                kept[name] = tensor.clamp(*_ends(torch.float16)).half()
            elif tensor.dim() < 2:
                kept[name] = tensor
            else:
                shapes[f"{path.name}/{name}"] = list(tensor.shape)
                kept[name], kept[name + _SCALE] = quantise(tensor, kind, name)
        save_file(kept, target / path.name)
    facts = json.loads((source / "source.json").read_text(encoding="utf-8"))
    facts[PACKED] = {"precision": precision, **({"shapes": shapes} if shapes else {})}
    (target / "source.json").write_text(json.dumps(facts, separators=(",", ":")) + "\n", encoding="utf-8")
    for path in source.iterdir():
        if not (target / path.name).exists():
            shutil.copy(path, target / path.name)


def unpack_into(folder: Path, target: Path) -> None:
    """Write the float32 source that a folder of :func:`store_packed` stands for."""
    facts = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    packed = facts.pop(PACKED)
    kind = Precision.parse(packed["precision"])
    for path in folder.glob("*.safetensors"):
        state, made = load_file(path), State()
        for name, tensor in state.items():
            shape = packed.get("shapes", {}).get(f"{path.name}/{name}")
            if shape is not None:
                made[name] = restore(tensor, state[name + _SCALE], shape, kind, name)
            elif f"{path.name}/{name.removesuffix(_SCALE)}" not in packed.get("shapes", {}):
                made[name] = tensor.float() if tensor.is_floating_point() else tensor
        save_file(made, target / path.name)
    (target / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        if not (target / path.name).exists():
            shutil.copy(path, target / path.name)


def quantise(tensor: Tensor, kind: Precision, name: str = "") -> tuple[Tensor, Tensor]:
    """Return whole numbers (rows, width), of half a byte two in one, and the scales in fp16, of :class:`Precision`.

    The scale is rounded before the numbers are made of it; a row of zeros has the scale zero.
    """
    most, lines = LEVELS[kind.numbers], _lines(tensor.float().flatten(1), kind, name)
    scale = (lines.abs().amax(1, keepdim=True) / most).clamp(max=_ends(torch.float16)[1]).half().float()
    if kind.numbers == "int4":
        tried = torch.stack([(scale * clip).half().float() for clip in torch.linspace(0.7, 1, CLIPS).tolist()])
        errors = (_rounded(lines, tried, most) * tried - lines).square().sum(2, keepdim=True)
        scale = tried.gather(0, errors.argmin(0, keepdim=True))[0]
    levels = _unlined(_rounded(lines, scale, most), (len(tensor), math.prod(tensor.shape[1:])), kind, name)
    return pack(levels, most).contiguous(), scale[:, 0].half()


def restore(packed: Tensor, scale: Tensor, shape: Sequence[int], kind: Precision, name: str = "") -> Tensor:
    """Return the float32 tensor that :func:`quantise` stored."""
    levels = unpack(packed, math.prod(shape[1:]))
    lines = _lines(levels, kind, name) * scale.float()[:, None]
    return _unlined(lines, (shape[0], math.prod(shape[1:])), kind, name).reshape(*shape).contiguous()


def balanced(state: State) -> State:
    """Replace low-rank factors A and B by those of a thin SVD of B A, each with the roots of the singular values."""
    made = dict(state)
    for name, b in state.items():
        a = state.get(name.removesuffix(FACTORS[1]) + FACTORS[0])
        if not name.endswith(FACTORS[1]) or a is None or b.dim() != 2 or b.shape[1] != a.shape[0]:
            continue
        (q_b, r_b), (q_a, r_a) = torch.linalg.qr(b.double()), torch.linalg.qr(a.double().T)
        left, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        rank, root = len(a), values.sqrt()
        made[name] = F.pad(q_b @ left * root, (0, rank - len(root))).to(b.dtype)
        made[name.removesuffix(FACTORS[1]) + FACTORS[0]] = (
            F.pad((q_a @ right.T * root).T, (0, 0, 0, rank - len(root))).to(a.dtype).contiguous()
        )
    return made


def _rounded(lines: Tensor, scale: Tensor, most: int) -> Tensor:
    return (lines / scale.clamp(min=torch.finfo(torch.float16).tiny / 2**10)).round().clamp(-most, most)


def _lines(matrix: Tensor, kind: Precision, name: str) -> Tensor:
    """Lay a matrix out with one scale per row."""
    if kind.per == "group64":
        return F.pad(matrix, (0, -matrix.shape[1] % GROUP)).reshape(-1, GROUP)
    return matrix.T if kind.per == "rank" and name.endswith(FACTORS[1]) else matrix


def _unlined(lines: Tensor, shape: tuple[int, int], kind: Precision, name: str) -> Tensor:
    if kind.per == "group64":
        return lines.reshape(shape[0], -1)[:, : shape[1]]
    return lines.T if kind.per == "rank" and name.endswith(FACTORS[1]) else lines


def _ends(dtype: torch.dtype) -> tuple[float, float]:
    return torch.finfo(dtype).min, torch.finfo(dtype).max
