"""python -m lm.data shows what the model reads and is asked."""

import io

import pytest
from small_corpus import compatible_pairs, config, write

from lm.core.plugins import UserError
from lm.inference import preview


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    directory = tmp_path_factory.mktemp("showing")
    write(directory)
    return directory


def shown(section, **options) -> str:
    file = io.StringIO()
    preview.show(
        section,
        **{"split": "train", "count": 2, "step": 0, "arrays": False, "forced": False, "file": file}
        | options,
    )
    return file.getvalue()


@pytest.mark.parametrize(("objective", "model"), compatible_pairs())
def test_every_objective_can_be_looked_at(home, objective, model):
    text = shown(config(objective, home, model={"name": model}))
    assert "example 0" in text and "example 1" in text and "segment 1" in text and "decoded" in text
    assert "mask" in text and "padding" in text


def test_masked_tokens_stand_beside_what_is_read(home):
    text = shown(config("mlm", home, options={"mask_share": 1.0, "random_share": 0.0}))
    assert "[MASK]«" in text and "slots are targets" in text


def test_the_decoded_line_is_the_text_before_it_was_hidden(home):
    masked, plain = (shown(config(name, home), count=8) for name in ("mlm", "mntp"))
    for text in (masked, plain):
        lines = " ".join(text.split())
        assert "MASK" not in lines.split("decoded ")[1].split("segment")[0].split("weights")[0]


def test_arrays_and_colours(home):
    section = config("clm", home)
    assert "tokens [" in shown(section, arrays=True)
    assert "\x1b[" in shown(section, forced=True) and "\x1b[" not in shown(section)


def test_a_step_that_is_not_in_the_run(home):
    with pytest.raises(UserError, match="--step=99 is not in this run"):
        shown(config("clm", home), step=99)


def test_an_objective_that_changes_shows_its_phases(home):
    section = config(
        "biphasic",
        home,
        options={"share": 0.5, "second_options": {"head": "plain"}},
        model={"name": "decoder"},
    )
    assert "clm" in shown(section).split("example 0")[1].splitlines()[0]
    assert "mlm" in shown(section, step=4).split("example 0")[1].splitlines()[0]
