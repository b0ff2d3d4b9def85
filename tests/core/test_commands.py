"""Commands start fast, and report mistakes on the command line without a traceback."""

import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import runs

from lm.core import command

COMMANDS = ("train", "evaluate", "compare", "sweep", "preview", "minimal_pairs")
HEAVY = (
    "jax",
    "flax",
    "optax",
    "orbax",
    "grain",
    "sentencepiece",
    "pyarrow",
    "sklearn",
    "matplotlib",
    "scipy",
)


def seconds(*arguments: str) -> tuple[float, subprocess.CompletedProcess]:
    """Processor time of python with these arguments, which depends less on load than wall time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=runs.TESTS.parent, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def imported(done: subprocess.CompletedProcess) -> set[str]:
    """Top-level packages that -X importtime lists."""
    return {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


def test_importing_the_package_is_quick_and_light():
    bare = min(seconds("-c", "pass")[0] for _ in range(2))
    took, done = min(
        (seconds("-X", "importtime", "-c", "import lm") for _ in range(2)), key=lambda pair: pair[0]
    )
    assert done.returncode == 0 and "lm" in imported(done) and not imported(done) & set(HEAVY)
    assert took - bare < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_quick_and_light(name):
    took, done = seconds("-X", "importtime", "-m", f"lm.{name}", "--help")
    assert f"python -m lm.{name}" in done.stdout and "Exit status:" in done.stdout
    assert not imported(done) & set(HEAVY)
    assert took < 2


MLM = "--config=configs/mlm.py:tiny"
MISTAKES = {
    # Arguments of `python -m`, and a text that the message has.
    (
        "lm.train",
        MLM,
        "--workdir={new}",
        "--learning_rate=1",
    ): "Unknown command line flag 'learning_rate'",
    (
        "lm.train",
        MLM,
        "--workdir={new}",
        "--config.model.wdith=3",
    ): 'unknown config field \'wdith\' Did you mean "width" instead of "wdith"?',
    (
        "lm.train",
        MLM,
        "--workdir={new}",
        "--config.model.width=wide",
    ): "flag --config.model.width=wide: invalid literal for int()",
    (
        "lm.train",
        "--config=configs/mlm.py:huge",
        "--workdir={new}",
    ): "'huge' is not one of tiny, small, base, large",
    (
        "lm.train",
        "--config=configs/nothing.py",
        "--workdir={new}",
    ): "cannot be loaded: [Errno 2] No such file or directory: 'configs/nothing.py'",
    ("lm.train", "--workdir={new}"): "--config is missing",
    ("lm.train", MLM): "--workdir is missing",
    ("lm.train", MLM, "--workdir={new}", "resume"): "'resume' is not a flag; flags begin with --",
    (
        "lm.train",
        MLM,
        "--workdir={file}",
        "--config.data.path=x",
    ): "file is a file; give a directory",
    (
        "lm.train",
        MLM,
        "--workdir={new}",
        "--config.data.source=txt",
    ): "no sources plug-in is called 'txt' (did you mean 'text'?); there are: ",
    (
        "lm.evaluate",
        "--workdir={new}",
    ): "new has no run.json (the record of a run of lm.train); is it the right directory?",
    ("lm.evaluate", "--workdir={new}", "--split=train"): "should be one of <validation|test>",
    (
        "lm.evaluate",
        "--workdir={new}",
        "--tasks=masked,glue",
    ): "no tasks plug-in is called 'glue'; there are: brackets, causal, classification, ",
    (
        "lm.compare",
        "--config=experiments/objectives.py:huge",
        "--workdir={new}",
    ): "'huge' is not one of tiny",
    (
        "lm.compare",
        "--config=experiments/objectives.py:tiny",
        "--workdir={new}",
        "--config.budget.matched=steps",
    ): "matched='steps' is not one of tokens, flops, loss_tokens",
    ("lm.compare", "--config=experiments/objectives.py:tiny"): "--workdir is missing",
    (
        "lm.compare",
        "--config=experiments/objectives.py:tiny",
        "--workdir={new}",
        "--set=causal=3",
    ): "should be TASK.OPTION=VALUE",
    (
        "lm.compare",
        "--config=experiments/objectives.py:tiny",
        "--workdir={new}",
        "--set=glue.path=x",
    ): "no tasks plug-in is called 'glue'",
    ("lm.compare", "--workdir={new}"): "--config is missing",
    ("lm.compare", "--diff", "{new}"): "should name two workdirs",
    ("lm.evaluate", "--workdir={new}", "--set=causal=3"): "should be TASK.OPTION=VALUE",
    ("lm.evaluate", "--workdir={new}", "--set=causal.bytes=3"): "tasks.causal.bytes=3 is not known",
    ("lm.sweep", MLM, "--workdir={new}"): "nothing is swept",
    ("lm.sweep", MLM, "--workdir={new}", "--sweep.model.width=1.5"): "1.5 should be int",
    (
        "lm.sweep",
        MLM,
        "--workdir={new}",
        "--sweep.seed=0,1",
        "--metric=masked.nll",
    ): "task 'masked' measures ce, accuracy",
}


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """Exit status and output of each command line, run two at a time."""
    place = tmp_path_factory.mktemp("mistakes")
    (place / "file").write_text("kept")

    def output(typed):
        arguments = [part.format(new=place / "new", file=place / "file") for part in typed]
        process = runs.command("-m", *arguments, LM_CACHE=str(place / "cache"))
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    with ThreadPoolExecutor(2) as pool:
        outputs = dict(zip(MISTAKES, pool.map(output, MISTAKES), strict=True))
    return place, outputs


@pytest.mark.parametrize("typed", MISTAKES, ids=" ".join)
def test_a_mistake_is_reported_without_a_traceback(mistaken, typed):
    place, outputs = mistaken
    code, out, err = outputs[typed]
    assert code == 2
    assert err.startswith("error: ")
    assert MISTAKES[typed] in " ".join((out + err).split())
    assert "Traceback" not in out + err
    assert len(err.strip().splitlines()) <= 4, err
    assert not (place / "new").exists() and (place / "file").read_text() == "kept"


def test_only_consequences_of_a_failed_checkpoint_are_hidden(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "__unraisablehook__", printed.append)
    consequence, fault = (
        SimpleNamespace(exc_value=RuntimeError(words))
        for words in ("Event loop is closed", "something else")
    )
    command._unraisable(consequence)
    command._unraisable(fault)
    assert printed == [fault]
