"""A cell of the grid and its identity.

The id of a cell is a readable prefix and the first ten hex digits of the BLAKE2b hash of what decides its
result: the stage, who computes it and in which version, the fields that differ from their defaults, and the ids
of its parents. The place of files, which device computes and which run requested it are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Literal, get_args

from pydantic import Field

from bench.api import BaseConfig

Stage = Literal["teacher", "prepare", "distill", "label", "evaluate"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical(value: Any) -> str:
    """Write the one JSON text of a plain value: sorted keys, no spaces, no NaN."""
    return _CANONICAL.encode(value)


def digest(value: Any) -> str:
    """Return ten hex digits (40 bits) of the BLAKE2b hash of a plain value."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=5).hexdigest()


class Cell(BaseConfig):
    """One computation of the grid."""

    stage: Stage
    by: str  # the plug-in that computes it, or the harness's own "teacher", "stored" and "static"
    version: int
    fields: dict[str, Any]  # what decides the result beside the parents; defaults left out
    parents: dict[str, str] = Field(default_factory=dict)  # role ("teacher", "prepared", "images", "labels") -> id
    prefix: str  # readable part of the id
    call: dict[str, Any] = Field(default_factory=dict)  # how to compute it: settings of the method, IPC, seed
    row: dict[str, Any] = Field(default_factory=dict)  # evaluate cells: where it stands on the board

    @cached_property
    def id(self) -> str:
        """Stable across machines, runs and releases that change nothing of the result."""
        decides = [self.stage, self.by, self.version, self.fields, sorted(self.parents.items())]
        return f"{self.prefix}-{digest(decides)}"
