"""Wrong configs are refused before anything is written; the message explains what to change."""

import shutil

import pytest
import runs
from runs import home  # noqa: F401

from lm.core import plugins
from lm.core.plugins import UserError
from lm.parallel import mesh
from lm.training import loop

# Objective, overrides of a config that works, and texts that the message has.
MISTAKES = {
    "width and heads": ("clm", {"model": {"width": 33}}, ["width=33", "heads=2"]),
    "attention": (
        "clm",
        {"model": {"attention": "referense"}},
        ["no attention plug-in is called 'referense'", "did you mean 'reference'?"],
    ),
    "model": (
        "clm",
        {"model": {"name": "decodr"}},
        ["no models plug-in is called 'decodr'", "did you mean 'decoder'?", "encoder_decoder"],
    ),
    "objective": (
        "clm",
        {"objective": {"name": "clmm"}},
        ["no objectives plug-in is called 'clmm'", "did you mean 'clm'?", "mlm_nsp"],
    ),
    "optimizer": (
        "clm",
        {"optimizer": {"name": "adamv"}},
        ["no optimizers plug-in is called 'adamv'", "did you mean 'adamw'?", "muon"],
    ),
    "source": (
        "clm",
        {"data": {"source": "texts"}},
        ["no sources plug-in is called 'texts'", "did you mean 'text'?", "python_docs"],
    ),
    "schedule": (
        "clm",
        {"optimizer": {"schedule": "cosin"}},
        ["config.optimizer", "schedule='cosin'", "cosine", "wsd"],
    ),
    "positions": (
        "clm",
        {"model": {"positions": "rotating"}},
        ["config.model", "rotating", "rotary"],
    ),
    "activation": ("clm", {"model": {"activation": "gleu"}}, ["config.model", "gleu", "gelu"]),
    "tokenizer": (
        "clm",
        {"tokenizer": {"kind": "words"}},
        ["no tokenizers plug-in is called 'words'", "did you mean 'word'?", "unigram", "bpe"],
    ),
    "pooling": (
        "nsp",
        {"objective": {"pooling": "last"}},
        ["config.objective", "pooling='last'", "first, mean, segments"],
    ),
    "objective on a wrong model": (
        "clm",
        {"model": {"name": "encoder"}},
        ["'clm' does not run on model 'encoder'", "it runs on: decoder"],
    ),
    "another optimizer's option": (
        "clm",
        {"optimizer": {"adam_rate": 0.1}},
        ["config.optimizer.adam_rate=0.1 is not known", "takes: "],
    ),
    "another source's option": (
        "clm",
        {"data": {"field": "body"}},
        ["field='body' is not known", "(source text) takes: path"],
    ),
    "wrong type": (
        "clm",
        {"training": {"batch_size": "many"}},
        ["config.training.batch_size='many' should be int, not str"],
    ),
    "mesh": (
        "clm",
        {"mesh": {"data": 3, "fsdp": 1, "tensor": 1}},
        ["asks for data=3,", "there are 8 cpu device(s)", "must be 8"],
    ),
    "mesh of zero": (
        "clm",
        {"mesh": {"data": 0, "fsdp": 1, "tensor": 1}},
        ["config.mesh", "each is a positive number"],
    ),
    "mesh and parameters": (
        "clm",
        {"mesh": {"data": 1, "fsdp": 1, "tensor": 8}},
        ["config.mesh splits", "8 ways along tensor", "not a multiple of 8"],
    ),
    "batch and mesh": (
        "clm",
        {"mesh": {"data": 4, "fsdp": 2, "tensor": 1}, "training": {"batch_size": 12}},
        [
            "config.training.batch_size=12 is not a multiple of the 8 parts that the mesh splits it"
            " into (data 4 × fsdp 2)",
            "choose a multiple",
        ],
    ),
    "batch and microbatches": (
        "clm",
        {"training": {"microbatches": 3}},
        ["batch_size=8 is not a multiple of microbatches=3"],
    ),
    "no budget": (
        "clm",
        {"training": {"steps": 0}},
        ["config.training: set exactly one of steps=0 and tokens=0 above 0"],
    ),
    "two budgets": (
        "clm",
        {"training": {"steps": 3, "tokens": 512}},
        ["set exactly one of steps=3 and tokens=512"],
    ),
    "negative steps": (
        "clm",
        {"training": {"steps": -3, "tokens": 512}},
        ["steps=-3 must not be negative"],
    ),
    "keep": ("clm", {"training": {"keep": 0}}, ["keep=0 must be at least 1"]),
    "rate of zero": (
        "mlm",
        {"objective": {"rate": 0.0}},
        ["config.objective", "rate=0.0", "between 0 and 1"],
    ),
    "rate above one": (
        "mlm",
        {"objective": {"rate": 1.5}},
        ["config.objective", "rate=1.5", "between 0 and 1"],
    ),
    "seed": ("clm", {"seed": -1}, ["config.seed=-1 must be a whole number from 0"]),
    "clip": (
        "clm",
        {"optimizer": {"clip": -1.0}},
        ["config.optimizer: clip=-1.0 must be finite and not negative"],
    ),
    "length": (
        "clm",
        {"data": {"length": 8}},
        ["config.data.length=8 is too short; rows need at least 16"],
    ),
    "length and positions": (
        "clm",
        {"data": {"length": 64}, "model": {"max_length": 32}},
        ["length=64 is longer than config.model.max_length=32"],
    ),
    "vocabulary of the model": (
        "clm",
        {"model": {"vocab_size": 100}},
        ["config.model.vocab_size=100 is below the tokenizer's", "set it to 0"],
    ),
    "vocabulary for the text": (
        "clm",
        {"tokenizer": {"vocab_size": 100_000}},
        ["vocab_size=100000"],
    ),
    "vocabulary of nothing": (
        "clm",
        {"tokenizer": {"vocab_size": 50}},
        ["config.tokenizer", "vocab_size=50"],
    ),
    "a missing path": (
        "clm",
        {"data": {"path": "{home}/nowhere"}},
        ["data.path=", "nowhere", "there is no such file or directory"],
    ),
    "no text": ("clm", {"data": {"path": "{home}/empty"}}, ["empty", "path"]),
    "empty text": (
        "clm",
        {"data": {"path": "{home}/blank.txt"}},
        ["the source text gave no documents"],
    ),
    "too few documents": (
        "clm",
        {"data": {"path": "{home}/text/garden.000.txt"}},
        ["no document falls into the", "Give more documents"],
    ),
    "too little text for a row": (
        "clm",
        {"data": {"length": 100_000}},
        ["the training split has", "fewer than one row of config.data.length=100000"],
    ),
    "too little text for a batch": (
        "clm",
        {"training": {"batch_size": 4096}},
        ["the training split gives", "fewer than one batch of config.training.batch_size=4096"],
    ),
    "no validation": (
        "clm",
        {"data": {"validation": 0.0}},
        ["config.data", "validation=0.0 should be a fraction between 0 and 1"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_before_anything_is_written(home, tmp_path, mistake):
    objective, overrides, words = MISTAKES[mistake]
    (home.root / "empty").mkdir(exist_ok=True)
    (home.root / "blank.txt").write_text("\n \n")
    config = home.config(objective)
    for section, fields in overrides.items():
        if isinstance(fields, dict):
            config[section] |= {
                key: value.format(home=home.root) if isinstance(value, str) else value
                for key, value in fields.items()
            }
        else:
            config[section] = fields
    with pytest.raises(UserError) as raised:
        loop.train(config, tmp_path / "run", quiet=True)
    for word in words:
        assert word in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "room",
    ["models", "nn.attention", "objectives", "optimizers", "data.formats", "data.sources", "tasks"],
)
def test_an_unknown_plug_in_lists_the_valid_ones(room):
    with pytest.raises(UserError) as raised:
        plugins.find(room, "nothing")
    assert "'nothing'" in str(raised.value) and str(raised.value).endswith(
        "there are: " + ", ".join(plugins.names(room))
    )
    assert len(plugins.names(room)) > 0


def test_a_workdir_with_other_files_is_not_changed(home, tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("kept")
    before = runs.files(tmp_path)
    for name, words in {
        "file": "is a file; give a directory",
        "photos": "holds something that is no run of lm.train",
        "file/below": "cannot be made",
    }.items():
        with pytest.raises(UserError, match=words):
            loop.train(home.config("clm"), tmp_path / name, quiet=True)
    assert runs.files(tmp_path) == before


def test_a_damaged_store_is_not_trained_on(home, tmp_path):
    loop.corpora.prepare(
        home.config("clm")["data"],
        home.config("clm")["tokenizer"],
        progress=False,
    )
    shutil.copytree(home.root / "cache", tmp_path / "cache")
    for path in (tmp_path / "cache" / "stores").glob("*/tokens.bin"):
        path.write_bytes(b"\1" * path.stat().st_size)
    config = home.config("clm", data={"cache": str(tmp_path / "cache")})
    with pytest.raises(
        UserError,
        match=r"is damaged: tokens.bin does not match its checksum. Delete that directory; it is",
    ):
        loop.train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_resume_on_a_changed_corpus(home, tmp_path):
    """The files at the same path have another content."""
    shutil.copytree(home.finished("clm"), tmp_path / "run")
    shutil.copytree(home.root / "text", tmp_path / "text")
    (tmp_path / "text" / "garden.000.txt").write_text("Quite another text. It has two sentences.\n")
    before = runs.files(tmp_path / "run")
    config = home.config(
        "clm", data={"path": str(tmp_path / "text"), "cache": str(tmp_path / "cache")}
    )
    with pytest.raises(UserError, match="holds a run of another config:\n  config.data.path"):
        loop.train(config, tmp_path / "run", quiet=True)
    record = (
        (tmp_path / "run" / "run.json")
        .read_text()
        .replace(str(home.root / "text"), str(tmp_path / "text"))
    )
    (tmp_path / "run" / "run.json").write_text(record)
    with pytest.raises(
        UserError,
        match="was trained on other data: fingerprint .* there, .* now .*give another workdir",
    ):
        loop.train(config, tmp_path / "run", quiet=True)
    assert {
        name for name, stat in runs.files(tmp_path / "run").items() if before[name] != stat
    } == {"run.json"}
    assert (tmp_path / "run" / "run.json").read_text() == record


def test_a_corpus_that_is_missing_when_a_run_resumes(home, tmp_path, monkeypatch):
    """The message names what is missing. With text and caches restored, the run ends alike."""
    text, cache, workdir = tmp_path / "text", tmp_path / "cache", tmp_path / "run"
    shutil.copytree(home.root / "text", text)
    config = home.config("clm", data={"path": str(text), "cache": str(cache)})
    with monkeypatch.context() as patch:
        runs.at_step(patch, 5, runs.kill)
        with pytest.raises(runs.Killed):
            loop.train(config, workdir, quiet=True)
    before = runs.files(workdir)

    text.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"data.path=.*/text.*there is no such file or directory"):
        loop.train(config, workdir, quiet=True)
    (tmp_path / "elsewhere").rename(text)
    (tokens,) = (
        path for path in (cache / "stores").glob("*/tokens.bin") if path.stat().st_size > 50_000
    )
    tokens.write_bytes(tokens.read_bytes()[:1000])
    with pytest.raises(
        UserError,
        match=r"is damaged: tokens.bin has 1,000 bytes, not .*\. Delete that directory; it is",
    ):
        loop.train(config, workdir, quiet=True)
    assert runs.files(workdir) == before
    shutil.rmtree(cache)
    loop.train(config, workdir, quiet=True)
    runs.assert_same_run(home.finished("clm"), workdir)


def test_a_run_does_not_resume_with_a_changed_tokenizer(home, tmp_path):
    """Other options change the config; another file at the same path changes the fingerprint."""
    shutil.copytree(home.finished("clm"), tmp_path / "run")
    before = runs.files(tmp_path / "run")
    with pytest.raises(UserError, match="config.tokenizer.vocab_size: 600 there, 500 now"):
        loop.train(home.config("clm", tokenizer={"vocab_size": 500}), tmp_path / "run", quiet=True)
    assert runs.files(tmp_path / "run") == before
    record = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text(
        record.replace(runs.record(tmp_path / "run")["data"]["tokenizer"], "0123").replace(
            runs.record(tmp_path / "run")["data"]["fingerprint"], "4567"
        )
    )
    with pytest.raises(
        UserError,
        match=r"fingerprint 4567 there, \w+ now \(tokenizer 0123 there, \w+ now\); give another",
    ):
        loop.train(home.config("clm"), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("value", ["soon", "0", "1.5"])
def test_a_heartbeat_is_a_number_of_seconds(monkeypatch, value):
    monkeypatch.setenv("LM_HEARTBEAT", value)
    with pytest.raises(
        UserError, match=f"LM_HEARTBEAT='{value}' should be a whole number of seconds, at least 1"
    ):
        mesh.initialize()
