"""Which objective teaches a small Transformer most from the same text?

  python -m lm.compare --config=experiments/objectives.py:tiny --workdir=runs/objectives
  python -m lm.compare --config=experiments/objectives.py:all --workdir=runs/all_objectives

tiny: MLM, CLM, NSP and MLM + NSP × 3 seeds on 2 CPU cores; `make compare` runs it. all: every objective, and some on two architectures,
× 3 seeds; README.md beside this file says how long each took.
"""

from ml_collections import ConfigDict

TOKENS = {"tiny": 1_200_000, "all": 800_000}


def get_config(size: str = "tiny") -> ConfigDict:
    if size not in TOKENS:
        raise ValueError(f"size {size!r} is not one of {', '.join(TOKENS)} (given after the colon of --config=FILE:SIZE)")
    arms = _few() if size == "tiny" else _few() | _others()
    checks = CHECKS if size == "tiny" else CHECKS + MORE_CHECKS
    tasks = ("causal", "masked", "next_sentence", "probe")
    if size == "all":
        tasks = ("causal", "suffix", "masked", "denoising", "next_sentence", "sentence_order", "probe")
    return ConfigDict(
        {
            "name": "objectives" if size == "tiny" else "all objectives",
            "question": "Which pretraining objective teaches a small Transformer most from the same text at the same number of tokens?",
            "seeds": (0, 1, 2),
            "budget": {"matched": "tokens", "value": TOKENS[size], "tolerance": 0.01},
            "tuning": {
                "field": "optimizer.learning_rate",
                "factors": (),
                "share": 0.25,
                "seed": 1000,
            },  # no trials: rates are the configs' own
            "energy": {"watts": 0.0, "pue": 1.1, "grid_kg_per_kwh": 0.4},
            "split": "test",
            "tasks": tasks,
            "workers": 0,
            "reference": "clm",  # where there are too many arms to show every pair
            "arms": arms,
            # What a sound set-up should reach at this size.
            "hypotheses": tuple(
                {"text": text, "arm": arm_, "task": task, "metric": metric, "compare": against, "op": op, "value": value}
                for text, arm_, task, metric, against, op, value in checks
            ),
        }
    )


def _arm(label: str, describe: str, run: ConfigDict, model: str = "", **options) -> dict:
    run.training.update(evaluate_tokens=16_384, keep=1)
    run.objective.update(options)
    if model:
        run.model.name = model
    return {"label": label, "describe": describe, "run": run}


def _few() -> dict[str, dict]:
    from configs import bert, clm, mlm, nsp  # beside this folder

    return {
        "clm": _arm("CLM", "each token from those before it", clm.get_config()),
        "mlm": _arm("MLM", "15 % hidden tokens from all others, BERT's 80/10/10", mlm.get_config()),
        "nsp": _arm("NSP", "does segment B follow segment A", nsp.get_config()),
        "mlm_nsp": _arm("MLM + NSP", "BERT's sum of both", bert.get_config()),
    }


def _others() -> dict[str, dict]:
    from configs import albert, biphasic, electra, hybrid, mixture, mlm, mntp, prefix_lm, seq2seq, sop, t5, ul2

    return {
        "mlm_span": _arm("MLM, spans", "runs of whole words hidden, SpanBERT's lengths", mlm.get_config(), unit="word_span"),
        "mlm_40": _arm("MLM, 40 % pure", "40 % hidden, all by [MASK]", mlm.get_config(), rate=0.4, mask_share=1.0, random_share=0.0),
        "sop": _arm("SOP", "do two consecutive segments stand in their order", sop.get_config()),
        "mlm_sop": _arm("MLM + SOP", "ALBERT's sum of both", albert.get_config()),
        "rtd": _arm("RTD", "ELECTRA: which tokens did a generator of half the width put there", electra.get_config()),
        "electra_15": _arm("ELECTRA 15 %", "RTD judged at the hidden places only", electra.get_config(), variant="electra_15"),
        "replace_mlm": _arm("Replace MLM", "MLM that reads a generator's samples", electra.get_config(), variant="replace_mlm"),
        "all_tokens_mlm": _arm("All-tokens MLM", "the same, asked for every token", electra.get_config(), variant="all_tokens_mlm"),
        "mntp": _arm("MNTP", "hidden token k + 1 from all others, at k; a decoder that sees both sides", mntp.get_config()),
        "hybrid": _arm("Hybrid 1:1", "GPT-BERT: half of the sequences by CLM, half by MNTP, 30 to 15 % hidden", hybrid.get_config()),
        "mixture": _arm("CLM + MNTP", "a mixture, half and half, 15 % hidden", mixture.get_config()),
        "biphasic": _arm("CLM, then MLM", "a quarter of the steps CLM, then MLM", biphasic.get_config()),
        "prefix_lm": _arm("Prefix LM, enc-dec", "the rest of a text from its beginning", prefix_lm.get_config()),
        "prefix_lm_decoder": _arm("Prefix LM, decoder", "the same under a prefix mask", prefix_lm.get_config(), "decoder"),
        "span_corruption": _arm("Span corruption, enc-dec", "T5's", t5.get_config()),
        "span_corruption_decoder": _arm("Span corruption, decoder", "the same under a prefix mask", t5.get_config(), "decoder"),
        "ul2": _arm("UL2, enc-dec", "seven denoisers with mode tokens", ul2.get_config()),
        "seq2seq": _arm("Seq2seq, enc-dec", "a document's other paragraphs from its first", seq2seq.get_config()),
    }  # fmt: skip


CHECKS = (
    ("CLM is at least 20 % below the unigram baseline", "clm", "causal", "nll", "unigram", "ratio_below", 0.8),
    ("CLM is below the Kneser-Ney bigram baseline", "clm", "causal", "nll", "bigram", "ratio_below", 1.0),
    ("MLM is at least 8 % below the unigram baseline", "mlm", "masked", "ce", "unigram", "ratio_below", 0.92),
    ("MLM has at least twice the unigram baseline's accuracy", "mlm", "masked", "accuracy", "unigram", "ratio_above", 2.0),
    ("NSP is above 60 % accuracy", "nsp", "next_sentence", "accuracy", "", "above", 0.6),
    ("CLM's probe is above the untrained decoder's, intervals apart", "clm", "probe", "balanced_accuracy", "untrained decoder",
     "intervals_apart_above", 0.0),
)  # fmt: skip

MORE_CHECKS = (
    ("The hybrid is below the unigram baseline read causally", "hybrid", "causal", "nll", "unigram", "ratio_below", 1.0),
    ("The hybrid is below the unigram baseline read masked", "hybrid", "masked", "ce", "unigram", "ratio_below", 1.0),
    (
        "The prefix LM, given half a text, is below the unigram baseline",
        "prefix_lm_decoder",
        "suffix",
        "nll",
        "unigram",
        "ratio_below",
        1.0,
    ),
    ("Span corruption is below the unigram baseline", "span_corruption", "denoising", "ce", "unigram", "ratio_below", 1.0),
)
