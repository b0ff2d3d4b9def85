"""Samples, compared with a model called on one text at a time."""

import numpy as np
import pytest
from single_texts import SENTINELS, VOCABULARY, build, log_prob_function
from small_corpus import Ids, Tokens, numbers, quick_compilation

from lm.inference import samples

quick = pytest.fixture(quick_compilation, scope="module", autouse=True)
SHORT, LONG = range(7, 15), range(8, 40)


class Spelled(Ids):
    """Decodes ids as numbers."""

    def decode(self, ids, specials=False):
        return " ".join(str(i) for i in ids if i > self.mask)


TOKENIZER = Spelled(VOCABULARY, SENTINELS)
STORE = Tokens([[list(SHORT)], [list(LONG)], [list(reversed(LONG))]])


def drawn(program, params, count=2):
    return samples.draw(program, params, TOKENIZER, STORE, count)


@pytest.mark.parametrize(
    ("objective", "model"), [("clm", "decoder"), ("prefix_lm", "encoder_decoder")]
)
def test_a_text_continues_with_the_most_probable_words(objective, model):
    program = build(objective, model)
    params = numbers(program.shapes["params"])
    query = log_prob_function(program, params)
    first, second = drawn(program, params)  # the short document is left out
    given = list(LONG)[:8]
    written: list[int] = []
    while len(written) < 8:
        read = [Ids.bos, *given, *written] if model == "decoder" else [Ids.bos, *written]
        inputs = None if model == "decoder" else [Ids.bos, *given, Ids.eos]
        word = int(query(read, inputs=inputs)[-1].argmax())
        if word in (Ids.eos, *TOKENIZER.sentinels):
            break
        written.append(word)
    assert first == {"prompt": TOKENIZER.decode(given), "text": TOKENIZER.decode(written)}
    assert second["prompt"].split() == [str(i) for i in reversed(LONG)][:8]


def test_masked_words_are_filled_in_at_once():
    program = build("mlm", "encoder")
    params = numbers(program.shapes["params"])
    first = drawn(program, params, 1)[0]
    given = list(LONG)[:8]
    # Words begin at ids that are not multiples of 3: 8 9 | 10 | 11 12 | 13 | 14 15. There is no
    # sixth word, so the last id is masked.
    row = [Ids.cls, *given[:-1], Ids.mask, Ids.sep]
    word = int(log_prob_function(program, params)(row, both=True, head=True)[8].argmax())
    assert first["prompt"] == " ".join(map(str, given[:-1])) + f" «{given[-1]}»"
    assert first["text"] == " ".join(map(str, given[:-1])) + (
        f" «{word}»" if word > Ids.mask else "«»"
    )


def test_adjacent_ids_share_marks():
    ids = np.array([8, 9, 10, 11, 12], np.int32)
    assert samples._marked(TOKENIZER, ids, [0, 2, 3]) == "«8» 9 «10 11» 12"
    assert samples._marked(TOKENIZER, ids, [4]) == "8 9 10 11 «12»"


def test_an_objective_that_predicts_no_words_has_no_samples():
    program = build("nsp", "encoder")
    assert drawn(program, numbers(program.shapes["params"])) == []
