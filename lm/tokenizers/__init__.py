"""Text to ids and back. Each file is a kind of vocabulary, found by its name (`tokenizer.kind`).

`lm.core.protocols.TokenizerKind` is what a kind offers. Modules in SHARED are not kinds.
"""

SHARED = ("config", "sentencepiece")
