"""Time to score 1,000 minimal pairs at `:tiny`, causally and by both pseudo-log-likelihoods.

  python -m benchmarks.pairs [--pairs=1000]

Targets on two cores, compilation included: causal under 10 s, PLL under 60 s. The pairs are
held-out sentences and the same with two neighboring words swapped. The models are untrained. User
time is this process's over all cores, for machines shared with other work.
"""

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags

from lm.core import command
from lm.data.corpus import Corpus

_PAIRS = flags.DEFINE_integer("pairs", 1000, "pairs to score", lower_bound=1)
SHORTEST, LONGEST = 5, 14  # words in a sentence; BLiMP's have 4 to 15


def main() -> None:
    """Prints a line per scoring method, with and without compilation."""
    from lm import presets
    from lm.core.plain import plain
    from lm.data import corpus as corpora
    from lm.evaluation import evaluator
    from lm.inference import scoring
    from lm.training.program import Program

    for model, objective, methods in (
        ("decoder", "clm", ("causal",)),
        ("encoder", "mlm", ("pll", "pll_word")),
    ):
        config = plain(presets.laptop_run(model, {"name": objective}, learning_rate=0.01))
        corpus = corpora.prepare(config["data"], config["tokenizer"])
        program = Program(config, corpus.tokenizer)
        params = program.init()["params"]
        with tempfile.TemporaryDirectory() as directory:
            path = write(corpus, _PAIRS.value, Path(directory) / "pairs.jsonl")
            task = evaluator.make_tasks(
                ["minimal_pairs"],
                corpus,
                "train",
                program.length,
                {"minimal_pairs": {"path": str(path)}},
            )
        pairs: Any = task["minimal_pairs"]
        tokens = sum(map(len, pairs.sentences))
        assert set(methods) == set(scoring.methods(program.objective))
        for method in methods:
            for when in ("compilation included", "compiled"):
                begin, used = time.perf_counter(), user()
                pairs.log_p(program, params, method)
                seconds, used = time.perf_counter() - begin, user() - used
                print(
                    f"{method:<9} {len(pairs.pairs):,} pairs, {tokens:,} tokens: {seconds:5.1f} s,"
                    f" {used:5.1f} s of user time, {when}"
                    f" ({len(pairs.pairs) / seconds:,.0f} pairs/s,"
                    f" {tokens / seconds:,.0f} scored tokens/s)"
                )


def write(corpus: Corpus, count: int, path: Path) -> Path:
    """Writes pairs of a sentence of the corpus and the same with two words swapped."""
    lines = []
    for document in corpus.texts("train"):
        for sentence in (sentence for paragraph in document.paragraphs for sentence in paragraph):
            words = sentence.split()
            middle = len(words) // 2
            if (
                SHORTEST <= len(words) <= LONGEST
                and len(sentence) < 90
                and words[middle] != words[middle - 1]
            ):
                changed = [
                    *words[: middle - 1],
                    words[middle],
                    words[middle - 1],
                    *words[middle + 1 :],
                ]
                lines.append(
                    json.dumps(
                        {"sentence_good": " ".join(words), "sentence_bad": " ".join(changed)}
                    )
                )
        if len(lines) >= count:
            break
    path.write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    return path


def user() -> float:
    """Seconds of user time of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    command.run(main)
