"""The vocabulary head: masked positions against all positions, and chunks against full logits.

  python -m benchmarks.head [--steps=20] [--heads_only] [--tokens=16384] [--vocabulary=32768]

1. The step of configs/mlm.py:tiny with a vocabulary of 8,192. The head at the masked positions
   only, against the head at every position (weight 0 where nothing is masked) with the plain loss
   on the logits.
2. Loss and gradients of a causal head at 16k positions and a vocabulary of 32k. In chunks, against
   the plain loss on all logits: time, alternating, and temporary memory as the compiler reports it.
"""

import statistics
import time
from typing import Any

import jax
from absl import flags

from lm.core import command
from lm.core.protocols import Batch, Sums
from lm.nn.layers import DropoutKeys

_STEPS = flags.DEFINE_integer("steps", 20, "rounds to time, alternating", lower_bound=2)
_HEADS_ONLY = flags.DEFINE_bool("heads_only", False, "skip the MLM step")
_TOKENS = flags.DEFINE_integer("tokens", 16384, "positions of the causal head", lower_bound=64)
_VOCABULARY = flags.DEFINE_integer(
    "vocabulary", 32768, "vocabulary size of the causal head", lower_bound=64
)
_WIDTH = flags.DEFINE_integer("width", 256, "width of the causal head", lower_bound=8)
_CHUNKS = flags.DEFINE_integer("chunks", 16, "chunks of the causal head", lower_bound=1)


def main() -> None:
    """Prints both comparisons."""
    if not _HEADS_ONLY.value:
        masked_step()
    causal_head()


