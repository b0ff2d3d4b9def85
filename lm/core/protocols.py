"""The interface of each kind of plug-in. No plug-in inherits from these classes.

    lm/data/sources/<name>.py   Source: where documents come from
    lm/data/formats/<name>.py   class Format: how documents become rows of one sequence
    lm/tokenizers/<name>.py     TokenizerKind: how a vocabulary is learned; makes a Tokenizer
    lm/models/<name>.py         class Model: an architecture
    lm/nn/attention/<name>.py   Attention: an implementation of attention
    lm/objectives/<name>.py     class Config, class Objective: examples and a loss
    lm/optimizers/<name>.py     Optimizer: an optax transformation
    lm/tasks/<name>.py          class Config, class Task: an evaluation on held-out documents

`Config` is a frozen dataclass. Its fields are the options of the plug-in's config section, each
with a default, and its `__post_init__` raises ValueError on invalid values.

tests/core/test_contract.py checks that every plug-in conforms to its protocol at run time; mypy
checks the types in tests/check_plug_ins.py. Attributes are read-only here, so that a plug-in may
declare a narrower type.
"""

import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

if typing.TYPE_CHECKING:
    import jax
    import numpy as np
    import optax

    from lm.data.documents import Document, Tally
    from lm.data.store import Store
    from lm.nn.attention.mask import Mask
    from lm.nn.config import ModelConfig
    from lm.nn.cross_entropy import LossOptions
    from lm.nn.cross_entropy import Sums as LossSums
    from lm.nn.layers import DropoutKeys, Scope
    from lm.stats.scores import Score
    from lm.training.program import Program

Batch = Mapping[str, Any]  # name → array whose first axis is B
Example = dict[str, Any]  # name → array of one row
Params = Any  # a nested dict of arrays
Sums = dict[str, tuple[Any, Any]]  # name → (weighted sum, sum of weights) over all devices


@runtime_checkable
class Source(Protocol):
    """A module that reads documents."""

    @property
    def Config(self) -> type: ...

    def documents(self, config: Any, tally: "Tally") -> "Iterator[Document]":
        """Yields documents in a fixed order, as a stream.

        Args:
          config: options of the source.
          tally: counter of the documents kept, and of those dropped for each reason.

        Raises:
          UserError: the input is missing or cannot be read.
        """
        ...

    def signature(self, config: Any) -> str:
        """Returns a cheap fingerprint of the input (paths, sizes, times, versions).

        The fingerprint changes if the documents change.
        """
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Converts text to ids and back. V is the number of ids.

    Attributes:
      size: V, the number of ids.
      pad, bos, eos, unk, cls, sep, mask: special ids.
      modes: ids of the mode tokens "[NLU]", "[NLG]" and "[S2S]".
      sentinels: ids of <extra_id_0>, <extra_id_1>, …
      special_ids: all special ids. No text encodes to a special id, except to `unk` if there is no
        byte fallback.
      bytes_per_id: int32 [V], bytes of UTF-8 text behind each id; 0 for special ids.
      is_word_start: bool [V], whether each id begins a word.
      fingerprint: a hash of the vocabulary and the order of ids.
      note: description of the special ids and bytes that a loaded vocabulary lacks, or "".
    """

    @property
    def size(self) -> int: ...
    @property
    def pad(self) -> int: ...
    @property
    def bos(self) -> int: ...
    @property
    def eos(self) -> int: ...
    @property
    def unk(self) -> int: ...
    @property
    def cls(self) -> int: ...
    @property
    def sep(self) -> int: ...
    @property
    def mask(self) -> int: ...
    @property
    def modes(self) -> Mapping[str, int]: ...
    @property
    def sentinels(self) -> tuple[int, ...]: ...
    @property
    def special_ids(self) -> frozenset[int]: ...
    @property
    def bytes_per_id(self) -> "np.ndarray": ...
    @property
    def is_word_start(self) -> "np.ndarray": ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def note(self) -> str: ...

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, preceded by a space; adds no special ids."""
        ...

    def encode_flat(self, texts: Sequence[str]) -> "tuple[np.ndarray, np.ndarray]":
        """Returns the joined ids of all texts, int32, and the number of ids of each text, int64."""
        ...

    def decode(self, ids: "Iterable[int] | np.ndarray", specials: bool = False) -> str:
        """Returns the text of ids; special ids are omitted, or written by name if `specials`."""
        ...

    def name(self, i: int) -> str:
        """Returns the name of an id, such as "▁the" or "[MASK]"."""
        ...

    def save(self, path: str | os.PathLike) -> None:
        """Writes the vocabulary atomically."""
        ...


