"""Which objective teaches a small Transformer most from the same text?

  python -m lm.compare --config=experiments/objectives.py:tiny --workdir=runs/objectives
  python -m lm.compare --config=experiments/objectives.py:all --workdir=runs/all_objectives

tiny: MLM, CLM, NSP and MLM + NSP × 3 seeds, 2 CPU cores, 6 minutes; `make compare` runs it.
all: every objective, some on two architectures, × 3 seeds, 2 CPU cores, 46 minutes.
Results of both: objectives/README.md.
small (one GPU, or four TPU chips) and base (a slice): the four arms of tiny,
experiments/_common.py; not run yet.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import _common
from experiments._common import hypothesis

TOKENS = {"tiny": 1_200_000, "all": 800_000, "small": 500_000_000, "base": 10_000_000_000}


def get_config(size: str = "tiny") -> ConfigDict:
    tokens = _common.at_size(size, TOKENS)
    tasks: tuple[str, ...] = ("causal", "masked", "next_sentence", "probe")
    if size == "all":
        tasks = (
            "causal",
            "suffix",
            "masked",
            "denoising",
            "next_sentence",
            "sentence_order",
            "probe",
        )
    return _common.experiment(
        "objectives",
        size,
        "Which pretraining objective teaches a small Transformer most from the same text at the"
        " same number of tokens?",
        _few(size) | (_others() if size == "all" else {}),
        ("tokens", tokens),
        tasks,
        HYPOTHESES + (MORE if size == "all" else ()),
        reference="clm",
        tuned=size in ("small", "base"),
    )


def _few(size: str) -> dict[str, dict[str, Any]]:
    return {
        "clm": _common.arm("clm", size, "CLM", "predicts each token from those before it"),
        "mlm": _common.arm(
            "mlm", size, "MLM", "predicts the masked 15 % of the tokens, BERT's 80/10/10"
        ),
        "nsp": _common.arm("nsp", size, "NSP", "does segment B follow segment A?"),
        "mlm_nsp": _common.arm("bert", size, "MLM + NSP", "BERT's sum of both losses"),
    }


def _others() -> dict[str, dict[str, Any]]:
    def arm(
        config: str, label: str, describe: str, model: str = "", **options: Any
    ) -> dict[str, Any]:
        return _common.arm(config, "all", label, describe, model, **options)

    return {
        "mlm_span": arm(
            "mlm", "MLM, spans", "spans of whole words masked, SpanBERT's lengths", unit="word_span"
        ),
        "mlm_40": arm(
            "mlm",
            "MLM, 40 % pure",
            "40 % masked, [MASK] only",
            rate=0.4,
            mask_share=1.0,
            random_share=0.0,
        ),
        "sop": arm("sop", "SOP", "are two consecutive segments in their order?"),
        "mlm_sop": arm("albert", "MLM + SOP", "ALBERT's sum of both losses"),
        "rtd": arm(
            "electra", "RTD", "ELECTRA: which tokens did a generator of half the width replace?"
        ),
        "electra_15": arm(
            "electra",
            "ELECTRA 15 %",
            "RTD, loss at the masked positions only",
            variant="electra_15",
        ),
        "replace_mlm": arm(
            "electra",
            "Replace MLM",
            "MLM on input with a generator's samples",
            variant="replace_mlm",
        ),
        "all_tokens_mlm": arm(
            "electra",
            "All-tokens MLM",
            "the same, predicting every token",
            variant="all_tokens_mlm",
        ),
        "mntp": arm(
            "mntp",
            "MNTP",
            "predicts masked token k + 1 at position k; a decoder that attends in both directions",
        ),
        "hybrid": arm(
            "hybrid",
            "Hybrid 1:1",
            "GPT-BERT: half of the sequences CLM, half MNTP, 30 to 15 % masked",
        ),
        "mixture": arm("mixture", "CLM + MNTP", "a mixture in equal parts, 15 % masked"),
        "biphasic": arm("biphasic", "CLM, then MLM", "CLM for a quarter of the steps, then MLM"),
        "prefix_lm": arm(
            "prefix_lm", "Prefix LM, enc-dec", "predicts the rest of a text from its beginning"
        ),
        "prefix_lm_decoder": arm(
            "prefix_lm", "Prefix LM, decoder", "the same under a prefix mask", "decoder"
        ),
        "span_corruption": arm("t5", "Span corruption, enc-dec", "T5's span corruption"),
        "span_corruption_decoder": arm(
            "t5", "Span corruption, decoder", "the same under a prefix mask", "decoder"
        ),
        "ul2": arm("ul2", "UL2, enc-dec", "seven denoisers with mode tokens"),
        "seq2seq": arm(
            "seq2seq", "Seq2seq, enc-dec", "predicts a document's other paragraphs from its first"
        ),
    }


# What a sound set-up should reach at `:tiny`.
HYPOTHESES = (
    hypothesis(
        "CLM is at least 20 % below the unigram baseline",
        "clm",
        "causal",
        "nll",
        "ratio_below",
        0.8,
        "unigram",
    ),
    hypothesis(
        "CLM is below the Kneser-Ney bigram baseline",
        "clm",
        "causal",
        "nll",
        "ratio_below",
        1.0,
        "bigram",
    ),
    hypothesis(
        "MLM is at least 8 % below the unigram baseline",
        "mlm",
        "masked",
        "ce",
        "ratio_below",
        0.92,
        "unigram",
    ),
    hypothesis(
        "MLM has at least twice the unigram baseline's accuracy",
        "mlm",
        "masked",
        "accuracy",
        "ratio_above",
        2.0,
        "unigram",
    ),
    hypothesis("NSP is above 60 % accuracy", "nsp", "next_sentence", "accuracy", "above", 0.6),
    hypothesis(
        "CLM's linear probe is above the untrained decoder's, intervals do not overlap",
        "clm",
        "probe",
        "balanced_accuracy",
        "intervals_apart_above",
        0.0,
        "untrained decoder",
    ),
)

MORE = (
    hypothesis(
        "The hybrid's next-token loss is below the unigram baseline",
        "hybrid",
        "causal",
        "nll",
        "ratio_below",
        1.0,
        "unigram",
    ),
    hypothesis(
        "The hybrid's masked-token loss is below the unigram baseline",
        "hybrid",
        "masked",
        "ce",
        "ratio_below",
        1.0,
        "unigram",
    ),
    hypothesis(
        "Given the first half of a text, the prefix LM is below the unigram baseline on the rest",
        "prefix_lm_decoder",
        "suffix",
        "nll",
        "ratio_below",
        1.0,
        "unigram",
    ),
    hypothesis(
        "Span corruption is below the unigram baseline",
        "span_corruption",
        "denoising",
        "ce",
        "ratio_below",
        1.0,
        "unigram",
    ),
)
