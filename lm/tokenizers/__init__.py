"""Conversion of text to ids and back. Each module is a plug-in: a kind of vocabulary.

The option `tokenizer.kind` selects a plug-in. Each plug-in implements
`lm.core.protocols.TokenizerKind`. Modules in SHARED are not plug-ins.
"""

SHARED = ("config", "sentencepiece")
