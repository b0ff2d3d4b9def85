"""Speed of the training step and of its input, measured separately.

  python -m benchmarks.step --config=configs/clm.py:tiny [--steps=30]

Prints tokens/s of the compiled step on prepared batches (median and best), tokens/s of building
batches on one core, and the time of input relative to the step without any overlap.
"""

import statistics
import time

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_STEPS = flags.DEFINE_integer("steps", 30, "steps to time, after two for warm-up", lower_bound=1)


def main() -> None:
    import jax

    from lm.core.plain import plain
    from lm.data import corpus as corpora
    from lm.data.loader import Loader, examples, local_batches
    from lm.training.program import Program

    config = plain(_CONFIG.value)
    corpus = corpora.prepare(config["data"], config["tokenizer"])
    program = Program(config, corpus.tokenizer)
    store, size = corpus.stores["train"], program.training.batch_size
    rows = examples(program.objective, store, program.objective.plan(store), 0, size, program.steps)
    loader = Loader(rows, size, program.mesh)
    batches = [next(loader) for _ in range(8)]
    state, seconds = program.init(), []
    for step in range(_STEPS.value + 2):
        begin = time.perf_counter()
        state, sums = program.step(state, batches[step % len(batches)])
        jax.block_until_ready(sums)
        seconds.append(time.perf_counter() - begin)
    seconds = seconds[2:]
    tokens = size * program.length
    import numpy as np

    source = local_batches(rows, np.arange(size), size)
    begin = time.perf_counter()
    for step in range(20):
        source[step]
    building = (time.perf_counter() - begin) / 20
    median = statistics.median(seconds)
    flops = size * program.flops_per_row
    print(
        f"{config['objective']['name']} on {config['model']['name']}:"
        f" {program.parameters:,} parameters, {tokens:,} tokens per step"
    )
    print(
        f"step   median {median * 1e3:.1f} ms ({tokens / median:,.0f} tokens/s,"
        f" {flops / median / 1e9:.0f} GFLOP/s), best {min(seconds) * 1e3:.1f} ms"
    )
    print(
        f"input  {building * 1e3:.1f} ms per batch on one core ({tokens / building:,.0f} tokens/s),"
        f" {building / median:.1%} of a step"
    )


if __name__ == "__main__":
    command.run(main)
