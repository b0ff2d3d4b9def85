"""Which objective runs on which model.

A model lists in `masks` the attention masks that it supports. An objective lists in its own `masks`
those that it can train under, the default first. The two are compatible if they share a mask:

    bidirectional   each token attends to its whole document
    causal          each token attends to its document up to itself
    prefix          all tokens attend to a prefix of their document (possibly all or none of it);
                    after the prefix, attention is causal
    cross           causal, plus cross-attention to an encoded input

`python -m lm.core.compatibility` prints the table of objectives and models.
"""

from lm.core import plugins
from lm.core.plugins import Section, UserError
from lm.core.protocols import Objective, Tokenizer

SHORTEST = 16  # minimum number of tokens per row


def make(
    section: Section,
    tokenizer: Tokenizer,
    length: int,
    model: str,
    where: str = "config.objective",
) -> Objective:
    """Makes the objective of a config section, for a model.

    Args:
      section: the objective's config section: its name, under "name", and its options.
      tokenizer: tokenizer of the data.
      length: number of tokens in a row of data.
      model: name of the model plug-in.
      where: path of the section in the config, for error messages.

    Raises:
      UserError: there is no such objective or model, an option is invalid, rows are too short,
        or objective and model are not compatible.
    """
    if length < SHORTEST:
        raise UserError(
            f"config.data.length={length} is too short; rows need at least {SHORTEST} tokens"
        )
    module = plugins.find("objectives", section["name"])
    mask = common(section["name"], module.Objective.masks, model)
    return build(section, tokenizer, length, mask, where)


def build(section: Section, tokenizer: Tokenizer, length: int, mask: str, where: str) -> Objective:
    """Makes the objective of a config section, under a mask.

    Args:
      section: the objective's config section: its name, under "name", and its options.
      tokenizer: tokenizer of the data.
      length: number of tokens in a row of data.
      mask: one of the objective's masks.
      where: path of the section in the config, for error messages.

    Raises:
      UserError: there is no such objective, an option is invalid, or the objective does not
        train under this mask.
    """
    module = plugins.find("objectives", section["name"])
    if mask not in module.Objective.masks:
        raise UserError(
            f"{where}: objective {section['name']!r} needs a mask that is"
            f" {' or '.join(module.Objective.masks)}, but here it is {mask};"
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
    """Returns the first of an objective's masks that a model supports.

    Args:
      objective: name of the objective, for error messages.
      masks: the objective's masks, the default first.
      model: name of the model plug-in.

    Raises:
      UserError: there is no such model, or it supports none of the masks.
    """
    available = plugins.find("models", model).Model.masks
    for mask in masks:
        if mask in available:
            return mask
    raise UserError(
        f"objective {objective!r} does not run on model {model!r}: it needs a mask that is"
        f" {' or '.join(masks)}, and the model has {', '.join(available)};"
        f" it runs on: {', '.join(models(objective))}"
    )


def models(objective: str) -> list[str]:
    """Returns the names of the models that an objective runs on, the default model first."""
    masks = plugins.find("objectives", objective).Objective.masks
    compatible = [
        name
        for mask in masks
        for name in plugins.names("models")
        if mask in plugins.find("models", name).Model.masks
    ]
    return list(dict.fromkeys(compatible))


def table() -> str:
    """Returns a Markdown table of objectives × models; each cell is the mask that the pair uses."""
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
            if not shared:
                cells.append("refused")
            else:
                cells.append("where its members run" if plug_in.composed else shared[0])
        lines.append(f"| `{objective}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
