"""Label sources: saved as a folder whose ``source.json`` names their kind, loaded by that kind."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch

from bench.api import LabelSource
from bench.errors import UserError, unknown
from bench.kit.labels.quantise import PACKED, unpack_into

KINDS = {
    "teacher": "bench.kit.labels.online:OnlineTeacher",
    "stored": "bench.kit.labels.stored:StoredLabels",
    "published": "bench.kit.labels.published:PublishedLabels",
    "static": "bench.kit.labels.static:StaticLabels",
}


def load(folder: Path, device: torch.device, own: Mapping[str, str]) -> LabelSource:
    """Load the label source in a folder; ``own`` are the kinds that its method brings, as "module:Class".

    Raises:
        UserError: nothing is known of this kind, or it was saved without its kind.
    """
    try:
        facts = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"no source.json in {folder.name}: save() of a label model writes it, with its kind: "
            + json.dumps({"kind": next(iter(own), "mine")})
        ) from None
    if PACKED in facts:
        with tempfile.TemporaryDirectory() as place:
            unpack_into(folder, Path(place))
            return load(Path(place), device, own)
    kind = facts["kind"]
    known = {**KINDS, **own}
    if kind not in known:
        raise unknown("kind of label source", kind, known)
    module, _, name = known[kind].partition(":")
    source: LabelSource = getattr(import_module(module), name).load(folder, device)
    return source
