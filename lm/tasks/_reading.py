"""How a model is shown a text of which nothing is hidden: between the special tokens, and under the mask, that it knows from training."""

from typing import Any


def sees_all(objective: Any) -> bool:
    """Whether the model has learned to read a text from both sides: not so under a causal mask, nor under a prefix mask of which only
    the causal part was ever trained."""
    return objective.mask != "causal" and (
        objective.mask != "prefix" or objective.scores != ("causal",)
    )


def edges(objective: Any, tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The ids before a text, between it and another one, and at the end.

    `[CLS] text [SEP] text [SEP]` for encoders, and for decoders whose training was MLM, or ended with it; `text [EOS] text [EOS]` for
    encoder-decoders; `[BOS] text [EOS] text` for other decoders.
    """
    if objective.mask == "bidirectional" or (
        objective.mask == "prefix" and objective.scores[-1] == "masked"
    ):
        return [tokenizer.cls], [tokenizer.sep], [tokenizer.sep]
    if objective.mask == "cross":
        return [], [tokenizer.eos], [tokenizer.eos]
    return [tokenizer.bos], [tokenizer.eos], []
