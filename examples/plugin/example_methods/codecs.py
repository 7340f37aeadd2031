"""A number format of stored labels: a byte per logit, in steps of a sixteenth."""

from bench.api.stored.codec import NumberFormat


class Fixed8(NumberFormat):
    title = "logits as whole sixteenths between -8 and 8, a byte each"

    def columns(self, width):
        return {"sixteenths": ("I8", width)}

    def encode(self, logits):
        import torch

        return {"sixteenths": (logits * 16).round().clamp(-128, 127).to(torch.int8)}

    def decode(self, parts, width):
        return parts["sixteenths"].float() / 16