@runtime_checkable
class TokenizerKind(Protocol):
    """A module that trains and loads tokenizers of one kind."""

    @property
    def Config(self) -> type: ...

    def train(self, texts: Iterable[str], config: Any) -> Tokenizer:
        """Learns a vocabulary; the same texts give the same vocabulary on any machine.

        Args:
          texts: sentences, iterated over once.
          config: options of the kind.

        Raises:
          UserError: no vocabulary of this size can be learned from these texts.
        """
        ...

    def load(self, path: str | os.PathLike, config: Any) -> Tokenizer:
        """Opens a saved vocabulary.

        Raises:
          UserError: the file is missing or is not a vocabulary.
        """
        ...


@runtime_checkable
class Plan(Protocol):
    """The rows of an epoch. `len` is their number; `note` describes the omitted text, or is ""."""

    @property
    def note(self) -> str: ...

    def __len__(self) -> int: ...


@runtime_checkable
class Format(Protocol):
    """Lays documents out as rows of one sequence.

    The format's module also defines `PAIRS`: whether rows hold pairs of segments.
    """

    def plan(self, store: "Store") -> Any:
        """Returns the rows of an epoch, as a `Plan`."""
        ...

    def row(
        self, store: "Store", plan: Any, index: int, rng: "np.random.Generator"
    ) -> "dict[str, np.ndarray]":
        """Lays out one row.

        Args:
          store: the tokenized documents.
          plan: the plan that `plan` returned.
          index: index of the row, from 0 to len(plan) - 1.
          rng: the only source of randomness.

        Returns:
          tokens, segments, positions, types: int32 [T].
          labels, label_weights: [slots]; only if rows hold pairs.
        """
        ...


@runtime_checkable
class Model(Protocol):
    """An architecture: `Model(config, scope)`. B batch, T positions, D width, V vocabulary.

    Attributes:
      Config: class of the model's shape, a subclass of lm.nn.config.ModelConfig; class attribute.
      masks: supported attention masks (lm/core/compatibility.py); class attribute.
      pipelined: whether a mesh may split the layers into stages; class attribute.
      heads: mapping from names to the modules that the objective adds; set after construction.
    """

    @property
    def Config(self) -> "type[ModelConfig]": ...
    @property
    def masks(self) -> tuple[str, ...]: ...
    @property
    def pipelined(self) -> bool: ...

    heads: Any

    def __init__(self, config: Any, scope: "Scope") -> None: ...

    @staticmethod
    def flops(config: Any, length: int, inputs: int = 0) -> int:
        """Returns the FLOPs of a forward pass of one row, by formula, without the vocabulary head.

        Args:
          config: the model's shape.
          length: number of positions of the row; on an encoder-decoder, of the decoder's row.
          inputs: number of positions that the encoder of an encoder-decoder reads.
        """
        ...

    def embed(self, batch: Batch, dropout_keys: "DropoutKeys | None" = None) -> "jax.Array":
        """Returns the embedded tokens, the input of the first layer.

        Args:
          batch: arrays by field name, as in lm/nn/token_loss.py.
          dropout_keys: dropout keys of the rows; None turns dropout off.

        Returns:
          Activations [B, T, D] in the compute dtype.
        """
        ...

    def states(self, batch: Batch, dropout_keys: "DropoutKeys | None" = None) -> "jax.Array":
        """Returns the hidden states after the last layer, [B, T, D].

        No position attends to another segment.

        Args:
          batch: arrays by field name, as in lm/nn/token_loss.py.
          dropout_keys: dropout keys of the rows; None turns dropout off.
        """
        ...

    def features(self, batch: Batch, dropout_keys: "DropoutKeys | None" = None) -> "jax.Array":
        """Returns hidden states that represent a text, for probes and fine-tuning.

        Args:
          batch: arrays by field name, as in lm/nn/token_loss.py.
          dropout_keys: dropout keys of the rows; None turns dropout off.

        Returns:
          Hidden states [B, T, D]: the result of `states`, or on an encoder-decoder those of the
          encoder.
        """
        ...

    def logits(self, h: "jax.Array") -> "jax.Array":
        """Returns logits over the vocabulary, [..., D] → [..., V]."""
        ...

    def cross_entropy(
        self,
        h_BTD: "jax.Array",
        targets_BT: "jax.Array",
        weights_BT: "jax.Array",
        bias_V: "jax.Array | None" = None,
        options: "LossOptions" = ...,
    ) -> "LossSums":
        """Returns the weighted loss of the vocabulary head, in chunks (lm/nn/cross_entropy.py).

        Args:
          h_BTD: hidden states.
          targets_BT: ids of the correct tokens.
          weights_BT: weight of each target.
          bias_V: bias added to the logits, or None.
          options: label smoothing and z-loss.
        """
        ...

    def row_log_probs(
        self,
        h_BTD: "jax.Array",
        targets_BT: "jax.Array",
        weights_BT: "jax.Array",
        bias_V: "jax.Array | None" = None,
    ) -> "jax.Array":
        """Returns Σ_t weight · log p(target) of each row in nats, differentiable, in chunks.

        Args:
          h_BTD: hidden states.
          targets_BT: ids of the correct tokens.
          weights_BT: weight of each target.
          bias_V: bias added to the logits, or None.

        Returns:
          Weighted log-likelihood of each row in nats, [B].
        """
        ...


