"""Which architecture, at equal FLOPs: encoder, decoder, prefix decoder or encoder-decoder?

  python -m lm.compare --config=experiments/architectures.py:tiny --workdir=runs/architectures

Raffel et al. 2020, table 2. All arms have blocks of one shape. An encoder-decoder has two stacks of
them and pays for the tokens of both. The budget is training FLOPs, so arms see different numbers of
tokens.

tiny: six arms × 3 seeds, 2 CPU cores, 17 minutes; results in architectures/README.md.
small (one GPU, or four TPU chips) and base (a slice): experiments/_common.py; not run yet.
Published, GLUE: encoder-decoder 83.3, its LM 79.6, prefix LM 81.8, decoder 74.7.
"""

from ml_collections import ConfigDict

from experiments import _common
from experiments._common import hypothesis

FLOPS = {"tiny": 1.0e12, "small": 1.0e17, "base": 6.0e18}


def get_config(size: str = "tiny") -> ConfigDict:
    flops = _common.at_size(size, FLOPS)
    arms = {
        "encoder_mlm": _common.arm(
            "mlm", size, "encoder, MLM", "predicts the masked 15 % of the tokens from all others"
        ),
        "decoder_clm": _common.arm(
            "clm", size, "decoder, CLM", "predicts each token from those before it"
        ),
        "decoder_prefix": _common.arm(
            "prefix_lm",
            size,
            "prefix decoder",
            "predicts the rest of a text from its beginning",
            "decoder",
        ),
        "encdec_prefix": _common.arm(
            "prefix_lm", size, "enc-dec, prefix LM", "the same with an encoder-decoder"
        ),
        "encdec_spans": _common.arm("t5", size, "enc-dec, spans", "T5's span corruption"),
        "decoder_spans": _common.arm(
            "t5", size, "decoder, spans", "span corruption under a prefix mask", "decoder"
        ),
    }
    return _common.experiment(
        "architectures",
        size,
        "Which architecture and its objective learn most at the same training FLOPs?",
        arms,
        ("flops", flops),
        ("classification", "probe", "last_word", "suffix", "causal", "denoising"),
        HYPOTHESES,
        reference="decoder_clm",
    )


HYPOTHESES = (
    hypothesis(
        "Span corruption on an encoder-decoder classifies better than on a decoder",
        "encdec_spans",
        "classification",
        "accuracy",
        "above",
        0.0,
        "decoder_spans",
    ),
    hypothesis(
        "Span corruption on an encoder-decoder classifies better than a prefix LM on it",
        "encdec_spans",
        "classification",
        "accuracy",
        "above",
        0.0,
        "encdec_prefix",
    ),
    hypothesis(
        "A prefix decoder predicts the second half of a text no worse than an encoder-decoder: at"
        " most .05 nats per token more",
        "decoder_prefix",
        "suffix",
        "nll",
        "below",
        0.05,
        "encdec_prefix",
    ),
    hypothesis(
        "MLM on an encoder classifies better than CLM on a decoder",
        "encoder_mlm",
        "classification",
        "accuracy",
        "above",
        0.0,
        "decoder_clm",
    ),
)
