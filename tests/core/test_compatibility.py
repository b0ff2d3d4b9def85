"""Which objective runs on which model: the table in docs/objectives.md, and words in refusals."""

import dataclasses
import importlib
from pathlib import Path

import pytest
from small_corpus import Ids

from lm.core import compatibility, plugins
from lm.core.plugins import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def test_the_documentation_has_the_table():
    assert compatibility.table() in (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8"), (
        "run python -m lm.core.compatibility and put its table in docs/objectives.md"
    )


@pytest.mark.parametrize("objective", plugins.names("objectives"))
@pytest.mark.parametrize("model", plugins.names("models"))
def test_a_pair_runs_or_is_refused(objective, model):
    composed = plugins.find("objectives", objective).Objective.composed
    if model in compatibility.models(objective) and not composed:
        made = compatibility.make({"name": objective}, Ids(96, 20), 32, model)
        assert made.mask in plugins.find("models", model).Model.masks
        return
    try:
        compatibility.make({"name": objective}, Ids(96, 20), 32, model)
    except UserError as error:
        assert objective in str(error) or composed
        assert "mask" in str(error) and any(name in str(error) for name in plugins.names("models"))
    else:
        assert composed


def test_rows_that_are_too_short_are_refused():
    with pytest.raises(UserError, match="at least 16"):
        compatibility.make({"name": "clm"}, Ids(), 8, "decoder")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_configs_name_every_option(name, size, monkeypatch):
    """So any option can be overridden on the command line. The objective runs on the model."""
    monkeypatch.syspath_prepend(str(ROOT))
    section = importlib.import_module(f"configs.{name}").get_config(size).to_dict()
    objective = section["objective"]
    cls = plugins.find("objectives", objective["name"]).Config
    assert set(objective) == {"name", *(field.name for field in dataclasses.fields(cls))}
    assert compatibility.make(
        objective, Ids(400, 200), section["data"]["length"], section["model"]["name"]
    )
