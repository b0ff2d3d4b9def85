"""Examples for people to read: what the model is given, what it is asked, what counts."""

import io
import itertools
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.data import corpus as corpora
from lm.data import loader
from lm.training.program import TrainingConfig

# Styles; without colours the signs « » and the words say the same.
SPECIAL, TARGET, PREFIX, SECOND, DIM = "bright_blue", "bold green", "italic", "magenta", "dim"


def show(
    config: Mapping,
    split: str,
    count: int,
    step: int,
    arrays: bool,
    forced: bool | None,
    file: IO[str],
) -> None:
    """Prints the first examples that a run of this config draws.

    Args:
      split: of the corpus. step: of the run. arrays: also print all numbers. forced: colours yes or no; None: as the output can.

    Raises:
      UserError: the config cannot work.
    """
    console = Console(
        file=file, force_terminal=forced, no_color=forced is False, highlight=False, soft_wrap=False
    )
    corpus = corpora.prepare(config["data"], config["tokenizer"])
    length, model = int(config["data"]["length"]), config["model"]["name"]
    training = plugins.configure(TrainingConfig, config["training"], "config.training")
    objective = compatibility.make(config["objective"], corpus.tokenizer, length, model)
    store = corpus.stores[split]
    plan = objective.plan(store)
    if not len(plan):
        raise UserError(
            f"the {split} split gives not one example of {length} tokens; give more text or a smaller config.data.length"
        )
    total = training.total_steps(objective.positions)
    if step >= total:
        raise UserError(f"--step={step} is not in this run, which has {total:,} steps")
    rows = loader.examples(objective, store, plan, int(config["seed"]), training.batch_size, total)
    console.print(
        f"{config['objective']['name']} on {model}, mask {objective.mask}: {len(plan):,} rows of {objective.positions} positions in the"
        f" {split} split, {loader.padding(objective, store, plan):.1%} padding"
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
                console.print(
                    Padding(
                        f"{name} {np.array2string(np.asarray(value), threshold=2**20, max_line_width=120)}",
                        (0, 0, 0, 2),
                    )
                )
        console.print()


def first(objective: Any, store: Any, tokenizer: Any) -> str:
    """The first example of an objective on held-out text, as plain text."""
    file = io.StringIO()
    console = Console(file=file, no_color=True, highlight=False, width=110)
    for line in _example(
        0, loader.examples(objective, store, objective.plan(store), 0)[0], tokenizer
    ):
        console.print(line)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()[1:])


def _example(index: int, example: Mapping[str, np.ndarray], tokenizer) -> Iterator[Any]:
    facts = [f"{name} {int(value)}" for name, value in example.items() if np.ndim(value) == 0]
    # Where members of a mixture keep their fields apart, one of them has any.
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
        yield from _stream("encoder reads", example, "input_", tokenizer)
        yield from _stream("decoder reads", example, "", tokenizer)
    else:
        yield from _stream("reads", example, "", tokenizer)
    if "label_weights" in example:
        labels = [
            str(label)
            for label, weight in zip(example["labels"], example["label_weights"], strict=True)
            if weight > 0
        ]
        yield Padding(
            Text(f"labels of the pairs: {', '.join(labels)}   (0: as in the text)", style=TARGET),
            (0, 0, 0, 2),
        )
    weights = example.get("weights")
    if weights is not None:
        values = sorted({float(weight) for weight in weights[weights > 0]})
        shown_values = (
            f"{values[0]:.4g}"
            if len(values) == 1
            else f"{values[0]:.4g} to {values[-1]:.4g}"
            if values
            else "none"
        )
        yield Padding(
            Text(
                f"weights: {int((weights > 0).sum())} of {len(weights)} slots are targets, weight {shown_values}",
                style=DIM,
            ),
            (0, 0, 0, 2),
        )


def _stream(what: str, example: Mapping[str, np.ndarray], prefix: str, tokenizer) -> Iterator[Any]:
    """The segments of one stream of tokens."""
    tokens, segments, positions = (
        example[prefix + name] for name in ("tokens", "segments", "positions")
    )
    asked = {} if prefix else _asked(example)
    dense = not prefix and "target_positions" not in example and "targets" in example
    for segment, group in itertools.groupby(range(len(tokens)), key=lambda at: int(segments[at])):
        at = list(group)
        if not segment:
            yield Padding(Text(f"padding: {len(at)}", style=DIM), (0, 0, 0, 2))
            continue
        yield Padding(
            Text(f"segment {segment}, positions {positions[at[0]]}–{positions[at[-1]]}", style=DIM),
            (0, 0, 0, 2),
        )
        text = Text(f"{what}  ", style=DIM)
        for place in at:
            style = SPECIAL if int(tokens[place]) in tokenizer.special_ids else ""
            if not style and not prefix and "types" in example and example["types"][place]:
                style = SECOND
            if not prefix and "prefix" in example and example["prefix"][place] and dense:
                style = f"{style} {PREFIX}".strip()
            text.append(tokenizer.name(int(tokens[place])), style=style or "default")
            if place in asked and not dense:
                text.append(f"«{tokenizer.name(asked[place])}»", style=TARGET)
            text.append(" ")
        yield Padding(text, (0, 0, 0, 4))
        if dense:
            line = Text("asked  ", style=DIM)
            for place, run in itertools.groupby(
                at, key=lambda place: place if place in asked else -1
            ):
                if place < 0:
                    line.append(f"(without a loss: {len(list(run))}) ", style=DIM)
                else:
                    line.append(f"{tokenizer.name(asked[place])} ", style=TARGET)
            yield Padding(line, (0, 0, 0, 4))
        shift = 0 if dense else _shift(example, tokenizer)
        original = [
            asked.get(place - shift, int(tokens[place])) if not dense else int(tokens[place])
            for place in at
        ]
        yield Padding(Text(f"decoded  {tokenizer.decode(original)}", style=DIM), (0, 0, 0, 4))


def _asked(example: Mapping[str, np.ndarray]) -> dict[int, int]:
    """Position → target id."""
    if "targets" not in example:
        return {}
    real = np.flatnonzero(example["weights"] > 0)
    at = example["target_positions"][real] if "target_positions" in example else real
    return dict(zip(at.tolist(), example["targets"][real].tolist(), strict=True))


def _shift(example: Mapping[str, np.ndarray], tokenizer) -> int:
    """How far before a hidden token its prediction stands: 1 where what is hidden lies after the places that are asked."""
    hidden = set(np.flatnonzero(example["tokens"] == tokenizer.mask).tolist())
    asked = set(_asked(example))
    return int(len({at - 1 for at in hidden} & asked) > len(hidden & asked))
