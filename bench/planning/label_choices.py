"""The labels of a grid, as written on the command line: ``native,stored:topk10,teacher:int8,hard``."""

from __future__ import annotations

from dataclasses import dataclass

from bench.api import MethodInfo
from bench.api.stored.codec import NUMBERS, LabelCodec
from bench.errors import UserError, unknown

# what can be written -> what it is; shown by `bench list labels`
EXPLAINED = {
    "native": "as the method's authors give labels",
    "online": "the method's own label model (teacher, projector, ensemble) labels every view",
    "teacher:fp32": "the method's teacher labels every view; also teacher:fp16 and teacher:int8",
    "stored:fp16": "the label model's logits, stored for every view of the protocol; also fp32 and int8",
    "stored:topkK": "the K largest logits of each view; the other classes share the rest (marginal smoothing)",
    "stored:renormK": "the K largest logits alone (marginal re-normalisation)",
    "stored:pruneN": "one batch of views in N, drawn at random and used again",
    "stored:A+B+C": "any of them together, e.g. stored:prune10+topk10+int8; +coords adds FKD's crop coordinates",
    "static:fp16": "one stored label per image for all its views; topkK and number formats as above",
    "hard": "no soft labels",
}


@dataclass(frozen=True)
class LabelChoice:
    """One way to label a method's images.

    ``online``: the method's own label model labels every view. ``stored``: its labels, kept for every view of the
    schedule. ``static``: one label per image, for all its views. ``teacher``: the method's first teacher, online,
    its weights stored as ``detail`` says. ``hard``: none. ``detail`` is a codec or a precision.
    """

    kind: str
    detail: str = ""

    @property
    def codec(self) -> LabelCodec:
        """The codec of stored and static labels."""
        return LabelCodec.parse(self.detail)

    def title(self, label_model: str) -> str:
        """Return the board's word for these labels of a method whose own label model is called ``label_model``."""
        if self.kind == "online":
            return label_model
        if self.kind == "hard" or (self.kind, self.detail) == ("teacher", "fp32"):
            return self.kind
        name = f"{self.kind}:{self.detail}"
        return name if "teacher" in (self.kind, label_model) else f"{name} of {label_model}"


def parse(text: str, method: MethodInfo) -> LabelChoice:
    """Parse one entry of ``--labels`` for a method; ``native`` is how its authors give labels.

    Raises:
        UserError: an unknown word, codec or precision.
    """
    kind, colon, detail = text.partition(":")
    if text == "native":
        if method.labels == "hard":
            return LabelChoice("hard")
        return LabelChoice("stored", method.stored) if method.stored else LabelChoice("online")
    if text in ("online", "hard"):
        return LabelChoice(text)
    if kind == "teacher":
        if detail not in ("", *NUMBERS) or (colon and not detail):
            raise unknown("precision in --labels", text, [f"teacher:{name}" for name in NUMBERS])
        return LabelChoice("teacher", detail or "fp32")
    if kind in ("stored", "static"):
        codec = LabelCodec.parse(detail or "fp16")
        if kind == "static" and (codec.prune > 1 or codec.coords):
            raise UserError(f"--labels {text}: static labels belong to no view, so there is nothing to prune or place")
        return LabelChoice(kind, str(codec))
    raise unknown("choice in --labels", text, EXPLAINED)