@runtime_checkable
class ModelClass(Protocol):
    """The class `Model` of an architecture itself; it has the class attributes of `Model`."""

    @property
    def Config(self) -> "type[ModelConfig]": ...
    @property
    def masks(self) -> tuple[str, ...]: ...
    @property
    def pipelined(self) -> bool: ...

    def flops(self, config: Any, length: int, inputs: int = 0) -> int:
        """Returns the FLOPs of a forward pass of one row; see `Model.flops`."""
        ...

    def __call__(self, config: Any, scope: "Scope") -> Model:
        """Constructs the model; `scope` makes the model's parameters."""
        ...


@runtime_checkable
class Attention(Protocol):
    """A module that computes attention, as lm/nn/attention/reference.py defines it."""

    def attend(
        self,
        q_BTNH: "jax.Array",
        k_BSKH: "jax.Array",
        v_BSKH: "jax.Array",
        mask: "Mask",
        *,
        scale: float,
        bias: "jax.Array | None" = None,
    ) -> "jax.Array":
        """softmax(scale · q kᵀ + bias) v over the keys that the mask allows.

        Args:
          q_BTNH: queries of N heads, a multiple of K.
          k_BSKH: keys of K heads.
          v_BSKH: values of K heads.
          mask: which query may attend to which key.
          scale: factor on the logits, usually H**-0.5.
          bias: bias [1, N, T, S], added to the scaled logits; None for no bias.

        Returns:
          A weighted mean of values for each query, [B, T, N, H].
        """
        ...


