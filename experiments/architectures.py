"""Which architecture, at equal FLOPs: encoder, decoder, prefix decoder or encoder-decoder (Raffel et al. 2020, table 2)?

  python -m lm.compare --config=experiments/architectures.py:tiny --workdir=runs/architectures

All have blocks of one shape; an encoder-decoder has two stacks of them, and its rows cost what their tokens cost. The budget is training
FLOPs, so arms see different numbers of tokens. tiny: six arms × 3 seeds, for 2 CPU cores; architectures/README.md says how long they took.
small and base: experiments/_common.py. Published, GLUE: encoder-decoder 83.3, its LM 79.6, prefix LM 81.8, decoder 74.7.
"""

from experiments import _common
from experiments._common import hypothesis

FLOPS = {"tiny": 1.0e12, "small": 1.0e17, "base": 6.0e18}


def get_config(size: str = "tiny"):
    flops = _common.sized(size, FLOPS)
    arms = {
        "encoder_mlm": _common.arm(
            "mlm", size, "encoder, MLM", "15 % hidden tokens from both sides"
        ),
        "decoder_clm": _common.arm("clm", size, "decoder, CLM", "each token from those before it"),
        "decoder_prefix": _common.arm(
            "prefix_lm", size, "prefix decoder", "the rest of a text from its beginning", "decoder"
        ),
        "encdec_prefix": _common.arm(
            "prefix_lm", size, "enc-dec, prefix LM", "the same by an encoder-decoder"
        ),
        "encdec_spans": _common.arm("t5", size, "enc-dec, spans", "T5's span corruption"),
        "decoder_spans": _common.arm(
            "t5", size, "decoder, spans", "span corruption under a prefix mask", "decoder"
        ),
    }
    return _common.experiment(
        "architectures", size, "Which architecture and its objective teach most at the same training FLOPs?", arms, ("flops", flops),
        ("classification", "probe", "last_word", "suffix", "causal", "denoising"), HYPOTHESES, reference="decoder_clm",
    )  # fmt: skip


HYPOTHESES = (
    hypothesis("Span corruption on an encoder-decoder classifies better than the same on a decoder", "encdec_spans", "classification",
               "accuracy", "above", 0.0, "decoder_spans"),
    hypothesis("Span corruption on an encoder-decoder classifies better than a prefix LM on it", "encdec_spans", "classification",
               "accuracy", "above", 0.0, "encdec_prefix"),
    hypothesis("A prefix decoder continues a text no worse than an encoder-decoder: at most .05 nats more a token of its second half",
               "decoder_prefix", "suffix", "nll", "below", 0.05, "encdec_prefix"),
    hypothesis("MLM on an encoder classifies better than CLM on a decoder", "encoder_mlm", "classification", "accuracy", "above", 0.0,
               "decoder_clm"),
)  # fmt: skip
