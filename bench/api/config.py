"""The base of every configuration, and the markers that say what a field affects."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

Artifact = Literal["prepared", "images", "labels"]  # what a method makes


def affects(*what: Artifact | Literal["speed"]) -> frozenset[str]:
    """Mark a field by what it affects.

    For example ``batch_size: Annotated[int, affects("speed")] = 256``.

    A field without a marker affects the images, or what the class's ``unmarked`` says. One that affects what is
    prepared reaches the images through the identity of that; one that affects speed alone, or nothing by itself, is
    part of no identity.
    """
    return frozenset(what)


def first_problem(error: ValidationError) -> str:
    """Write the first thing that is wrong as one line: ``full.ipc.0: Input should be a valid integer``."""
    first = error.errors(include_url=False)[0]
    return " ".join(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ").split())


class BaseConfig(BaseModel):
    """Base of every configuration and of what is kept as JSON: frozen, finite, and an unknown key is an error.

    A cell's identity holds only the fields that differ from their defaults, so adding a field with a default
    leaves every existing result where it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    unmarked: ClassVar[Artifact] = "images"  # what fields without a marker affect

    def non_default_fields(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def identity(self, artifact: Artifact | None = None) -> dict[str, Any]:
        """Return the fields that differ from their defaults and affect ``artifact``, as plain JSON values.

        Args:
            artifact: None: whichever; of nested configurations all that affects more than speed is included.
        """
        found = {}
        for name, value in self.non_default_fields().items():
            field = type(self).model_fields[name]
            affected = next((mark for mark in field.metadata if isinstance(mark, frozenset)), {self.unmarked})
            if not (artifact in affected if artifact else affected - {"speed"}):
                continue
            own = getattr(self, name)
            if not isinstance(own, BaseConfig):
                found[name] = value
            elif not (isinstance(field.default, BaseConfig) and own.identity() == field.default.identity()):
                found[name] = own.identity()
        return found