@runtime_checkable
class Objective(Protocol):
    """Turns documents into examples, and has a loss: `Objective(config, tokenizer, length, mask)`.

    Attributes:
      masks: attention masks that it can train under, the default first; class attribute.
      composed: whether it consists of other objectives; class attribute.
      standard: whether `loss` returns what `lm.nn.token_loss.loss` returns for the same batch:
        one term, the cross-entropy of the model's vocabulary head at the target positions. Such an
        objective has no heads of its own. `mixture` computes such objectives in one forward pass.
      terms: name → factor of each loss term; the loss is the sum over terms of factor · mean.
      scores: kinds of scores that a model trained by it can compute ("causal", "masked", "pair" …);
        they decide which tasks run.
      config: options of the objective.
      length: number of positions of a row of data.
      mask: the mask that it trains under, one of `masks`.
      positions: number of positions of a row, over all streams.
      longest: number of positions of the longest stream.
      members: name → each objective that it consists of; empty unless composed.
      fractions: name → expected fraction of a run's examples that belong to each member; empty
        unless composed.
      mode_token: the mode token that tasks put before its inputs ("[NLU]" …), or "".
      has_masked_head: whether masked tokens are predicted through `heads["masked"]`, and not by
        the vocabulary head alone.
    """

    @property
    def composed(self) -> bool: ...
    @property
    def standard(self) -> bool: ...
    @property
    def config(self) -> Any: ...
    @property
    def length(self) -> int: ...
    @property
    def mask(self) -> str: ...
    @property
    def positions(self) -> int: ...

    @property
    def masks(self) -> tuple[str, ...]: ...

    @property
    def terms(self) -> Mapping[str, float]: ...

    @property
    def scores(self) -> tuple[str, ...]: ...

    @property
    def longest(self) -> int: ...

    @property
    def members(self) -> "Mapping[str, Objective]": ...

    @property
    def fractions(self) -> Mapping[str, float]: ...

    @property
    def mode_token(self) -> str: ...

    @property
    def has_masked_head(self) -> bool: ...

    def plan(self, store: "Store") -> Any:
        """Returns the rows of an epoch, as a `Plan`.

        Raises:
          UserError: the store's documents yield no example.
        """
        ...

    def example(
        self, store: "Store", plan: Any, row: int, rng: "np.random.Generator", progress: float
    ) -> Example:
        """Makes the arrays of one row; a pure function of its arguments.

        Args:
          store: the tokenized documents.
          plan: the plan that `plan` returned.
          row: index of the row, from 0 to len(plan) - 1.
          rng: the generator of this example in this epoch, the only source of randomness.
          progress: completed fraction of the run, equal in all rows of a batch; 1 for held-out
            text.

        Returns:
          Arrays of constant shape, int32 or float32, by name, including `tokens` and `segments`.
        """
        ...

    def heads(self, config: "ModelConfig", scope: "Scope") -> dict[str, Any]:
        """Returns modules to add to the model, by name; `scope` makes their parameters."""
        ...

    def flops(self, model: ModelClass, config: "ModelConfig") -> int:
        """Returns the FLOPs of one row, by formula: a forward pass and all that the loss needs."""
        ...

    def loss(
        self, model: Model, batch: Batch, dropout_keys: "DropoutKeys | None"
    ) -> tuple[Sums, Sums]:
        """Computes the loss terms and metrics of a batch.

        Args:
          model: the model, including the modules that `heads` returned.
          batch: arrays by name as from `example`, stacked along a leading axis B.
          dropout_keys: dropout keys of the rows; None turns dropout off.

        Returns:
          (loss terms, metrics), each name → (weighted sum, weight). Loss terms are named as in
          `terms`. If weights are not counts, the metrics include "targets", the number of targets.
        """
        ...

    def by_row(self, model: Model, batch: Batch) -> Sums:
        """Computes loss terms and metrics of each row, without dropout, label smoothing or z-loss.

        Args:
          model: the model, including the modules that `heads` returned.
          batch: arrays by name as from `example`, stacked along a leading axis B.

        Returns:
          Name → (weighted sums [B], weights [B]). Their sums over rows equal the results of `loss`
          without dropout, smoothing and z-loss.
        """
        ...


@runtime_checkable
class Optimizer(Protocol):
    """A module that makes an optax transformation."""

    @property
    def Config(self) -> type: ...

    def make(
        self, config: Any, learning_rate: float, schedule: "optax.Schedule"
    ) -> "optax.GradientTransformation":
        """Makes the transformation.

        Args:
          config: options of the optimizer.
          learning_rate: the peak learning rate.
          schedule: step → learning rate, relative to `learning_rate`.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """An evaluation on held-out documents: `Task(config, corpus, split, length)`.

    Attributes:
      metrics: names of the metrics; the first selects models; class attribute.
      shared: whether it can measure any model and so compare arms; class attribute.
      by_name: whether it runs only on request, because it trains a model; class attribute.
      bounds: names of oracle baselines, computed from the true answers; no model can exceed them.
      notes: descriptions of what was omitted from the task's files, for the report.
    """

    @property
    def metrics(self) -> tuple[str, ...]: ...
    @property
    def shared(self) -> bool: ...
    @property
    def by_name(self) -> bool: ...
    @property
    def bounds(self) -> tuple[str, ...]: ...
    @property
    def notes(self) -> Sequence[str]: ...

    @staticmethod
    def suits(objective: Objective) -> bool:
        """Returns whether the task can measure models trained by this objective."""
        ...

    def score(self, program: "Program", params: Params) -> "dict[str, Score]":
        """Returns a model's scores by metric; ratios of sums include per-example values.

        Args:
          program: the compiled model and its objective.
          params: the model's parameters.
        """
        ...

    def baselines(self, program: "Program") -> "dict[str, dict[str, Score]]":
        """Returns scores of methods without a network: {method: {metric: score}}."""
        ...
