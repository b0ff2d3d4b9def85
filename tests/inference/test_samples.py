"""Samples against a model that is asked one text at a time."""

import numpy as np
import pytest
from single_texts import SENTINELS, VOCABULARY, alone, build
from small_corpus import Ids, Tokens, numbers, quick_compilation

from lm.inference import samples

quick = pytest.fixture(quick_compilation, scope="module", autouse=True)
SHORT, LONG = range(7, 15), range(8, 40)


class Spelled(Ids):
    """Ids are written as numbers."""

    def decode(self, ids):
        return " ".join(str(each) for each in ids if each > self.mask)


TOKENIZER = Spelled(VOCABULARY, SENTINELS)
STORE = Tokens([[list(SHORT)], [list(LONG)], [list(reversed(LONG))]])


def drawn(program, params, count=2):
    return samples.draw(program, params, TOKENIZER, STORE, count)


@pytest.mark.parametrize(
    ("objective", "model"), [("clm", "decoder"), ("prefix_lm", "encoder_decoder")]
)
def test_a_text_goes_on_with_the_likeliest_word(objective, model):
    program = build(objective, model)
    params = numbers(program.shapes["params"])
    ask = alone(program, params)
    found = drawn(program, params)
    assert len(found) == 2  # the short document has too little to begin with
    given = list(LONG)[:8]
    written: list[int] = []
    while len(written) < 8:
        read = [Ids.bos, *given, *written] if model == "decoder" else [Ids.bos, *written]
        table = ask(read) if model == "decoder" else ask(read, inputs=[Ids.bos, *given, Ids.eos])
        word = int(table[-1].argmax())
        if word in (Ids.eos, *TOKENIZER.sentinels):
            break
        written.append(word)
    assert found[0] == {"prompt": TOKENIZER.decode(given), "text": TOKENIZER.decode(written)}
    assert found[1]["prompt"].split() == [str(each) for each in reversed(LONG)][:8]


def test_hidden_words_are_filled_at_once():
    program = build("mlm", "encoder")
    params = numbers(program.shapes["params"])
    first = drawn(program, params, 1)[0]
    given = list(LONG)[:8]
    # Words begin at ids that 3 does not divide: 8 9 | 10 | 11 12 | 13 | 14 15, so the sixth word does not come; the last id is hidden.
    row = [Ids.cls, *given[:-1], Ids.mask, Ids.sep]
    word = int(alone(program, params)(row, both=True, head=True)[8].argmax())
    assert first["prompt"] == " ".join(map(str, given[:-1])) + f" «{given[-1]}»"
    assert first["text"] == " ".join(map(str, given[:-1])) + (
        f" «{word}»" if word > Ids.mask else "«»"
    )


def test_marks_stand_around_runs():
    ids = np.array([8, 9, 10, 11, 12], np.int32)
    assert samples._marked(TOKENIZER, ids, np.array([0, 2, 3])) == "«8» 9 «10 11» 12"
    assert samples._marked(TOKENIZER, ids, np.array([4])) == "8 9 10 11 «12»"


def test_an_objective_without_words_has_none():
    program = build("nsp", "encoder")
    assert drawn(program, numbers(program.shapes["params"])) == []
