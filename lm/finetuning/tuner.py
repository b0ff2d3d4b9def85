"""Fine-tuning of a model and a new linear head on labelled rows.

All parameters are trained, by AdamW with warm-up and linear decay. The same short list of learning
rates is tried for every model, and a development set selects the best epoch of the best rate
(Devlin et al. 2019, appendix A.3, also selected among three to four rates). The head starts at
zero, so only the order of rows is random; it depends on the run's seed.
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
from jaxtyping import Array, Float, Integer

from lm.core.protocols import Batch, Model, Params
from lm.data import loader
from lm.nn import heads
from lm.nn.layers import DropoutKeys
from lm.optimizers import groups, schedules
from lm.parallel import chips, sharding
from lm.parallel import mesh as meshes
from lm.training.program import Program

WIDTH = 64  # model width to which the learning rates refer

# The fields that `features` reads, and two more: targets, int32 [N, P]; weights, float32 [N, P],
# 0 where there is no target.
Rows = dict[str, np.ndarray]
Head = dict[str, jax.Array]  # kernel [F, C], bias [C]
Features = Callable[[Model, Batch, DropoutKeys | None], jax.Array]
State = dict[str, Any]  # "model": parameters, "head": Head


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned.

    Attributes:
      rates: learning rates to try, for a model of width 64. A model of width D multiplies each rate
        by 64 / D, the scaling of Adam's rates for matrices (Yang et al. 2022, table 3). For
        example, 1e-3 becomes 8e-5 at BERT-base's width.
      epochs: number of passes over the training rows, for each rate.
      batch_size: number of rows per step, rounded up to a multiple that the mesh divides.
      warmup: fraction of the steps used for warm-up.
      weight_decay: weight decay of all parameters but norms and biases.
    """

    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    epochs: int = 2
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"rates={self.rates} should be one or more learning rates above 0")
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(
                f"epochs={self.epochs} and batch_size={self.batch_size} must be at least 1"
            )
        if not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise ValueError(
                f"warmup={self.warmup} must be a fraction below 1, and"
                f" weight_decay={self.weight_decay} must not be negative"
            )


