"""The compiled parts of a run: model, objective and optimizer on a mesh, and jitted functions.

The train state is {"params": nested dict of arrays, "opt_state": optax's state, "step":
int32}. The model's structure is static and merged inside each jitted function.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.core.protocols import Batch, Model, ModelClass, Params, Sums, Tokenizer
from lm.nn import flops
from lm.nn.config import ModelConfig
from lm.nn.layers import DropoutKeys, Scope
from lm.optimizers import config as optimizers
from lm.parallel import chips, pipeline, sharding
from lm.parallel import mesh as meshes

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The `training` section: budget and intervals.

    Attributes:
      batch_size: rows per step, over all devices.
      steps: budget in steps; set this or `tokens`.
      tokens: budget in token positions, rounded up to whole steps.
      microbatches: number of parts of a batch, computed one after another.
      log_every: steps between lines of metrics.
      evaluate_every: steps between validations; 0 validates ten times per run.
      evaluate_tokens: number of held-out token positions of one validation.
      checkpoint_every: steps between checkpoints; 0 saves ten times per run.
      keep: number of latest checkpoints to keep, in addition to the best one.
      tensorboard: whether to write TensorBoard events.
      wandb: whether to log to Weights & Biases.
    """

    batch_size: int = 16
    steps: int = 0
    tokens: int = 0
    microbatches: int = 1
    log_every: int = 20
    evaluate_every: int = 0
    evaluate_tokens: int = 65536
    checkpoint_every: int = 0
    keep: int = 2
    tensorboard: bool = True
    wandb: bool = False

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.tokens > 0):
            raise ValueError(
                f"set exactly one of steps={self.steps} and tokens={self.tokens} above 0"
            )
        for field in ("batch_size", "microbatches", "log_every", "evaluate_tokens", "keep"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        for field in ("steps", "tokens", "evaluate_every", "checkpoint_every"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field}={getattr(self, field)} must not be negative")
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of"
                f" microbatches={self.microbatches}"
            )

    def total_steps(self, row_tokens: int) -> int:
        """Steps of the run, where a row has `row_tokens` positions."""
        return self.steps or -(-self.tokens // (self.batch_size * row_tokens))


def model_config(section: Mapping, vocab_size: int, length: int, longest: int = 0) -> ModelConfig:
    """Returns the section as the model's `Config`; fills in vocabulary and length if they are 0.

    Args:
      section: the model section of the config.
      vocab_size: number of ids of the tokenizer.
      length: positions per row of data.
      longest: number of positions of the objective's longest stream.

    Raises:
      UserError: an option is unknown or impossible, or the vocabulary or a row does not fit the
        model.
    """
    model = plugins.find("models", section["name"]).Model
    config = plugins.configure(model.Config, section, "config.model", skip=("name",))
    if config.vocab_size and config.vocab_size < vocab_size:
        raise UserError(
            f"config.model.vocab_size={config.vocab_size} is below the tokenizer's"
            f" {vocab_size} ids; raise it, or set it to 0"
        )
    if config.max_length and config.max_length < length:
        raise UserError(
            f"config.data.length={length} is longer than"
            f" config.model.max_length={config.max_length}"
        )
    if config.max_length and config.max_length < longest:
        raise UserError(
            f"targets of this objective have up to {longest} positions, more than"
            f" config.model.max_length={config.max_length}; raise it, or shorten the targets"
        )
    return dataclasses.replace(
        config,
        vocab_size=config.vocab_size or vocab_size,
        max_length=config.max_length or max(length, longest),
    )


class Program:
    """Everything that is compiled for one config.

    Attributes:
      objective: objective of the run.
      model_name: name of the architecture.
      architecture: class of the model.
      config: the model's options and shape, an instance of its class `Config`; the run's config is
        `lm.inference.load.LoadedRun.config`.
      training: section `training` of the run's config.
      mesh: mesh of the devices.
      length: positions of a row of data.
      row_tokens: positions of a row, over all streams.
      steps: number of steps of the run.
      seed: seed of initial values, order and dropout.
      graphdef: the model's structure.
      shapes: shapes and dtypes of the train state.
      shardings: placement of the train state.
      batch_sharding: placement of a batch's rows.
      terms: factor of each loss term, by name.
      parameters: number of parameters.
      flops_per_row: training FLOPs of one row by formula.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: Tokenizer,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Builds the program; nothing is compiled or computed yet.

        Args:
          config: config of a run, as lm.presets.run gives it.
          tokenizer: tokenizer of the corpus.
          devices: devices to run on; None takes all of them.

        Raises:
          UserError: an option, or a combination of options, is invalid.
        """
        self.length = int(config["data"]["length"])
        self.training = plugins.configure(TrainingConfig, config["training"], "config.training")
        self.seed = int(config["seed"])
        if not 0 <= self.seed < 2**31:
            raise UserError(f"config.seed={self.seed} must be a whole number from 0 to {2**31 - 1}")
        self.mesh_config = plugins.configure(meshes.MeshConfig, config["mesh"], "config.mesh")
        self.mesh = meshes.make(self.mesh_config, devices)
        rows = self.training.batch_size // self.training.microbatches
        sharding.check_batch(self.mesh, self.training.batch_size, self.training.microbatches)
        name = config["model"]["name"]
        self.objective = compatibility.make(config["objective"], tokenizer, self.length, name)
        self.config = model_config(
            config["model"], tokenizer.size, self.length, self.objective.longest
        )
        self.model_name = name
        self.architecture: ModelClass = plugins.find("models", name).Model
        if self.mesh.shape["stage"] > 1 and not self.architecture.pipelined:
            raise UserError(f"config.mesh.stage: model {name!r} cannot be a pipeline; set it to 1")
        pipeline.check(self.mesh_config, self.mesh, self.config.layers, rows)
        self.row_tokens = self.objective.positions
        self.steps = self.training.total_steps(self.row_tokens)
        self.optimizer = optimizers.make(config["optimizer"], self.steps)
        self.dropout = self.config.dropout > 0
        self.terms: dict[str, float] = dict(self.objective.terms)

        model = nnx.eval_shape(lambda: self._model(jax.random.key(0)))
        self.graphdef, abstract = nnx.split(model)
        partitions = jax.tree.map(
            lambda param: sharding.spec(param.get_metadata("axes"), len(param.shape)),
            abstract,
            is_leaf=lambda x: isinstance(x, nnx.Variable),
        )
        shapes, partitions = nnx.to_pure_dict(abstract), nnx.to_pure_dict(partitions)
        self._check_mesh(shapes, partitions)
        param_shardings = jax.tree.map(
            lambda partition: NamedSharding(self.mesh, partition), partitions
        )
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        opt_shapes = jax.eval_shape(self.optimizer.init, shapes)
        opt_shardings = _follow(opt_shapes, shapes, param_shardings, everywhere)
        self.shapes = {
            "params": shapes,
            "opt_state": opt_shapes,
            "step": jax.ShapeDtypeStruct((), jnp.int32),
        }
        self.shardings = {"params": param_shardings, "opt_state": opt_shardings, "step": everywhere}
        self.batch_sharding = NamedSharding(self.mesh, sharding.spec(("batch",)))
        self.parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
        self.flops_per_row = flops.training(self.objective.flops(self.architecture, self.config))
        self._everywhere = everywhere
        options = chips.compiler_options(self.mesh.devices.flat[0].device_kind)
        self._step = self._jit_step(options)

    def init(self) -> State:
        """Returns the train state before the first step; its values are the same on any mesh."""

        # The key is an argument: as a constant it would make the compiler fold the initial values.
        def init(key: jax.Array) -> State:
            params = nnx.to_pure_dict(nnx.split(self._model(key))[1])
            return {
                "params": params,
                "opt_state": self.optimizer.init(params),
                "step": jnp.zeros((), jnp.int32),
            }

        # `init` runs once: on a CPU, optimizing it takes five times as long as running it as it is.
        quick = (
            {"xla_backend_optimization_level": 0}
            if self.mesh.devices.flat[0].platform == "cpu"
            else None
        )
        with self._on_mesh():
            return jax.jit(init, out_shardings=self.shardings, compiler_options=quick)(
                jax.random.key(self.seed)
            )

    def step(self, state: State, batch: dict[str, jax.Array]) -> tuple[State, Sums]:
        """Runs one update.

        Args:
          state: the train state; its buffers are donated.
          batch: arrays of all rows, placed by `batch_sharding`.

        Returns:
          The new state, and (sum, weight) of each metric by name.
        """
        with self._on_mesh():
            return self._step(state, batch)

    def lower(self, batch: Mapping[str, jax.ShapeDtypeStruct]) -> jax.stages.Lowered:
        """Traces the step for the mesh's devices, which need not exist.

        Args:
          batch: shapes, dtypes and shardings of the arrays of a batch, by name.

        Returns:
          The step, lowered without compiler options.
        """
        state = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            self.shapes,
            self.shardings,
        )
        with self._on_mesh():
            return self._jit_step(None).lower(state, batch)

    def gradients(
        self, params: Params, batch: dict[str, jax.Array], step: int | None = None
    ) -> tuple[Any, Sums]:
        """Returns the gradients of the loss and the sums, as a step computes them for its update.

        Args:
          params: parameters of the model.
          batch: arrays of all rows of a batch, by name.
          step: index of the step that determines dropout; None turns dropout off.
        """
        with self._on_mesh():
            compiled = jax.jit(
                lambda params, batch: self._gradients(
                    params,
                    batch,
                    None if step is None else self.dropout_keys(step, self.training.batch_size),
                )
            )
            return compiled(params, batch)

    def jit(self, function: Callable[[Model, Batch], Any]) -> Callable[[Params, Batch], Any]:
        """Compiles `function(model, batch)` as a function of (params, batch).

        The result is replicated on all devices.
        """
        compiled = jax.jit(
            lambda params, batch: function(self.model(params), batch),
            out_shardings=self._everywhere,
        )

        def call(params: Params, batch: Batch) -> Any:
            with self._on_mesh():
                return compiled(params, batch)

        return call

    def dropout_keys(self, step: jax.Array | int, rows: int) -> DropoutKeys | None:
        """Dropout keys of a step, for all rows of its batch; None without dropout.

        Args:
          step: index of the step.
          rows: number of rows of the batch.
        """
        if not self.dropout:
            return None
        rows_B = sharding.constrain(jnp.arange(rows, dtype=jnp.int32), "batch")
        return DropoutKeys(jax.random.fold_in(jax.random.key(self.seed + 1), step), rows_B)

    def _jit_step(self, options: dict[str, Any] | None) -> Any:
        places = (self.shardings, self._everywhere)
        return jax.jit(
            self._train_step, donate_argnums=0, out_shardings=places, compiler_options=options
        )

    def _on_mesh(self) -> contextlib.AbstractContextManager[None]:
        return meshes.use(self.mesh, self.mesh_config)

    def model(self, params: Params) -> Model:
        """The model with these parameters."""
        return nnx.merge(self.graphdef, params)

    def _model(self, key: jax.Array) -> Model:
        scope = Scope(key)
        model = self.architecture(self.config, scope)
        model.heads = nnx.Dict(self.objective.heads(self.config, scope / "heads"))
        return model

    def _train_step(self, state: State, batch: Batch) -> tuple[State, Sums]:
        dropout_keys = self.dropout_keys(state["step"], self.training.batch_size)
        compute = self._gradients if self.training.microbatches == 1 else self._accumulated
        gradients, sums = compute(state["params"], batch, dropout_keys)
        updates, opt_state = self.optimizer.update(gradients, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        sums["gradient_norm"] = (optax.tree.norm(gradients), jnp.ones(()))
        return {"params": params, "opt_state": opt_state, "step": state["step"] + 1}, sums

    def _gradients(
        self,
        params: Params,
        batch: Batch,
        dropout_keys: DropoutKeys | None,
        weights: Mapping[str, jax.Array] | None = None,
    ) -> tuple[Params, Sums]:
        """Gradients of Σ over terms of factor · sum / weight, and the sums.

        Args:
          params: parameters.
          batch: rows.
          dropout_keys: dropout keys of these rows.
          weights: what to divide each term by; None takes the weights of these rows.
        """

        def loss(params: Params) -> tuple[jax.Array, Sums]:
            terms, metrics = self.objective.loss(self.model(params), batch, dropout_keys)
            total = jnp.zeros(())
            for name, (value, weight) in terms.items():
                divisor = jax.lax.stop_gradient(weight if weights is None else weights[name])
                # If the weight is 0, the value is also 0.
                total += self.terms[name] * value / jnp.where(divisor > 0, divisor, 1.0)
            return total, terms | metrics

        return jax.grad(loss, has_aux=True)(params)

    def _accumulated(
        self, params: Params, batch: Batch, dropout_keys: DropoutKeys | None
    ) -> tuple[Params, Sums]:
        """`_gradients` of the whole batch, added up over microbatches."""
        parts = self.training.microbatches
        split = sharding.split_rows(batch, parts)
        # Losses divide by the weights of the whole batch. The rest of this pass is dead code.
        terms, _ = self.objective.loss(self.model(params), batch, None)
        weights = {name: weight for name, (_, weight) in terms.items()}
        rows = None if dropout_keys is None else sharding.split_rows(dropout_keys.rows_B, parts)

        def of_part(part: tuple[Batch, jax.Array | None]) -> tuple[Params, Sums]:
            microbatch, rows_B = part
            keys = None
            if dropout_keys is not None:
                assert rows_B is not None
                keys = DropoutKeys(dropout_keys.key, rows_B)
            return self._gradients(params, microbatch, keys, weights)

        first = jax.tree.map(lambda x: x[0], (split, rows))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, first))
        total, _ = jax.lax.scan(
            lambda total, part: (jax.tree.map(jnp.add, total, of_part(part)), None),
            zeros,
            (split, rows),
        )
        return total

    def _check_mesh(self, shapes: Any, partitions: Any) -> None:
        flat = jax.tree_util.tree_leaves_with_path(shapes)
        named = {
            jax.tree_util.keystr(path, simple=True, separator="/"): (partition, leaf.shape)
            for (path, leaf), partition in zip(
                flat,
                jax.tree.leaves(partitions, is_leaf=lambda x: isinstance(x, PartitionSpec)),
                strict=True,
            )
        }
        sharding.check_divisible(self.mesh, named)


def _follow(opt_shapes: Any, shapes: Any, shardings: Any, otherwise: NamedSharding) -> Any:
    """Shardings of the optimizer's state.

    An array is placed like a parameter of the same shape if the path of the array ends with the
    path of the parameter.
    """
    by_path = {
        path: (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(shapes), jax.tree.leaves(shardings), strict=True
        )
    }

    def of(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        tails = (by_path.get(path[start:]) for start in range(len(path)))
        return next(
            (sharding for shape, sharding in filter(None, tails) if shape == leaf.shape), otherwise
        )

    return jax.tree_util.tree_map_with_path(of, opt_shapes)


def divide_sums(sums: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """Divides each (sum, weight); a metric of weight 0 has no mean and is omitted."""
    return {
        name: float(total) / float(weight)
        for name, (total, weight) in sums.items()
        if float(weight)
    }


def total_loss(terms: Mapping[str, float], means: Mapping[str, float]) -> float:
    """The loss: Σ factor · mean over the terms that have a mean.

    Args:
      terms: factor of each loss term, by name.
      means: mean of each metric, by name.
    """
    return sum(factor * means[name] for name, factor in terms.items() if name in means)
