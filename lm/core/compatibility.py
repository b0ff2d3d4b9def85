"""Which objective runs on which model.

A model says by its `masks` what its tokens can be made to see, an objective by its own what it needs, the best first. They suit each other
where they have one in common:

    bidirectional   a token sees its whole document
    causal          a token sees its document up to itself
    prefix          causal after a part of the document that all of it sees; the whole document, or nothing, may be that part
    cross           causal, and an encoded input beside it

`python -m lm.core.compatibility` prints who runs on what.
"""

from collections.abc import Mapping
from typing import Any

from lm.core import plugins
from lm.core.plugins import UserError

SHORTEST = 16  # tokens a row


def make(
    section: Mapping[str, Any], tokenizer, length: int, model: str, where: str = "config.objective"
):
    """The objective plug-in that the section names, with its options, for a model.

    Raises:
      UserError: there is no such objective or model, an option is impossible, or the two do not suit each other.
    """
    if length < SHORTEST:
        raise UserError(
            f"config.data.length={length} is too short; at least {SHORTEST} tokens a row"
        )
    module = plugins.find("objectives", section["name"])
    mask = common(section["name"], module.Objective.masks, model)
    return build(section, tokenizer, length, mask, where)


def build(section: Mapping[str, Any], tokenizer, length: int, mask: str, where: str):
    """The objective that the section names, under a mask that it knows."""
    module = plugins.find("objectives", section["name"])
    if mask not in module.Objective.masks:
        raise UserError(
            f"{where}: objective {section['name']!r} needs a mask that is {' or '.join(module.Objective.masks)}, but here it is {mask};"
            f" models for it: {', '.join(models(section['name']))}"
        )
    config = plugins.configure(module.Config, section, where, skip=("name",))
    try:
        return module.Objective(config, tokenizer, length, mask)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def common(objective: str, masks: tuple[str, ...], model: str) -> str:
    """The first of the objective's masks that the model has."""
    has = plugins.find("models", model).Model.masks
    for mask in masks:
        if mask in has:
            return mask
    raise UserError(
        f"objective {objective!r} does not run on model {model!r}: it needs a mask that is {' or '.join(masks)}, and the model's are"
        f" {', '.join(has)}; it runs on: {', '.join(models(objective))}"
    )


def models(objective: str) -> list[str]:
    """The models that suit an objective, its usual one first."""
    masks = plugins.find("objectives", objective).Objective.masks
    found = [
        name
        for mask in masks
        for name in plugins.names("models")
        if mask in plugins.find("models", name).Model.masks
    ]
    return list(dict.fromkeys(found))


def table() -> str:
    """Objectives × models as a Markdown table: under which mask each pair runs."""
    names = plugins.names("models")
    lines = [
        "| objective | " + " | ".join(f"`{name}`" for name in names) + " |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for objective in plugins.names("objectives"):
        plug_in = plugins.find("objectives", objective).Objective
        cells = []
        for name in names:
            shared = [
                mask for mask in plug_in.masks if mask in plugins.find("models", name).Model.masks
            ]
            cells.append(
                "refused"
                if not shared
                else "where its members run"
                if plug_in.composed
                else shared[0]
            )
        lines.append(f"| `{objective}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
