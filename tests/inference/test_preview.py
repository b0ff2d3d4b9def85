"""Previews of examples: inputs, targets and decoded text."""

import contextlib
import io

import pytest
from small_corpus import compatible_pairs, config, write

from lm.core.plugins import UserError
from lm.inference import preview


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    directory = tmp_path_factory.mktemp("preview")
    write(directory)
    return directory


def printed(section, **options) -> str:
    file = io.StringIO()
    defaults = {"split": "train", "count": 2, "step": 0, "arrays": False, "color": False}
    with contextlib.redirect_stdout(file):
        preview.print_examples(section, **defaults | options)
    return file.getvalue()


@pytest.mark.parametrize(("objective", "model"), compatible_pairs())
def test_every_objective_can_be_previewed(home, objective, model):
    text = printed(config(objective, home, model={"name": model}))
    assert "example 0" in text and "example 1" in text and "segment 1" in text and "decoded" in text
    assert "mask" in text and "padding" in text


def test_targets_follow_masked_tokens(home):
    text = printed(config("mlm", home, options={"mask_share": 1.0, "random_share": 0.0}))
    assert "[MASK]«" in text and "slots are targets" in text


@pytest.mark.parametrize("objective", ["mlm", "mntp"])
def test_the_decoded_line_is_the_text_before_masking(home, objective):
    lines = " ".join(printed(config(objective, home), count=8).split())
    assert "MASK" not in lines.split("decoded ")[1].split("segment")[0].split("weights")[0]


def test_arrays_and_colors(home):
    section = config("clm", home)
    assert "tokens [" in printed(section, arrays=True)
    assert "\x1b[" in printed(section, color=True) and "\x1b[" not in printed(section)


def test_a_step_outside_the_run_is_refused(home):
    with pytest.raises(UserError, match="--step=99 is not in this run"):
        printed(config("clm", home), step=99)


def test_the_preview_of_a_step_shows_its_phase(home):
    section = config(
        "biphasic",
        home,
        options={"share": 0.5, "second_options": {"head": "plain"}},
        model={"name": "decoder"},
    )
    assert "clm" in printed(section).split("example 0")[1].splitlines()[0]
    assert "mlm" in printed(section, step=4).split("example 0")[1].splitlines()[0]
