"""How text becomes rows of one sequence, independent of the loss. Each module is a plug-in.

RoBERTa's table 2 (Liu et al. 2019) compares segment_pair, sentence_pair, full_sentences and
doc_sentences. A format is a module with `PAIRS`, whether its rows hold pairs of segments, and

    class Format(tokenizer, length, relation, ends)    lm.core.protocols.Format

`relation` is one of lm.data.pairs.RELATIONS and affects only formats of pairs. `ends` are the
special ids before and after a piece of text, [CLS] and [SEP] by default; a pair uses only the
first id. Formats of pairs also have `slots`, the number of labels of a row.
"""
