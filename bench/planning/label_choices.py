"""The labels of a grid, as written on the command line: ``native,stored:topk10,teacher:int8,hard``."""

from __future__ import annotations

from dataclasses import dataclass

from bench.api import MethodInfo
from bench.api.stored.codec import NUMBERS, LabelCodec
from bench.api.stored.precision import Precision
from bench.errors import unknown

# what can be written -> what it is; shown by `bench list labels`
EXPLAINED = {
    "native": "as the method's authors give labels",
    "online": "the method's own label model (teacher, projector, ensemble) labels every view",
    "online:int8": "the same, its matrices stored as int8; also fp16 and int4, with +rank or +group64 for other scales",
    "teacher:fp32": "the method's teacher labels every view; also teacher:fp16, teacher:int8 and teacher:int4",
    "stored:fp16": "the label model's logits, stored for every view of the protocol; also fp32, int8 and int4",
    "stored:topkK": "the K largest logits of each view; the other classes share the rest (marginal smoothing)",
    "stored:renormK": "the K largest logits alone (marginal re-normalisation)",
    "stored:vqM": "M bytes a view, indices of a vector-quantised autoencoder fitted to the logits",
    "stored:lowrankR": "R coefficients of a basis fitted to the logits; or +perclass, +perimage, +rpca",
    "stored:featuresD": "the D penultimate features of the label model, and its linear head once",
    "stored:pruneN": "one batch of views in N, drawn at random and used again",
    "stored:poolS": "the batches of S whole epochs, used again in a new order each time",
    "stored:A+B+C": "any of them together, e.g. stored:prune10+topk10+int8; +coords adds FKD's crop coordinates",
    "static:fp16": "one stored label per image for all its views; topkK and number formats as above",
    "hard": "no soft labels",
}


@dataclass(frozen=True)
class LabelChoice:
    """One way to label a method's images.

    ``online``: the method's own label model labels every view, stored as ``detail`` says. ``stored``: its labels, kept
    for every view of the schedule. ``static``: one label per image, for all its views. ``teacher``: the method's first
    teacher, online, its weights stored as ``detail`` says. ``hard``: none. ``detail`` is a codec or a precision.
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
            return f"{label_model}:{self.detail}" if self.detail else label_model
        if self.kind == "hard" or (self.kind, self.detail) == ("teacher", "fp32"):
            return self.kind
        name = f"{self.kind}:{self.detail}"
        return name if "teacher" in (self.kind, label_model) else f"{name} of {label_model}"


def parse(text: str, method: MethodInfo, native: str | None = None) -> LabelChoice:
    """Parse one entry of ``--labels`` for a method; ``native`` is how its authors give labels.

    Args:
        native: what that is under a protocol, where it differs from the method's usual.

    Raises:
        UserError: an unknown word, codec or precision.
    """
    if text == "native" and native is not None:
        text = native
    kind, colon, detail = text.partition(":")
    if text == "native":
        if method.labels == "hard":
            return LabelChoice("hard")
        return LabelChoice("stored", method.stored) if method.stored else LabelChoice("online")
    if text in ("online", "hard"):
        return LabelChoice(text)
    if kind == "online" and detail in NUMBERS and method.labels == "teacher":
        kind = "teacher"
    elif kind == "online" and colon:
        Precision.parse(detail)
        return LabelChoice("online", detail)
    if kind == "teacher":
        if detail not in ("", *NUMBERS) or (colon and not detail):
            raise unknown("precision in --labels", text, [f"teacher:{name}" for name in NUMBERS])
        return LabelChoice("teacher", detail or "fp32")
    if kind in ("stored", "static"):
        codec = LabelCodec.parse(detail or "fp16")
        if kind == "static":
            codec.check_static()
        return LabelChoice(kind, str(codec))
    raise unknown("choice in --labels", text, EXPLAINED)
