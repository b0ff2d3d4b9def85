"""Is it the format or the loss? Segments of text or single sentences, each with and without next-sentence prediction.

  python -m lm.compare --config=experiments/format_or_loss.py:tiny --workdir=runs/format_or_loss

RoBERTa (Liu et al. 2019, table 2) took the loss away together with the pairs, so that two of these four cells were left out: pairs of
segments, and pairs of sentences, without the loss. `full` is RoBERTa's choice. tiny: five arms × 3 seeds, for 2 CPU cores;
format_or_loss/README.md says how long they took. small and base: experiments/_common.py. At tiny all arms have one learning rate, 0.0173,
the middle of .01 and .03, which configs/bert.py and configs/mlm.py have: trials of one seed chose three times as much for MLM on pairs of
segments, at which most seeds never leave their plateau (README).
"""

from experiments import _common
from experiments._common import hypothesis

LEARNING_RATE = 0.0173  # √(.01 × .03)
TOKENS = {"tiny": 1_200_000, "small": 500_000_000, "base": 10_000_000_000}


def get_config(size: str = "tiny"):
    tokens = _common.sized(size, TOKENS)
    arms = {
        "segments_nsp": _common.arm(
            "bert",
            size,
            "segments, NSP",
            "pairs of segments, BERT's two losses",
            format="segment_pair",
        ),
        "segments": _common.arm(
            "mlm", size, "segments", "the same pairs, MLM alone", format="segment_pair"
        ),
        "sentences_nsp": _common.arm(
            "bert",
            size,
            "sentences, NSP",
            "pairs of sentences, BERT's two losses",
            format="sentence_pair",
        ),
        "sentences": _common.arm(
            "mlm", size, "sentences", "the same pairs, MLM alone", format="sentence_pair"
        ),
        "full": _common.arm(
            "mlm",
            size,
            "full sentences",
            "RoBERTa's: whole sentences up to the row's end",
            format="full_sentences",
        ),
    }
    if size == "tiny":
        for arm in arms.values():
            arm["run"].optimizer.learning_rate = LEARNING_RATE
    return _common.experiment(
        "format_or_loss", size, "Was it the next-sentence loss or the format of the input that cost BERT accuracy?", arms,
        ("tokens", tokens), ("masked", "next_sentence", "classification", "pair_classification", "probe"), HYPOTHESES,
        reference="segments_nsp", tuned=size != "tiny",
    )  # fmt: skip


HYPOTHESES = (
    hypothesis("Taking the loss away from pairs of segments does no harm: at most 2 points less on classification", "segments",
               "classification", "accuracy", "above", -0.02, "segments_nsp"),
    hypothesis("Single sentences are worse than segments, both without the loss", "sentences", "classification", "accuracy", "below", 0.0,
               "segments"),
    hypothesis("RoBERTa's full sentences are no worse than segments without the loss: at most 2 points less", "full", "classification",
               "accuracy", "above", -0.02, "segments"),
    hypothesis("The loss helps on pairs of texts", "segments_nsp", "pair_classification", "accuracy", "above", 0.0, "segments"),
    hypothesis("The loss costs masked tokens: higher cross-entropy with it", "segments_nsp", "masked", "ce", "above", 0.0, "segments"),
)  # fmt: skip
