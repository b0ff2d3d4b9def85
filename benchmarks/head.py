"""The vocabulary head: gathered positions against all of them, and chunks against the scores of all positions at once.

  python -m benchmarks.head [--steps=20] [--heads_only] [--tokens=16384] [--vocabulary=32768] [--width=256]

1. The step of configs/mlm.py:tiny with 8,192 words: the head at the masked positions only, against the head at every position (with a
   weight of 0 where nothing is asked), by the plain loss on the logits.
2. Loss and gradients of a causal head at 16k positions and 32k words: in chunks, against the plain loss on all logits; time in turn, and
   the compiler's own figure for temporary memory.
"""

import statistics
import time

from absl import flags

from lm.core import command

_STEPS = flags.DEFINE_integer("steps", 20, "rounds to time, each side in turn", lower_bound=2)
_HEADS_ONLY = flags.DEFINE_bool("heads_only", False, "leave out the MLM step")
_TOKENS = flags.DEFINE_integer("tokens", 16384, "positions of the causal head", lower_bound=64)
_VOCABULARY = flags.DEFINE_integer("vocabulary", 32768, "words of the causal head", lower_bound=64)
_WIDTH = flags.DEFINE_integer("width", 256, "width of the causal head", lower_bound=8)
_CHUNKS = flags.DEFINE_integer("chunks", 16, "chunks of the causal head", lower_bound=1)


def main() -> None:
    if not _HEADS_ONLY.value:
        masked_step()
    causal_head()


def masked_step() -> None:
    """MLM with the head at the masked positions, against the head everywhere."""
    import jax
    import numpy as np

    from configs import mlm
    from lm.core.plain import plain
    from lm.data import corpus, loader
    from lm.nn import heads, token_loss
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

    def everywhere(batch):
        """The same targets at their places among all."""
        tokens = np.asarray(batch["tokens"])
        found = {
            "targets": np.zeros(tokens.shape, np.int32),
            "weights": np.zeros(tokens.shape, np.float32),
        }
        for row, (places, weights) in enumerate(
            zip(np.asarray(batch["target_positions"]), np.asarray(batch["weights"]), strict=True)
        ):
            real = weights > 0
            found["targets"][row, places[real]] = np.asarray(batch["targets"])[row][real]
            found["weights"][row, places[real]] = 1.0
        kept = {
            name: value
            for name, value in batch.items()
            if name not in ("target_positions", "targets", "weights")
        }
        return kept | jax.device_put(found)

    class Full:
        """MLM by the logits of every position."""

        terms, heads = objective.terms, objective.heads

        def loss(self, model, batch, key):
            nll, hits = heads.classify(
                model.logits(model.states(batch, key)),
                batch["targets"],
                batch["weights"],
            )
            return {"mlm": nll}, {"mlm_accuracy": hits}

    program["full"].objective = Full()
    sides = {"gathered": gathered, "full": [everywhere(batch) for batch in gathered]}
    states, seconds, losses = (
        {side: program[side].init() for side in sides},
        {side: [] for side in sides},
        {},
    )
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
    """The chunked cross-entropy against the plain one."""
    import jax
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

    def chunked(h, table):
        return cross_entropy.cross_entropy(h, table, targets_BT, weights_BT, _CHUNKS.value).loss

    def full(h, table):
        return heads.classify(jnp.einsum("BTD,VD->BTV", h, table), targets_BT, weights_BT)[0][0]

    sides, memory, seconds, values = {"chunked": chunked, "full": full}, {}, {}, {}
    compiled = {
        side: jax.jit(jax.value_and_grad(function, (0, 1))).lower(h_BTD, table_VD).compile()
        for side, function in sides.items()
    }
    for side, function in compiled.items():
        memory[side], seconds[side] = function.memory_analysis().temp_size_in_bytes, []
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
        f"  temporary memory by the compiler: full {memory['full'] / 2**20:,.0f} MiB, chunked {memory['chunked'] / 2**20:,.0f} MiB,"
        f" {memory['full'] / memory['chunked']:.1f}× less"
    )
    (loss, grads), (plain_loss, plain_grads) = values["chunked"], values["full"]
    errors = [
        float(jnp.abs(one - other).max() / jnp.abs(other).max())
        for one, other in zip(grads, plain_grads, strict=True)
    ]
    print(
        f"  relative difference: loss {abs(float(loss / plain_loss) - 1):.1e}, gradients {max(errors):.1e} of the largest element"
    )


def report(
    what: str, slow: str, fast: str, slow_seconds: list[float], fast_seconds: list[float]
) -> None:
    """Medians of both sides, and the median of the ratios round by round."""
    ratio = statistics.median(a / b for a, b in zip(slow_seconds, fast_seconds, strict=True))
    print(
        f"{what}: {slow} {statistics.median(slow_seconds) * 1e3:,.1f} ms, {fast} {statistics.median(fast_seconds) * 1e3:,.1f} ms:"
        f" {ratio:.2f}× as fast"
    )


if __name__ == "__main__":
    command.run(main)