def masked_step() -> None:
    """Compares MLM with the head at the masked positions and at all positions."""
    import numpy as np

    from configs import mlm
    from lm.core.plain import plain
    from lm.data import corpus, loader
    from lm.nn import heads
    from lm.training.program import Program, divide_sums

    config = plain(mlm.get_config("tiny"))
    config["tokenizer"]["vocab_size"] = 8192
    prepared = corpus.prepare(config["data"], config["tokenizer"])
    program = {side: Program(config, prepared.tokenizer) for side in ("gathered", "full")}
    store = prepared.stores["train"]
    objective = program["gathered"].objective
    rows = loader.examples(
        objective, store, objective.plan(store), 0, config["training"]["batch_size"], 1000
    )
    batches = loader.Loader(rows, config["training"]["batch_size"], program["gathered"].mesh)
    gathered = [next(batches) for _ in range(4)]

    def at_all_positions(batch: Batch) -> dict[str, Any]:
        """The same targets, with weight 0 at all other positions."""
        tokens = np.asarray(batch["tokens"])
        targets = {
            "targets": np.zeros(tokens.shape, np.int32),
            "weights": np.zeros(tokens.shape, np.float32),
        }
        for row, (positions, weights) in enumerate(
            zip(np.asarray(batch["target_positions"]), np.asarray(batch["weights"]), strict=True)
        ):
            real = weights > 0
            targets["targets"][row, positions[real]] = np.asarray(batch["targets"])[row][real]
            targets["weights"][row, positions[real]] = 1.0
        kept = {
            name: value
            for name, value in batch.items()
            if name not in ("target_positions", "targets", "weights")
        }
        return kept | jax.device_put(targets)

    class Full:
        """MLM with the logits of every position."""

        terms, heads = objective.terms, objective.heads

        def loss(self, model: Any, batch: Batch, key: DropoutKeys | None) -> tuple[Sums, Sums]:
            nll, hits = heads.classify(
                model.logits(model.states(batch, key)),
                batch["targets"],
                batch["weights"],
            )
            return {"mlm": nll}, {"mlm_accuracy": hits}

    full: Any = Full()
    program["full"].objective = full
    sides = {"gathered": gathered, "full": [at_all_positions(batch) for batch in gathered]}
    states = {side: program[side].init() for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    losses = {}
    for round_ in range(_STEPS.value + 2):
        for side, batches_ in sides.items():
            begin = time.perf_counter()
            states[side], sums = program[side].step(states[side], batches_[round_ % 4])
            jax.block_until_ready(sums)
            seconds[side].append(time.perf_counter() - begin)
            if not round_:
                losses[side] = divide_sums(jax.device_get(sums))["mlm"]
    report(
        "MLM step, tiny, V=8,192",
        "full logits",
        "gathered",
        seconds["full"][2:],
        seconds["gathered"][2:],
    )
    print(f"  loss of the first step: gathered {losses['gathered']:.6f}, full {losses['full']:.6f}")


def causal_head() -> None:
    """Compares the chunked cross-entropy with the plain one."""
    import jax.numpy as jnp
    import numpy as np

    from lm.nn import cross_entropy, heads

    rows, D, V = 32, _WIDTH.value, _VOCABULARY.value
    T = _TOKENS.value // rows
    rng = np.random.default_rng(0)
    h_BTD = jnp.asarray(rng.normal(size=(rows, T, D)) / D**0.5, jnp.float32)
    table_VD = jnp.asarray(rng.normal(size=(V, D)), jnp.float32)
    targets_BT = jnp.asarray(rng.integers(0, V, (rows, T)), jnp.int32)
    weights_BT = jnp.ones((rows, T), jnp.float32)

    def chunked(h: jax.Array, table: jax.Array) -> jax.Array:
        return cross_entropy.cross_entropy(h, table, targets_BT, weights_BT, _CHUNKS.value).loss

    def full(h: jax.Array, table: jax.Array) -> jax.Array:
        return heads.classify(jnp.einsum("BTD,VD->BTV", h, table), targets_BT, weights_BT)[0][0]

    sides = {"chunked": chunked, "full": full}
    memory: dict[str, int] = {}
    seconds: dict[str, list[float]] = {}
    values: dict[str, Any] = {}
    compiled = {
        side: jax.jit(jax.value_and_grad(function, (0, 1))).lower(h_BTD, table_VD).compile()
        for side, function in sides.items()
    }
    for side, function in compiled.items():
        analysis: Any = function.memory_analysis()
        memory[side], seconds[side] = analysis.temp_size_in_bytes, []
    for _ in range(max(3, _STEPS.value // 4)):
        for side, function in compiled.items():
            begin = time.perf_counter()
            values[side] = jax.block_until_ready(function(h_BTD, table_VD))
            seconds[side].append(time.perf_counter() - begin)
    name = f"causal head, B·T={rows * T:,}, V={V:,}, D={D}"
    report(
        name, "full logits", f"{_CHUNKS.value} chunks", seconds["full"][1:], seconds["chunked"][1:]
    )
    print(
        f"  temporary memory by the compiler: full {memory['full'] / 2**20:,.0f} MiB,"
        f" chunked {memory['chunked'] / 2**20:,.0f} MiB,"
        f" {memory['full'] / memory['chunked']:.1f}× less"
    )
    (loss, grads), (plain_loss, plain_grads) = values["chunked"], values["full"]
    errors = [
        float(jnp.abs(one - other).max() / jnp.abs(other).max())
        for one, other in zip(grads, plain_grads, strict=True)
    ]
    print(
        f"  relative difference: loss {abs(float(loss / plain_loss) - 1):.1e},"
        f" gradients {max(errors):.1e} of the largest element"
    )


def report(
    title: str, slow: str, fast: str, slow_seconds: list[float], fast_seconds: list[float]
) -> None:
    """Prints the medians of both sides, and the median of their ratio over the rounds."""
    ratio = statistics.median(a / b for a, b in zip(slow_seconds, fast_seconds, strict=True))
    print(
        f"{title}: {slow} {statistics.median(slow_seconds) * 1e3:,.1f} ms,"
        f" {fast} {statistics.median(fast_seconds) * 1e3:,.1f} ms: {ratio:.2f}× as fast"
    )


if __name__ == "__main__":
    command.run(main)
