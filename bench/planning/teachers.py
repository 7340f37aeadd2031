"""Teachers from files: what ``--teacher`` and ``--teacher-trajectory`` mean on a data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.api import DatasetInfo, TeacherSpec, architectures
from bench.errors import UserError, unknown
from bench.planning.grid import Request
from bench.planning.protocols import read_settings, read_toml

PRETRAINED = "torchvision"  # in place of a file: weights of torchvision or timm, from their local caches
STATED = ("arch", "image_size", "mean", "std", "class_order", "accuracy", "weights")  # in the TOML file next to it
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
_MAX_BYTES = 16 * 2**30


def with_teachers(info: DatasetInfo, request: Request, chosen: dict[str, Any]) -> DatasetInfo:
    """Give a data set the teachers of a request that come from files; the first is its own teacher from then on.

    Args:
        chosen: the user's settings of teachers, which override the TOML file next to them.

    Raises:
        UserError: a file is missing or none, two are of one architecture, or what is stated of one can't be.
    """
    found: dict[str, TeacherSpec] = {}
    for flag, texts in (("--teacher", request.teacher), ("--teacher-trajectory", request.teacher_trajectory)):
        for text in texts:
            if text == PRETRAINED and flag == "--teacher":
                continue
            spec = _from_files(flag, text, info.teacher, chosen)
            if spec.arch in found:
                raise UserError(f"{flag} {text}: a second teacher of {spec.arch}; name others as ARCH=FILE")
            found[spec.arch] = spec
    if not found:
        return info
    first = next(iter(found.values()))
    own = info.teacher.model_copy(update={"arch": first.arch, "image_size": first.image_size})
    return info.model_copy(update={"teacher": own, "foreign": tuple(found.values())})


def _from_files(flag: str, text: str, usual: TeacherSpec, chosen: dict[str, Any]) -> TeacherSpec:
    arch, equals, place = text.partition("=")
    if not equals or Path(text).exists():
        arch, place = "", text
    path, trajectory = Path(place).expanduser(), flag != "--teacher"
    files = _epochs(flag, path) if trajectory else {1: path}
    for file in files.values():
        if not file.is_file():
            raise UserError(f"{flag} {file} is not a file; expected a checkpoint (state dict)")
        if file.stat().st_size > _MAX_BYTES:
            raise UserError(f"{flag} {file} has {file.stat().st_size / 2**30:.0f} GiB, more than a checkpoint may")
    beside = (path if path.is_dir() else path.parent) / "teacher.toml" if trajectory else path.with_suffix(".toml")
    stated = read_toml(beside, "teacher") if beside.is_file() else {}
    if odd := stated.keys() - set(STATED):
        raise unknown(f"key in {beside}", min(odd), STATED)
    values = {**usual.non_default_fields(), **stated, **chosen, **({"arch": arch} if arch else {})}
    spec = read_settings(TeacherSpec, values, f"{beside}" if stated else "the settings of teacher")
    architectures.check(spec.arch)
    epochs = tuple(files) if trajectory else ()
    spec = spec.model_copy(update={"files": tuple(str(f.absolute()) for f in files.values()), "file_epochs": epochs})
    return spec.model_copy(update={"file_sha256": spec.digest()})


def _epochs(flag: str, place: Path) -> dict[int, Path]:
    """Return the files of a trajectory by epoch, from 1, ascending: of a folder, or of a pattern with ``{epoch}``.

    In a folder they are the largest group of names that differ in numbers alone, such as ``model_7.pth`` or
    ``epoch=7-step=600.ckpt``.
    """
    folder = place if place.is_dir() else place.parent
    pattern = re.escape(place.name).replace(r"\{epoch\}", r"(\d+)")
    if not folder.is_dir() or (folder != place and "{epoch}" not in place.name):
        raise UserError(f"{flag} {place}: expected a folder of checkpoints, or a pattern as DIR/model_{{epoch}}.pth")
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES or folder != place]
    if folder != place:
        found = [(int(match[1]), path) for path in files if (match := re.fullmatch(pattern, path.name))]
    else:
        kinds = Counter(re.sub(r"\d+", "#", path.name) for path in files if re.search(r"\d", path.stem))
        usual = max(kinds, key=lambda kind: kinds[kind], default="")
        alike = [path for path in files if re.sub(r"\d+", "#", path.name) == usual]
        found = [(_number(path.stem), path) for path in alike]
    by_epoch = dict(sorted(found))
    if len(by_epoch) < len(found):
        raise UserError(f"{flag} {place}: two files of one epoch; name them by a pattern as DIR/model_{{epoch}}.pth")
    if len(by_epoch) < 2:
        raise UserError(
            f"{flag} {place} has {len(by_epoch)} checkpoints with an epoch in their names; expected several"
        )
    from_zero = 0 in by_epoch  # as torchvision's references count
    return {epoch + from_zero: path for epoch, path in by_epoch.items()}


def _number(stem: str) -> int:
    named = re.search(r"epoch\D?(\d+)", stem)
    return int(named[1] if named else re.findall(r"\d+", stem)[-1])


def with_pretrained(info: DatasetInfo, specs: Iterable[TeacherSpec]) -> DatasetInfo:
    """Let the weights that torchvision and timm publish stand for all of ``specs`` that have no file yet.

    Raises:
        UserError: there are none, or they are not in the local cache; says how to get them.
    """
    found = list(info.foreign)
    for arch in dict.fromkeys(spec.arch for spec in specs):
        if all(arch != one.arch for one in found):
            published = _timm(arch) if arch.startswith("timm:") else _torchvision(arch)
            spec = info.teacher.model_copy(update={"arch": arch, **published})
            if info.classes != 1000:
                raise UserError(f"--teacher {PRETRAINED}: the weights of {arch} are for ImageNet-1K's 1000 classes and "
                                f"{info.name} has {info.classes}; give files of {info.name}")  # fmt: skip
            found.append(spec.model_copy(update={"file_sha256": spec.digest()}))
    return info.model_copy(update={"foreign": tuple(found)})


def _torchvision(arch: str) -> dict[str, Any]:
    """Find the weights V1 of an architecture, as SRe2L, G_VBSM and RDED take them."""
    import torch.hub  # here: seconds that other plans need not wait
    import torchvision.models

    name = arch.removeprefix("torchvision:")
    try:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    except (KeyError, ValueError):
        raise UserError(
            f"--teacher {PRETRAINED}: torchvision has no weights of {arch}; give a file, {arch}=FILE"
        ) from None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    fetch = f"import torchvision; torchvision.models.get_model({name!r}, weights='IMAGENET1K_V1')"
    preset = weights.transforms()
    return _cached(arch, path, fetch) | {"mean": tuple(preset.mean), "std": tuple(preset.std)}


def _timm(arch: str) -> dict[str, Any]:
    import timm
    from huggingface_hub import try_to_load_from_cache

    name = arch.removeprefix("timm:")
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None or not config.hf_hub_id:
        raise UserError(f"--teacher {PRETRAINED}: timm has no weights of {arch}; give a file, {arch}=FILE")
    place = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    path = Path(place) if isinstance(place, str) else Path("the cache of huggingface_hub")
    fetch = f"import timm; timm.create_model({name!r}, pretrained=True)"
    return _cached(arch, path, fetch) | {"mean": tuple(config.mean), "std": tuple(config.std)}


def _cached(arch: str, path: Path, fetch: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f'--teacher {PRETRAINED}: the weights of {arch} are not in {path}; get them by python -c "{fetch}" on a '
            "machine with a network, and copy them there"
        )
    return {"files": (str(path),)}