@dataclasses.dataclass(frozen=True)
class Trial:
    """The development set's results for a learning rate.

    Attributes:
      rate: the learning rate.
      epochs: (selection metric, cross-entropy in nats) after each epoch.
    """

    rate: float
    epochs: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of fine-tuning.

    Attributes:
      params: parameters of the model.
      head: parameters of the new head.
      rate: selected learning rate.
      epoch: number of the selected epoch, counted from 0.
      trials: the results of all learning rates.
    """

    params: Params
    head: Head
    rate: float
    epoch: int
    trials: list[Trial]


class Tuner:
    """Fine-tunes models of one program for one set of labels.

    The training step and the forward pass are compiled once for all rates and masks.

    Attributes:
      size: number of rows of a batch.
    """

    def __init__(self, program: Program, features: Features, classes: int, recipe: Recipe):
        """Prepares the optimizer and the forward pass.

        Args:
          program: program of the models.
          features: function (model, batch, dropout keys or None) → head inputs, float32 [B, P, F].
          classes: C, the number of classes.
          recipe: options of fine-tuning.
        """
        self.program, self.features, self.classes, self.recipe = program, features, classes, recipe
        parts = sharding.parts("batch", program.mesh)
        self.size = -(-recipe.batch_size // parts) * parts
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.add_decayed_weights(recipe.weight_decay, groups.decayed),
        )
        self._replicated = NamedSharding(program.mesh, PartitionSpec())
        self._compiled_forward = jax.jit(self._forward, out_shardings=self._replicated)
        # The step, and shapes and shardings of the optimizer's state.
        self._compiled_step: tuple[Callable, Any, Any] | None = None

    def run(
        self,
        params: Params,
        train: Rows,
        dev: Rows,
        select_by: Callable[[np.ndarray], float],
    ) -> Tuned:
        """Fine-tunes at every rate and keeps the best epoch. The given parameters are not changed.

        Args:
          params: parameters of the model.
          train: rows to train on.
          dev: rows to select by.
          select_by: function from logits on `dev`, float32 [N, P, C], to the selection metric;
            higher is better. Ties go to the lower cross-entropy, then to the earlier epoch.
        """
        count = len(train["targets"])
        steps = -(-count // self.size)
        rates = self._relative_rates(steps * self.recipe.epochs)
        best: Tuned | None = None
        best_value = (-np.inf, -np.inf)
        trials: list[Trial] = []
        for rate in self.recipe.rates:
            state, opt_state, update = self._start(params, train)
            trial = Trial(rate, [])
            trials.append(trial)
            for epoch in range(self.recipe.epochs):
                order = np.random.default_rng([self.program.seed, epoch]).permutation(count)
                for index in range(steps):
                    step = epoch * steps + index
                    state, opt_state = update(
                        state,
                        opt_state,
                        self._batch(train, order[index * self.size : (index + 1) * self.size]),
                        rates[step] * np.float32(rate),
                        np.int32(step),
                    )
                logits = self.logits(state["model"], state["head"], dev)
                value = (-np.inf, -np.inf)
                if np.isfinite(logits).all():
                    value = (select_by(logits), -cross_entropy(logits, dev))
                trial.epochs.append((value[0], -value[1]))
                if value > best_value or best is None:
                    best = Tuned(state["model"], state["head"], rate, epoch, trials)
                    best_value = value
        assert best is not None
        return best

    def _relative_rates(self, steps: int) -> Float[np.ndarray, "steps"]:
        """The learning rate of each step, relative to the recipe's; float32."""
        schedule = schedules.make(
            schedules.ScheduleConfig(schedule="linear", warmup=self.recipe.warmup), steps
        )
        return np.asarray(jax.vmap(schedule)(jnp.arange(steps)), np.float32) * np.float32(
            WIDTH / self.program.config.width
        )

    def logits(self, params: Params, head: Head, rows: Rows) -> Float[np.ndarray, "N P C"]:
        """Logits of the classes for every row, without dropout; float32 [N, P, C].

        Args:
          params: parameters of the model.
          head: parameters of the head.
          rows: N rows.
        """
        return self._map(params, head, rows, "logits")

    def frozen(self, params: Params, rows: Rows) -> Float[np.ndarray, "N P F"]:
        """Inputs of the head from a model that is not fine-tuned; float32 [N, P, F].

        Args:
          params: parameters of the model.
          rows: N rows.
        """
        return self._map(params, self._new_head(params, rows), rows, "features")

    def _map(
        self, params: Params, head: Head, rows: Rows, output: str
    ) -> Float[np.ndarray, "N P _"]:
        """An output of the forward pass for every row."""
        count = len(rows["targets"])
        results = []
        for start in range(0, count, self.size):
            batch = self._batch(rows, np.arange(start, min(start + self.size, count)))
            outputs = self._call(self._compiled_forward, {"model": params, "head": head}, batch)
            results.append(jax.device_get(outputs[output]))
        return np.concatenate(results)[:count]

    def _batch(self, rows: Rows, index: Integer[np.ndarray, "n"]) -> dict[str, jax.Array]:
        """The rows of these indices on the mesh, followed by empty ones that fill the batch."""
        batch_sharding = self.program.batch_sharding
        local = sharding.local_rows(batch_sharding, self.size)
        batch = {}
        for name, values in rows.items():
            filled = np.zeros((self.size, *values.shape[1:]), values.dtype)
            filled[: len(index)] = values[index]
            batch[name] = filled[local]
        return loader.place(batch, batch_sharding, self.size)

    def _start(self, params: Params, rows: Rows) -> tuple[State, Any, Callable]:
        """The state before the first step, the optimizer's state, and the step."""
        state = {
            "model": jax.device_put(params, self.program.shardings["params"]),
            "head": self._new_head(params, rows),
        }
        if self._compiled_step is None:
            self._compiled_step = self._compile_step(state)
        step, shapes, shardings = self._compiled_step
        # Adam's moments and count start at zero.
        opt_state = jax.tree.map(
            lambda leaf, sharding: jax.device_put(np.zeros(leaf.shape, leaf.dtype), sharding),
            shapes,
            shardings,
        )
        return state, opt_state, step

    def _compile_step(self, state: State) -> tuple[Callable, Any, Any]:
        """The step, and shapes and shardings of the optimizer's state."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        opt_shapes = jax.eval_shape(self.optimizer.init, state)
        # The moments of a parameter have the parameter's sharding.
        opt_shardings = optax.tree_map_params(
            self.optimizer,
            lambda _, sharding: sharding,
            opt_shapes,
            shardings,
            transform_non_params=lambda _: self._replicated,
        )
        compiled = jax.jit(
            self._update,
            donate_argnums=1,
            out_shardings=(shardings, opt_shardings),
            compiler_options=chips.compiler_options(self.program.mesh.devices.flat[0].device_kind),
        )
        return functools.partial(self._call, compiled), opt_shapes, opt_shardings

    def _call(self, function: Callable, *args: Any) -> Any:
        with meshes.use(self.program.mesh, self.program.mesh_config):
            return function(*args)

    def _new_head(self, params: Params, rows: Rows) -> Head:
        """A head of zeros."""
        batch = {
            name: jax.ShapeDtypeStruct((self.size, *values.shape[1:]), values.dtype)
            for name, values in rows.items()
        }
        shape = functools.partial(
            jax.eval_shape,
            lambda params, batch: self.features(self.program.model(params), batch, None),
        )
        width = self._call(shape, params, batch).shape[-1]
        zeros = {
            "kernel": np.zeros((width, self.classes), np.float32),
            "bias": np.zeros(self.classes, np.float32),
        }
        return jax.device_put(zeros, self._replicated)

    def _forward(self, state: State, batch: Batch) -> dict[str, jax.Array]:
        """features [B, P, F] and logits [B, P, C], without dropout."""
        features = self.features(self.program.model(state["model"]), batch, None)
        return {"features": features, "logits": _logits(state["head"], features)}

    def _update(
        self,
        state: State,
        opt_state: Any,
        batch: Batch,
        rate: Float[Array, ""],
        step: Integer[Array, ""],
    ) -> tuple[State, Any]:
        """A step of AdamW at a learning rate: the new state and the optimizer's."""
        dropout_keys = self.program.dropout_keys(step, len(batch["tokens"]))

        def loss(state: State) -> Float[Array, ""]:
            model = self.program.model(state["model"])
            logits = _logits(state["head"], self.features(model, batch, dropout_keys))
            (nll, weight), _ = heads.classify(logits, batch["targets"], batch["weights"])
            return nll / jnp.maximum(weight, 1.0)

        updates, opt_state = self.optimizer.update(jax.grad(loss)(state), opt_state, state)
        state = jax.tree.map(lambda value, update: value - rate * update, state, updates)
        return state, opt_state


def _logits(head: Head, features_BPF: Float[Array, "B P F"]) -> Float[Array, "B P C"]:
    return jnp.einsum("BPF,FC->BPC", features_BPF, head["kernel"]) + head["bias"][None, None]


def cross_entropy(logits: Float[np.ndarray, "N P C"], rows: Rows) -> float:
    """Mean negative log-likelihood of the rows' targets, in nats.

    Args:
      logits: logits of the classes, [N, P, C].
      rows: rows with the fields `targets` and `weights`, both [N, P].
    """
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    target = np.take_along_axis(shifted, rows["targets"][..., None].astype(np.int64), -1)[..., 0]
    nll = np.log(np.exp(shifted).sum(-1)) - target
    return float((nll * rows["weights"]).sum() / rows["weights"].sum())
