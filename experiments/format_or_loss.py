"""Was it the input format or the loss? Pairs of segments or sentences, with and without NSP.

  python -m lm.compare --config=experiments/format_or_loss.py:tiny --workdir=runs/format_or_loss

RoBERTa (Liu et al. 2019, table 2) removed the NSP loss together with the pairs. That left out two
of these four cells: pairs of segments, and pairs of sentences, without the loss. `full` is
RoBERTa's choice.

tiny: five arms × 3 seeds, 2 CPU cores, 10 minutes; results in format_or_loss/README.md. All arms
have one learning rate, 0.0173, the geometric mean of .01 (configs/bert.py) and .03
(configs/mlm.py). Trials of one seed chose three times as much for MLM on pairs of segments. At that
rate most seeds never leave their plateau (README).
small (one GPU, or four TPU chips) and base (a slice): experiments/_common.py; not run yet.
"""

from ml_collections import ConfigDict

from experiments import _common
from experiments._common import hypothesis

LEARNING_RATE = 0.0173  # √(.01 × .03)
TOKENS = {"tiny": 1_200_000, "small": 500_000_000, "base": 10_000_000_000}


def get_config(size: str = "tiny") -> ConfigDict:
    tokens = _common.at_size(size, TOKENS)
    arms = {
        "segments_nsp": _common.arm(
            "bert",
            size,
            "segments, NSP",
            "pairs of segments, both losses of BERT",
            format="segment_pair",
        ),
        "segments": _common.arm(
            "mlm", size, "segments", "the same pairs, MLM alone", format="segment_pair"
        ),
        "sentences_nsp": _common.arm(
            "bert",
            size,
            "sentences, NSP",
            "pairs of sentences, both losses of BERT",
            format="sentence_pair",
        ),
        "sentences": _common.arm(
            "mlm", size, "sentences", "the same pairs, MLM alone", format="sentence_pair"
        ),
        "full": _common.arm(
            "mlm",
            size,
            "full sentences",
            "RoBERTa's format: whole sentences until the row is full",
            format="full_sentences",
        ),
    }
    if size == "tiny":
        for arm in arms.values():
            arm["run"].optimizer.learning_rate = LEARNING_RATE
    return _common.experiment(
        "format_or_loss",
        size,
        "Was it the next-sentence loss or the input format that cost BERT accuracy?",
        arms,
        ("tokens", tokens),
        ("masked", "next_sentence", "classification", "pair_classification", "probe"),
        HYPOTHESES,
        reference="segments_nsp",
        tuned=size != "tiny",
    )


HYPOTHESES = (
    hypothesis(
        "Removing the NSP loss from pairs of segments does no harm: at most 2 points less on"
        " classification",
        "segments",
        "classification",
        "accuracy",
        "above",
        -0.02,
        "segments_nsp",
    ),
    hypothesis(
        "Single sentences classify worse than segments, both without the NSP loss",
        "sentences",
        "classification",
        "accuracy",
        "below",
        0.0,
        "segments",
    ),
    hypothesis(
        "RoBERTa's full sentences are no worse than segments without the NSP loss: at most 2 points"
        " less on classification",
        "full",
        "classification",
        "accuracy",
        "above",
        -0.02,
        "segments",
    ),
    hypothesis(
        "The NSP loss improves classification of pairs of texts",
        "segments_nsp",
        "pair_classification",
        "accuracy",
        "above",
        0.0,
        "segments",
    ),
    hypothesis(
        "The NSP loss harms masked-token prediction: higher cross-entropy with it",
        "segments_nsp",
        "masked",
        "ce",
        "above",
        0.0,
        "segments",
    ),
)
