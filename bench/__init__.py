"""distill-bench: dataset distillation weighed by what it really stores."""

__version__ = "0.1.0"
