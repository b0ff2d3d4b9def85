"""What a plug-in has to offer, room by room. Nothing inherits from these: a plug-in is a module with these names in it.

    lm/data/sources/<name>.py   Source: text → documents
    lm/models/<name>.py         class Model(config: TransformerConfig, scope: Scope), see Model
    lm/attention/<name>.py      Attention: attend(q, k, v, mask, …)
    lm/data/formats/<name>.py   class Format(tokenizer, length, question, ends), see lm/data/formats/__init__.py
    lm/objectives/<name>.py     class Config, class Objective(config, tokenizer, length, mask), see Objective
    lm/optimizers/<name>.py     Optimizer: class Config and make(config, learning_rate, schedule)
    lm/tasks/<name>.py          class Config, class Task(config, corpus, split, length), see Task

`Config` is a frozen dataclass: its fields are the options that the config section takes, each with a default, and its
`__post_init__` raises ValueError on impossible values. tests/test_contract.py holds every plug-in to this.
"""

import typing
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

if typing.TYPE_CHECKING:
    import jax
    import numpy as np
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

    `masks`, of the class, says what a token can be made to see (lm/pairing.py). `embedding` holds the token table, and `heads` what the
    objective adds (a mapping by name, set after construction). An encoder-decoder also has `encode`, and takes the encoded input in
    `hidden`: `memory_BSD` and `memory_segments_BS`.
    """

    masks: tuple[str, ...]
    embedding: Any
    heads: Any

    def hidden(
        self, tokens_BT: Any, *, segments_BT: Any, positions_BT: Any, types_BT: Any = None, prefix_BT: Any = None, noise: Any = None
    ) -> Any:
        """Hidden states after the last layer, [B, T, D]. Segments number the documents of a row from 1; 0 is padding, and no
        position sees another segment. A prefix is seen by all of its segment, where the model has that mask. `noise` (lm.layers.Noise)
        is for dropout; None in evaluation."""
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


class Plan(Protocol):
    """What an epoch consists of, fixed by the store: its length is the number of rows, its `note` says what was left out, "" if nothing."""

    note: str

    def __len__(self) -> int: ...


class Objective(Protocol):
    """Documents → examples, and a loss.

    Attributes:
      masks: what it needs of a model, of the class (lm/pairing.py has the kinds); the first is its usual one. The one that a model has too
        is given to the constructor.
      terms: its loss terms with a factor each. The loss is the sum of factor · mean.
      scores: what a model trained by it can be asked ("causal", "masked", "pair" …); tasks choose by it.
      positions: tokens of a row, in all streams. longest: of the longest stream, where it is not the data's length.
      standard: whether its loss is `lm.prediction.loss` of its examples, with no heads of its own.
      composed: whether it is made of other objectives, of the class.
    """

    masks: tuple[str, ...]
    terms: Mapping[str, float]
    scores: tuple[str, ...]
    positions: int
    standard: bool
    composed: bool

    def plan(self, store: "Store") -> Plan:
        """The rows of an epoch.

        Raises:
          UserError: the store cannot give one example.
        """
        ...

    def example(self, store: "Store", plan: Plan, row: int, rng: "np.random.Generator", progress: float) -> dict[str, Any]:
        """A dict of arrays of constant shape, int32 or float32, with `tokens` and `segments` among them: a pure function of its arguments.

        Args:
          rng: this example's own, in this epoch; the only source of chance. progress: share of the run that is over, alike in all rows of
            a batch; 1 on held-out text.
        """
        ...

    def heads(self, config: "TransformerConfig", scope: Any) -> dict[str, Any]:
        """The modules that it adds to the model, by name; their parameters come from `scope`."""
        ...

    def flops(self, config: "TransformerConfig") -> int:
        """Operations of a forward pass of one row by formula: every stack and head that the loss needs (lm/flops.py)."""
        ...

    def loss(self, model: Any, batch: Batch, noise: Any) -> tuple[Sums, Sums]:
        """Loss terms, named as in `terms`, and metrics. `noise` is for dropout; None in evaluation. Where weights are no counts, a metric
        "targets" counts the targets."""
        ...


class Optimizer(Protocol):
    """A module that makes an optax transformation."""

    Config: type

    def make(self, config: Any, learning_rate: float, schedule: "optax.Schedule") -> "optax.GradientTransformation":
        """The transformation; `schedule` gives the rate at each step relative to `learning_rate`."""
        ...


class Task(Protocol):
    """A yardstick on held-out documents.

    Attributes:
      metrics: names of what it measures, of the class, the one to judge by first. shared: whether any model can be asked, whatever it was
        trained on, so that arms may be compared on it; else it is the yardstick of those objectives that it suits. by_name: whether it is
        asked only if it is named, because it trains; False where it is left out. notes: of an instance, what of its files was left out,
        for the report; none where it is left out. bounds: those of its baselines that know the answers or the true probabilities, so that
        nobody can be ahead of them; none where it is left out.
    """

    metrics: tuple[str, ...]
    shared: bool

    def suits(self, objective: Objective) -> bool:
        """Whether it can measure models trained by this objective."""
        ...

    def score(self, built: "Program", params: Any) -> dict[str, "Score"]:
        """Metrics of a model, by name; with what stands behind each, example by example, where it is a ratio of sums."""
        ...

    def baselines(self, built: "Program") -> dict[str, dict[str, "Score"]]:
        """The same metrics of methods without a network, asked the same: {method: {metric: score}}."""
        ...
