"""lm: which pretraining objective, on which Transformer, is worth a TPU budget."""

__version__ = "0.1.0"
