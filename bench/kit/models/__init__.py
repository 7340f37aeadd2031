"""Named networks; see :mod:`bench.api.architectures` for the names."""

from bench.kit.models.classifier import Classifier, build
from bench.kit.models.features import embed

__all__ = ["Classifier", "build", "embed"]
