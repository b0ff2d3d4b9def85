"""Prints training examples: what the model reads, what it predicts, and what the loss counts."""

import io
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.core.protocols import Example, Objective, Tokenizer
from lm.data import corpus as corpora
from lm.data import loader
from lm.data.store import Store
from lm.training.program import TrainingConfig

# Styles. Colors add no information: « » mark the targets, and the text has everything else.
SPECIAL, TARGET, PREFIX, SECOND, DIM = "bright_blue", "bold green", "italic", "magenta", "dim"


def print_examples(
    config: Mapping[str, Any],
    split: str,
    count: int,
    step: int,
    arrays: bool,
    color: bool | None,
) -> None:
    """Prints the first examples that a run of this config draws, on stdout.

    Args:
      config: config of a run, in the form that lm.presets.run returns.
      split: split of the corpus.
      count: number of examples.
      step: training step at which the examples are drawn.
      arrays: whether to print all arrays as numbers too.
      color: whether to use colors; None means only on a terminal.

    Raises:
      UserError: the config is invalid.
    """
    console = Console(force_terminal=color, no_color=color is False, highlight=False)
    corpus = corpora.prepare(config["data"], config["tokenizer"])
    length, model = int(config["data"]["length"]), config["model"]["name"]
    training = plugins.configure(TrainingConfig, config["training"], "config.training")
    objective = compatibility.make(config["objective"], corpus.tokenizer, length, model)
    store = corpus.stores[split]
    plan = objective.plan(store)
    if not len(plan):
        raise UserError(
            f"the {split} split has no example of {length} tokens; give more text or a smaller"
            " config.data.length"
        )
    total = training.total_steps(objective.positions)
    if step >= total:
        raise UserError(f"--step={step} is not in this run, which has {total:,} steps")
    rows = loader.examples(objective, store, plan, int(config["seed"]), training.batch_size, total)
    padding = loader.padding(objective, store, plan)
    console.print(
        f"{config['objective']['name']} on {model}, mask {objective.mask}: {len(plan):,} rows of"
        f" {objective.positions} positions in the {split} split, {padding:.1%} padding"
        + (f"; {plan.note}" if plan.note else "")
    )
    fields = ", ".join(f"{name} {list(np.shape(value))}" for name, value in rows[0].items())
    console.print(f"fields: {fields}\n", style=DIM)
    for index in range(count):
        example = rows[step * training.batch_size + index]
        for line in _example(index, example, corpus.tokenizer):
            console.print(line)
        if arrays:
            for name, value in example.items():
                numbers = np.array2string(np.asarray(value), threshold=2**20, max_line_width=120)
                console.print(_indented(f"{name} {numbers}", 2))
        console.print()


def first_example(objective: Objective, store: Store, tokenizer: Tokenizer) -> str:
    """The first example of an objective on held-out text, as plain text.

    Args:
      objective: makes the example.
      store: the held-out documents.
      tokenizer: tokenizer of the store.
    """
    file = io.StringIO()
    console = Console(file=file, no_color=True, highlight=False, width=110)
    example = loader.examples(objective, store, objective.plan(store), 0)[0]
    for line in _example(0, example, tokenizer):
        console.print(line)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()[1:])


def _example(index: int, example: Example, tokenizer: Tokenizer) -> Iterator[RenderableType]:
    facts = [f"{name} {int(value)}" for name, value in example.items() if np.ndim(value) == 0]
    # In a mixture whose members have fields of their own, one member's fields are not padding.
    for part in sorted({name.split("/")[0] for name in example if "/" in name}):
        fields = {
            key.removeprefix(f"{part}/"): value
            for key, value in example.items()
            if key.startswith(f"{part}/")
        }
        if (fields["segments"] > 0).any():
            example, facts = fields, [part, *facts]
            break
    yield Text(f"example {index}" + "".join(f" · {fact}" for fact in facts), style="bold")
    if "input_tokens" in example:
        yield from _stream("encoder input", example, "input_", tokenizer)
        yield from _stream("decoder input", example, "", tokenizer)
    else:
        yield from _stream("input", example, "", tokenizer)
    if "label_weights" in example:
        pairs = zip(example["labels"], example["label_weights"], strict=True)
        labels = ", ".join(str(label) for label, weight in pairs if weight > 0)
        yield _indented(Text(f"pair labels: {labels}   (0: as in the text)", style=TARGET), 2)
    weights = example.get("weights")
    if weights is not None:
        values = sorted({float(weight) for weight in weights[weights > 0]})
        description = "none" if not values else f"{values[0]:.4g}"
        if len(values) > 1:
            description += f" to {values[-1]:.4g}"
        text = f"{int((weights > 0).sum())} of {len(weights)} slots are targets"
        yield _indented(Text(f"weights: {text}, weight {description}", style=DIM), 2)


def _stream(
    label: str, example: Example, prefix: str, tokenizer: Tokenizer
) -> Iterator[RenderableType]:
    """The segments of one stream of tokens."""
    tokens, segments, positions = (
        example[prefix + name] for name in ("tokens", "segments", "positions")
    )
    targets = {} if prefix else _targets(example)
    dense = not prefix and "target_positions" not in example and "targets" in example
    for segment, group in itertools.groupby(range(len(tokens)), key=lambda at: int(segments[at])):
        places = list(group)
        if not segment:
            yield _indented(Text(f"padding: {len(places)}", style=DIM), 2)
            continue
        first, last = positions[places[0]], positions[places[-1]]
        yield _indented(Text(f"segment {segment}, positions {first}–{last}", style=DIM), 2)
        text = Text(f"{label}  ", style=DIM)
        for at in places:
            style = SPECIAL if int(tokens[at]) in tokenizer.special_ids else ""
            if not style and not prefix and "types" in example and example["types"][at]:
                style = SECOND
            if not prefix and "prefix" in example and example["prefix"][at] and dense:
                style = f"{style} {PREFIX}".strip()
            text.append(tokenizer.name(int(tokens[at])), style=style or "default")
            if at in targets and not dense:
                text.append(f"«{tokenizer.name(targets[at])}»", style=TARGET)
            text.append(" ")
        yield _indented(text, 4)
        if dense:
            line = Text("targets  ", style=DIM)
            for at, run in itertools.groupby(places, key=lambda at: at if at in targets else -1):
                if at < 0:
                    line.append(f"(not in the loss: {len(list(run))}) ", style=DIM)
                else:
                    line.append(f"{tokenizer.name(targets[at])} ", style=TARGET)
            yield _indented(line, 4)
        shift = 0 if dense else _shift(example, tokenizer)
        original = [
            int(tokens[at]) if dense else targets.get(at - shift, int(tokens[at])) for at in places
        ]
        yield _indented(Text(f"decoded  {tokenizer.decode(original)}", style=DIM), 4)


def _targets(example: Example) -> dict[int, int]:
    """Position → target id."""
    if "targets" not in example:
        return {}
    slots = np.flatnonzero(example["weights"] > 0)
    positions = example["target_positions"][slots] if "target_positions" in example else slots
    return dict(zip(positions.tolist(), example["targets"][slots].tolist(), strict=True))


def _shift(example: Example, tokenizer: Tokenizer) -> int:
    """Offset between masked tokens and their predictions: 1 if most are one position earlier."""
    masked = set(np.flatnonzero(example["tokens"] == tokenizer.mask).tolist())
    predicted = set(_targets(example))
    return int(len({at - 1 for at in masked} & predicted) > len(masked & predicted))


def _indented(text: str | Text, columns: int) -> Padding:
    return Padding(text, (0, 0, 0, columns))
