"""Text to ids and back. Each module is a kind of vocabulary, a plug-in (`tokenizer.kind`).

Each implements `lm.core.protocols.TokenizerKind`. Modules in SHARED are not kinds.
"""

SHARED = ("config", "sentencepiece")
