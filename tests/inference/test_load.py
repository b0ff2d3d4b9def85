"""A checkpoint opens from its directory alone."""

import json
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from runs import STEPS, home  # noqa: F401

import lm
from lm.core.plugins import UserError
from lm.data import corpus as corpora
from lm.data.corpus import Corpus


@pytest.fixture
def workdir(home, tmp_path):
    return shutil.copytree(home.finished("clm"), tmp_path / "run")


def test_loading_needs_no_corpus(workdir, monkeypatch):
    def missing(*arguments, **options):
        raise UserError("the corpus is not here")

    monkeypatch.setattr(corpora, "prepare", missing)
    run = lm.load(workdir)
    assert (
        run.step == STEPS and run.config == json.loads((workdir / "run.json").read_text())["config"]
    )
    ids = jnp.asarray([[run.tokenizer.bos, *run.tokenizer.encode("The first word.")]], jnp.int32)
    positions = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
    batch = {"tokens": ids, "segments": jnp.ones_like(ids), "positions": positions}
    states = run.model.states(batch)
    assert states.shape == (*ids.shape, run.config["model"]["width"])
    logits = np.asarray(run.model.logits(states), np.float64)
    assert logits.shape == (*ids.shape, run.program.config.vocab_size)
    assert np.isfinite(logits).all()
    assert isinstance(run.corpus, Corpus) and run.corpus.tokenizer is run.tokenizer
    assert "step=10" in repr(run) and "first use" in repr(run.corpus)
    with pytest.raises(UserError, match="the corpus is not here"):
        _ = run.corpus.stores
    with pytest.raises(AttributeError):
        _ = run.corpus.no_such_field


def test_the_corpus_is_that_of_training(workdir):
    run = lm.load(workdir, "best")
    assert run.corpus.fingerprint == run.record["data"]["fingerprint"]
    assert len(run.corpus.stores["train"]) > 0 and run.corpus.describe()
    assert next(run.corpus.texts("test")).text


@pytest.mark.parametrize("step", [9, "9", "latest", None])
def test_the_step_can_be_selected(workdir, step):
    assert lm.load(workdir, step).step == (9 if str(step) == "9" else STEPS)


def test_another_vocabulary_is_refused(workdir):
    path = workdir / "tokenizer.model"
    record = json.loads((workdir / "run.json").read_text())
    record["data"]["tokenizer"] = "another"
    (workdir / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not the vocabulary of this run.*restore the file"):
        lm.load(workdir)
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match="tokenizer.model is not a SentencePiece model"):
        lm.load(workdir)
    path.unlink()
    with pytest.raises(UserError, match="has no tokenizer.model"):
        lm.load(workdir)


def test_importing_lm_does_not_import_jax():
    code = "import sys, lm; lm.load; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
