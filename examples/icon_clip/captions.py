"""Captions of icons: the phrases that an icon name stands for, and batches of tokenised sentences around them.

    captions = Captions(["shopping bag", "number 5"], context_length=16)
    tokens = captions.sample(indices, generator)        # (B, 16) int64, another sentence each time

Numbers are written both ways, because prompts do ("number 5", "digit five", "5").
"""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

# The seven prompts that CLIP's authors found to work best (and HeLlO uses) are half of the training sentences,
# so the text tower knows the frame that zero-shot use puts around a name; the rest are short.
CLIP_PROMPTS = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.",
    "a {} in a video game.", "art of the {}.", "a photo of the small {}.",
)  # fmt: skip
SHORT_PROMPTS = ("{}", "a {}", "the {}", "a {} icon", "a photo of a {}.", "a drawing of a {}.", "an icon of a {}.")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_NOUNS = ("number", "numeric", "digit", "counter", "looks", "numeral")


def one_name(caption: str) -> str:
    """Give captions that mean the same number one name: `counter 5`, `numeric 5`, `five` -> `number five`."""
    words = caption.split()
    if len(words) == 2 and words[0] in NUMBER_NOUNS:
        words = words[1:]
    if len(words) == 1 and _number_word(words[0]):
        return f"number {_number_word(words[0])}"
    return caption


def phrases(caption: str) -> list[str]:
    """List the ways to say a caption, the plainest first."""
    words = one_name(caption).split()
    spelled = [_number_word(word) or word for word in words]
    figures = [str(NUMBERS.index(word)) if word in NUMBERS else word for word in words]
    if spelled == figures:
        return [caption]
    said = [" ".join(spelled), " ".join(figures)]
    if len(words) == 2 and words[0] == "number":
        said += [f"digit {spelled[1]}", f"digit {figures[1]}", spelled[1], figures[1]]
    return said


def _number_word(word: str) -> str:
    if word in NUMBERS:
        return word
    return NUMBERS[int(word)] if re.fullmatch(r"[0-9]|10", word) else ""


class Captions:
    """Captions that are tokenised once and joined to prompts at each draw; BPE splits at the spaces between them."""

    def __init__(self, captions: list[str], context_length: int) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        tokenizer = SimpleTokenizer(context_length=context_length)
        self.context_length = context_length
        self.start, self.end = tokenizer.sot_token_id, tokenizer.eot_token_id
        self.names = [[tokenizer.encode(phrase) for phrase in phrases(caption)] for caption in captions]
        self.short, self.clip = (
            [tuple(tokenizer.encode(part) for part in prompt.split("{}")) for prompt in prompts]
            for prompts in (SHORT_PROMPTS, CLIP_PROMPTS)
        )

    def sample(self, indices: list[int], rng: Generator) -> Tensor:
        """Draw a random sentence per caption index: (len(indices), context_length) int64, zero-padded."""
        tokens = np.zeros((len(indices), self.context_length), dtype=np.int64)
        dice = rng.random((len(indices), 3))
        for row, index in enumerate(indices):
            prompts = self.short if dice[row, 0] < 0.5 else self.clip
            before, after = prompts[int(dice[row, 1] * len(prompts))]
            names = self.names[index]
            sentence = [self.start, *before, *names[int(dice[row, 2] * len(names))], *after]
            sentence = [*sentence[: self.context_length - 1], self.end]
            tokens[row, : len(sentence)] = sentence
        return torch.from_numpy(tokens)
