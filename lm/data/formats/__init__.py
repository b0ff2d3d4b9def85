"""How text becomes rows of one sequence: each file is a format, found by its name; which loss is put on it is another question.

RoBERTa's table 2 (Liu et al. 2019) compares segment_pair, sentence_pair, full_sentences and doc_sentences. A format is a module with

    class Format(tokenizer, length, question, ends): `question`, one of lm.data.pairs.QUESTIONS, matters to pairs alone; `ends` are the
        special ids before and after a piece of text, [CLS] and [SEP] by default (a pair takes the first of them)
        PAIRS: whether rows hold pairs, with `labels` and `label_weights` [slots]
        plan(store) -> what an epoch consists of; its length is the number of rows
        row(plan, index, rng) -> tokens, segments, positions, types int32 [length] and, for pairs, the labels
"""
