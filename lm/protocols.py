"""What a plug-in has to offer, room by room. Nothing inherits from these: a plug-in is a module with these names in it.

    lm/data/sources/<name>.py   Source: text → documents
    lm/models/<name>.py         class Model(config: TransformerConfig, scope: Scope), see Model
    lm/attention/<name>.py      Attention: attend(q, k, v, mask, …)
    lm/objectives/<name>.py     class Config, class Objective(config, tokenizer, length), see Objective
    lm/optimizers/<name>.py     Optimizer: class Config and make(config, learning_rate, schedule)
    lm/tasks/<name>.py          class Config, class Task(config, corpus, split, length), see Task

`Config` is a frozen dataclass: its fields are the options that the config section takes, each with a default, and its
`__post_init__` raises ValueError on impossible values. tests/test_contract.py holds every plug-in to this.
"""

import typing
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

if typing.TYPE_CHECKING:
    import grain
    import jax
    import optax

    from lm.attention.mask import Mask
    from lm.data.documents import Document, Tally
    from lm.data.store import Store
    from lm.program import Program
    from lm.scores import Score
    from lm.transformer import TransformerConfig

Batch = Mapping[str, Any]  # name -> array of which the first axis is B
Sums = dict[str, tuple[Any, Any]]  # name -> (sum, weight): divided only after microbatches and devices are added up


class Source(Protocol):
    """A module that reads documents from somewhere."""

    Config: type

    def documents(self, config: Any, tally: "Tally") -> Iterator["Document"]:
        """Yields documents in a fixed order, as a stream; notes in `tally` what it keeps and what it drops and why.

        Raises:
          UserError: what `config` names is missing or cannot be read.
        """
        ...

    def signature(self, config: Any) -> str:
        """A cheap identity of the input (paths, sizes, times, versions): another one where the documents are others."""
        ...


class Model(Protocol):
    """An architecture with one stack. B batch, T positions, D width, V vocabulary.

    `embedding` holds the token table, and `heads` what the objective adds (a mapping by name, set after construction).
    An encoder-decoder also has `encode`, and takes the encoded input in `hidden`: `memory_BSD` and `memory_segments_BS`.
    """

    embedding: Any
    heads: Any

    def hidden(self, tokens_BT: Any, *, segments_BT: Any, positions_BT: Any, types_BT: Any = None, key: Any = None) -> Any:
        """Hidden states after the last layer, [B, T, D]. Segments number the documents of a row from 1; 0 is padding, and no
        position sees another segment. `key` is for dropout; None in evaluation."""
        ...

    def logits(self, h: Any) -> Any:
        """Scores over the vocabulary, [..., D] → [..., V]."""
        ...


class Attention(Protocol):
    """A module that computes attention; lm/attention/reference.py is the definition."""

    def attend(
        self, q_BTNH: "jax.Array", k_BSKH: "jax.Array", v_BSKH: "jax.Array", mask: "Mask", *, scale: float, bias: "jax.Array | None" = None
    ) -> "jax.Array":
        """softmax(scale · q kᵀ + bias) v over the keys that the mask allows, N query heads on K key-value heads: [B, T, N, H]."""
        ...


class Objective(Protocol):
    """Documents → examples, and a loss.

    Attributes:
      models: the architectures it runs on; the first is its usual one.
      terms: names of its loss terms. The loss is the sum of their means.
      scores: what a model trained by it can be asked ("causal", "masked", "next_sentence" …); tasks choose by it.
    """

    models: tuple[str, ...]
    terms: tuple[str, ...]
    scores: tuple[str, ...]

    def dataset(self, store: "Store", seed: int) -> "grain.MapDataset":
        """One epoch of examples: dicts of arrays of constant shape, int32 or float32.

        Example i of epoch e is a pure function of (store, seed, e, i): the dataset is repeated for ever, and draws by grain's
        own generators.

        Raises:
          UserError: the store cannot give one example.
        """
        ...

    def heads(self, config: "TransformerConfig", scope: Any) -> dict[str, Any]:
        """The modules that it adds to the model, by name; their parameters come from `scope`."""
        ...

    def head_positions(self) -> int:
        """Positions a row at which the vocabulary head runs: for counting operations."""
        ...

    def loss(self, model: Any, batch: Batch, key: Any) -> tuple[Sums, Sums]:
        """Loss terms, named as in `terms`, and metrics. `key` is for dropout; None in evaluation."""
        ...


class Optimizer(Protocol):
    """A module that makes an optax transformation."""

    Config: type

    def make(self, config: Any, learning_rate: float, schedule: "optax.Schedule") -> "optax.GradientTransformation":
        """The transformation; `schedule` gives the rate at each step relative to `learning_rate`."""
        ...


class Task(Protocol):
    """A yardstick on held-out documents."""

    def suits(self, objective: Objective) -> bool:
        """Whether it can measure models trained by this objective."""
        ...

    def score(self, built: "Program", params: Any) -> dict[str, "Score"]:
        """Metrics of a model, by name."""
        ...

    def baselines(self, built: "Program") -> dict[str, dict[str, "Score"]]:
        """The same metrics of methods without a network, asked the same: {method: {metric: score}}."""
        ...
