"""lm: which pretraining objective, on which Transformer, is worth a TPU budget."""

from lm.core.version import __version__

__all__ = ["__version__"]
