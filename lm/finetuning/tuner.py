"""Fine-tuning: every parameter of a model, and a new linear head, on labelled rows; by AdamW with warm-up and linear decay.

Each learning rate of one short list is tried for every model alike, and the best epoch of the best one is kept, as a development set says
(Devlin et al. 2019, appendix A.3, chose among three to four rates too). The head starts at zero, so nothing but the seed's order of rows
is random.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from lm.data import loader
from lm.nn import heads
from lm.optimizers import groups, schedules
from lm.parallel import chips
from lm.parallel import mesh as meshes

WIDTH = 64  # at which learning rates are given


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned.

    Attributes:
      rates: learning rates tried, given for a model of width 64: one of width D takes 64 / D of each, as Adam's rates for matrices go
        (Yang et al. 2022, table 3). 1e-3 is 8e-5 at BERT-base's width.
      epochs: passes over the training rows in each trial. batch_size: rows a step, rounded up to what the mesh divides.
      warmup: share of the steps. weight_decay: on all but norms and biases.
    """

    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    epochs: int = 2
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01

    def __post_init__(self):
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"rates={self.rates} should be one or more learning rates above 0")
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(
                f"epochs={self.epochs} and batch_size={self.batch_size} must be at least 1"
            )
        if not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise ValueError(
                f"warmup={self.warmup} is a share below 1, and weight_decay={self.weight_decay} must not be negative"
            )


