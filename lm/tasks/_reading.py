"""How a model reads a complete text: with the special tokens and the mask of its training."""

from lm.core.protocols import Objective, Tokenizer


def is_bidirectional(objective: Objective) -> bool:
    """Whether the model was trained to read a text bidirectionally.

    False under a causal mask, or a prefix mask trained only with empty prefixes.
    """
    return objective.mask != "causal" and (
        objective.mask != "prefix" or objective.scores != ("causal",)
    )


def special_tokens(
    objective: Objective, tokenizer: Tokenizer
) -> tuple[list[int], list[int], list[int]]:
    """The special tokens before a text, between two texts, and at the end.

    `[CLS] text [SEP] text [SEP]` for encoders, and for decoders whose training consisted of MLM
    or ended with MLM; `text [EOS] text [EOS]` for encoder-decoders; `[BOS] text [EOS] text` for
    other decoders.

    Args:
      objective: objective of the model.
      tokenizer: supplies the ids.
    """
    if objective.mask == "bidirectional" or (
        objective.mask == "prefix" and objective.scores[-1] == "masked"
    ):
        return [tokenizer.cls], [tokenizer.sep], [tokenizer.sep]
    if objective.mask == "cross":
        return [], [tokenizer.eos], [tokenizer.eos]
    return [tokenizer.bos], [tokenizer.eos], []
