"""Protocols as TOML files, one each; the keys are those of ``evaluators.classification.ClassificationProtocol``."""
