"""The base of every configuration."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class BaseConfig(BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error.

    A cell's identity holds only the fields that differ from their defaults, so adding a field with a default
    leaves every existing result where it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def non_default_fields(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)