Rows = dict[
    str, np.ndarray
]  # [N, …]: what `features` reads, and targets int32 [N, P], weights float32 [N, P] (0: no place there)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A learning rate and what the development set said after each epoch: (judgement, higher is better; cross-entropy in nats)."""

    rate: float
    epochs: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The parameters and the head that were kept, of which trial and epoch (from 0), and all trials."""

    params: Any
    head: dict[str, Any]
    rate: float
    epoch: int
    trials: list[Trial]


class Tuner:
    """Fine-tunes models of one program for one set of labels; compiles a step and a pass, whatever the rates and masks.

    Args:
      program: the program. features: (model, batch, noise or None) → [B, P, F], what the head reads, float32. classes: C.
      recipe: how.
    """

    def __init__(
        self,
        program: Any,
        features: Callable[[Any, dict, Any], jax.Array],
        classes: int,
        recipe: Recipe,
    ):
        self.program, self.features, self.classes, self.recipe = program, features, classes, recipe
        parts = meshes.parts("batch", program.mesh)
        self.size = -(-recipe.batch_size // parts) * parts
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.add_decayed_weights(recipe.weight_decay, groups.decayed),
        )
        self._everywhere = NamedSharding(program.mesh, PartitionSpec())
        self._pass = jax.jit(self._answer, out_shardings=self._everywhere)
        self._compiled: tuple[Callable, Any, Any] | None = None

    def run(
        self, params: Any, train: Rows, dev: Rows, judge: Callable[[np.ndarray], float]
    ) -> Tuned:
        """Every trial; the given parameters stay as they are.

        Args:
          judge: scores of the classes on `dev` [N, P, C] → the number to choose by; ties go to the lower cross-entropy, then to the
            earlier.
        """
        steps = -(-len(train["targets"]) // self.size)
        total = steps * self.recipe.epochs
        shape = schedules.make(
            schedules.ScheduleConfig(schedule="linear", warmup=self.recipe.warmup), total
        )
        rises = np.asarray(jax.vmap(shape)(jnp.arange(total)), np.float32) * np.float32(
            WIDTH / self.program.config.width
        )
        best: Tuned | None = None
        best_value = (-np.inf, -np.inf)
        trials = []
        for rate in self.recipe.rates:
            state, moments, step = self._start(params, train)
            trial = Trial(rate, [])
            trials.append(trial)
            for epoch in range(self.recipe.epochs):
                order = np.random.default_rng([self.program.seed, epoch]).permutation(
                    len(train["targets"])
                )
                for number in range(steps):
                    rows = order[number * self.size : (number + 1) * self.size]
                    at = epoch * steps + number
                    state, moments = step(
                        state,
                        moments,
                        self._batch(train, rows),
                        rises[at] * np.float32(rate),
                        np.int32(at),
                    )
                logits = self.logits(state["model"], state["head"], dev)
                value = (
                    (judge(logits), -cross_entropy(logits, dev))
                    if np.isfinite(logits).all()
                    else (-np.inf, -np.inf)
                )
                trial.epochs.append((value[0], -value[1]))
                if value > best_value or best is None:
                    best, best_value = (
                        Tuned(state["model"], state["head"], rate, epoch, trials),
                        value,
                    )
        assert best is not None
        return best

    def logits(self, params: Any, head: dict[str, Any], rows: Rows) -> np.ndarray:
        """Scores of the classes for every row, without dropout: float32 [N, P, C]."""
        return self._over(params, head, rows, "logits")

    def frozen(self, params: Any, rows: Rows) -> np.ndarray:
        """What the head would read of an unchanged model: float32 [N, P, F]."""
        return self._over(params, self._head(params, rows), rows, "features")

    def _over(self, params: Any, head: dict[str, Any], rows: Rows, wanted: str) -> np.ndarray:
        count = len(rows["targets"])
        found = []
        for start in range(0, count, self.size):
            batch = self._batch(rows, np.arange(start, min(start + self.size, count)))
            found.append(
                jax.device_get(
                    self._call(self._pass, {"model": params, "head": head}, batch)[wanted]
                )
            )
        return np.concatenate(found)[:count]

    def _batch(self, rows: Rows, which: np.ndarray) -> dict[str, jax.Array]:
        """Rows on the mesh, filled up to a whole batch with empty ones."""
        sharding = self.program.batch_sharding
        mine = meshes.local_rows(sharding, self.size)
        batch = {}
        for name, values in rows.items():
            whole = np.zeros((self.size, *values.shape[1:]), values.dtype)
            whole[: len(which)] = values[which]
            batch[name] = whole[mine]
        return loader.place(batch, sharding, self.size)

    def _start(self, params: Any, rows: Rows) -> tuple[Any, Any, Callable]:
        """The state before the first step, the optimiser's, and the step."""
        state = {
            "model": jax.device_put(params, self.program.shardings["params"]),
            "head": self._head(params, rows),
        }
        if self._compiled is None:
            shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
            shapes = jax.eval_shape(self.optimizer.init, state)
            # The moments of a parameter lie as it does.
            places = optax.tree_map_params(
                self.optimizer,
                lambda _, place: place,
                shapes,
                shardings,
                transform_non_params=lambda _: self._everywhere,
            )
            options = chips.compiler_options(self.program.mesh.devices.flat[0].device_kind)
            compiled = jax.jit(
                self._update,
                donate_argnums=1,
                out_shardings=(shardings, places),
                compiler_options=options,
            )
            self._compiled = functools.partial(self._call, compiled), shapes, places
        step, shapes, places = self._compiled
        # Adam's moments and count start at zero.
        moments = jax.tree.map(
            lambda leaf, place: jax.device_put(np.zeros(leaf.shape, leaf.dtype), place),
            shapes,
            places,
        )
        return state, moments, step

    def _call(self, compiled: Callable, *args: Any) -> Any:
        with meshes.use(self.program.mesh, self.program.mesh_config):
            return compiled(*args)

    def _head(self, params: Any, rows: Rows) -> dict[str, jax.Array]:
        """Zeros of the head's shapes."""
        batch = {
            name: jax.ShapeDtypeStruct((self.size, *values.shape[1:]), values.dtype)
            for name, values in rows.items()
        }
        read = functools.partial(
            jax.eval_shape,
            lambda params, batch: self.features(self.program.model(params), batch, None),
        )
        width = self._call(read, params, batch).shape[-1]
        zeros = {
            "kernel": np.zeros((width, self.classes), np.float32),
            "bias": np.zeros(self.classes, np.float32),
        }
        return jax.device_put(zeros, self._everywhere)

    def _answer(self, state: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        features = self.features(self.program.model(state["model"]), batch, None)
        return {"features": features, "logits": _scores(state["head"], features)}

    def _update(
        self,
        state: Any,
        moments: Any,
        batch: dict[str, jax.Array],
        rate: jax.Array,
        step: jax.Array,
    ) -> tuple[Any, Any]:
        dropout_keys = self.program.dropout_keys(step, len(batch["tokens"]))

        def loss(state):
            scores = _scores(
                state["head"],
                self.features(self.program.model(state["model"]), batch, dropout_keys),
            )
            (nll, weight), _ = heads.classify(scores, batch["targets"], batch["weights"])
            return nll / jnp.maximum(weight, 1.0)

        updates, moments = self.optimizer.update(jax.grad(loss)(state), moments, state)
        return jax.tree.map(lambda value, update: value - rate * update, state, updates), moments


def _scores(head: dict[str, jax.Array], features_BPF: jax.Array) -> jax.Array:
    return jnp.einsum("BPF,FC->BPC", features_BPF, head["kernel"]) + head["bias"][None, None]


def cross_entropy(logits: np.ndarray, rows: Rows) -> float:
    """Mean negative log-likelihood of the rows' targets in nats; logits [N, P, C]."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    picked = np.take_along_axis(shifted, rows["targets"][..., None].astype(np.int64), -1)[..., 0]
    return float(
        ((np.log(np.exp(shifted).sum(-1)) - picked) * rows["weights"]).sum() / rows["weights"].sum()
    )
