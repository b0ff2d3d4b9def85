"""Which objective runs on which model: the README's table is what the code says, and what it refuses says why."""

import dataclasses
import importlib
from pathlib import Path

import pytest
from small_corpus import Ids

from lm import lookup, pairing
from lm.lookup import UserError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def test_the_readme_has_the_table():
    assert pairing.table() in (ROOT / "README.md").read_text(encoding="utf-8"), "run python -m lm.pairing and put its table in README.md"


@pytest.mark.parametrize("objective", lookup.names("objectives"))
@pytest.mark.parametrize("model", lookup.names("models"))
def test_a_pair_runs_or_is_refused_in_words(objective, model):
    composed = lookup.find("objectives", objective).Objective.composed
    if model in pairing.models(objective) and not composed:
        made = pairing.make({"name": objective}, Ids(96, 20), 32, model)
        assert made.mask in lookup.find("models", model).Model.masks
        return
    try:
        pairing.make({"name": objective}, Ids(96, 20), 32, model)
    except UserError as error:
        assert objective in str(error) or composed
        assert "mask" in str(error) and any(name in str(error) for name in lookup.names("models"))
    else:
        assert composed


def test_rows_that_are_too_short():
    with pytest.raises(UserError, match="at least 16"):
        pairing.make({"name": "clm"}, Ids(), 8, "decoder")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_configs_name_every_option(name, size, monkeypatch):
    """So that any can be overridden on the command line; and the objective suits the model."""
    monkeypatch.syspath_prepend(str(ROOT))
    section = importlib.import_module(f"configs.{name}").get_config(size).to_dict()
    objective = section["objective"]
    cls = lookup.find("objectives", objective["name"]).Config
    assert set(objective) == {"name", *(field.name for field in dataclasses.fields(cls))}
    assert pairing.make(objective, Ids(400, 200), section["data"]["length"], section["model"]["name"])
