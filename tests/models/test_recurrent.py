"""A new architecture is one file: plug_ins/recurrent.py trains without any other change."""

import json
from pathlib import Path

import pytest
from runs import Killed, home  # noqa: F401
from small_corpus import Ids

import lm.models
from lm import presets
from lm.core import compatibility, plugins
from lm.core.plugins import UserError
from lm.evaluation import evaluator
from lm.inference.load import load_run
from lm.training import loop
from lm.training.program import Program


@pytest.fixture(autouse=True)
def recurrent(monkeypatch):
    folder = str(Path(__file__).parent / "plug_ins")
    monkeypatch.setattr(lm.models, "__path__", [*lm.models.__path__, folder])


def config(home, **overrides):
    model = presets.model("recurrent", width=32, layers=2, embedding_std=0.2)
    optimizer = {"name": "adamw", "learning_rate": 0.02}
    return home.config(
        "clm", **{"optimizer": optimizer, "training": {"steps": 60, "batch_size": 8}, **overrides}
    ) | {"model": model.to_dict()}


def test_it_is_found_and_causal():
    assert "recurrent" in plugins.names("models")
    assert "recurrent" in compatibility.models("clm")
    assert "recurrent" not in compatibility.models("mlm")
    assert set(presets.model("recurrent")) >= {"name", "width", "layers", "state", "head_chunks"}


def test_it_trains_resumes_and_is_evaluated(home, tmp_path, monkeypatch):
    section = config(home)
    record = loop.train(section, tmp_path / "run", quiet=True)
    with (tmp_path / "run" / "metrics.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    losses = [row["loss"] for row in rows if row["split"] == "validation"]
    assert losses[-1] < losses[0] - 0.3, "it has learned"
    # Two layers of width and state 32: three gates with a bias, and the way out.
    layer = 32 * 3 * 32 + 32 * 3 * 32 + 3 * 32 + 32 * 32
    vocabulary = load_run(tmp_path / "run").program.config.vocab_size
    assert record["parameters"] == 32 * vocabulary + 2 * layer

    step = Program.step

    def killed_after_30_steps(program, state, batch):
        if int(state["step"]) == 30:
            raise Killed
        return step(program, state, batch)

    monkeypatch.setattr(Program, "step", killed_after_30_steps)
    with pytest.raises(Killed):
        loop.train(section, tmp_path / "again", quiet=True)
    monkeypatch.setattr(Program, "step", step)
    resumed = loop.train(section, tmp_path / "again", quiet=True)
    assert resumed["final"] == record["final"], "bit for bit"

    rows = evaluator.evaluate(tmp_path / "run", "test", ["causal"], "latest")
    nll = {row["arm"]: row["value"] for row in rows if row["metric"] == "nll"}
    assert nll["model"] < nll["unigram"] + 0.5


def test_what_it_lacks_is_refused(home):
    with pytest.raises(UserError, match="'recurrent' cannot be a pipeline"):
        Program(config(home, mesh={"stage": 2, "data": 4}), Ids(96))
    with pytest.raises(UserError, match="does not run on model 'recurrent'"):
        Program(config(home) | {"objective": {"name": "mlm"}}, Ids(96))
    with pytest.raises(UserError, match="config.model.heads=2 is not known"):
        section = config(home)
        section["model"] |= {"heads": 2}
        Program(section, Ids(96))
