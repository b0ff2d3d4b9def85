"""How fast examples are built, tokens a second on one core, for every objective; and Hugging Face's collators beside them, if asked.

  python -m benchmarks.examples [--length=512] [--seconds=2] [--peer=PYTHON]

Tokens are text that the model reads or writes: positions that are not padding. The text is the embedded corpus, already in its token store.
`--peer` names a Python that has `transformers` and `torch`: rows of the same tokens then go, in turn with ours, through its
DataCollatorForLanguageModeling (masked and causal) in a process of its own. transformers has no collator for T5's span corruption.
"""

import json
import statistics
import subprocess
import time

from absl import flags

from lm.core import command

_LENGTH = flags.DEFINE_integer("length", 512, "positions a row", lower_bound=16)
_SECONDS = flags.DEFINE_float("seconds", 2.0, "to measure each objective for", lower_bound=0.1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "times that each is measured, in turn", lower_bound=1)
_PEER = flags.DEFINE_string("peer", "", "a Python with transformers and torch")
_BATCH = flags.DEFINE_integer("batch", 32, "rows a batch, for both sides", lower_bound=1)

PEERS = {("mlm", "encoder"): "mlm", ("clm", "decoder"): "clm"}  # what transformers collates too


def main() -> None:
    import numpy as np

    from lm import presets
    from lm.core import compatibility, plugins
    from lm.core.plain import plain
    from lm.data import corpus, loader

    base = plain(
        presets.run(presets.laptop("encoder"), {"name": "mlm"}, tokenizer={"vocab_size": 8192})
    )
    prepared = corpus.prepare(base["data"], base["tokenizer"])
    store, length = prepared.stores["train"], _LENGTH.value
    sections = [
        (name, model, {"name": name})
        for name in plugins.names("objectives")
        for model in models(name)
    ]
    sections += [
        ("mlm, whole words", "encoder", {"name": "mlm", "unit": "word"}),
        ("mlm, spans", "encoder", {"name": "mlm", "unit": "word_span"}),
    ]
    sections += [
        (f"mlm, {form}", "encoder", {"name": "mlm", "format": form})
        for form in plugins.names("data.formats")
        if form != "packed"
    ]
    speeds: dict[tuple[str, str], list[float]] = {}
    peer = Peer(_PEER.value, store, prepared.tokenizer, length) if _PEER.value else None
    theirs: dict[str, list[float]] = {}
    for _ in range(_ROUNDS.value):
        for title, model, section in sections:
            objective = compatibility.make(section, prepared.tokenizer, length, model)
            plan = objective.plan(store)
            rows = loader.examples(objective, store, plan, 0, _BATCH.value, 10**6)
            batches = loader.local_batches(rows, np.arange(_BATCH.value), _BATCH.value)
            batches[0]
            tokens, at, begin = 0, 1, time.perf_counter()
            while time.perf_counter() - begin < _SECONDS.value:
                batch = batches[at]
                at += 1
                tokens += sum(
                    int((batch[key] > 0).sum())
                    for key in ("segments", "input_segments")
                    if key in batch
                )
            speeds.setdefault((title, model), []).append(tokens / (time.perf_counter() - begin))
            if peer and (title, model) in PEERS:
                theirs.setdefault(title, []).append(peer.speed(PEERS[title, model], _SECONDS.value))
    print(f"rows of {length}, batches of {_BATCH.value}, one core; medians of {_ROUNDS.value}")
    for (title, model), values in speeds.items():
        line = f"  {title:<24} {model:<16} {statistics.median(values) / 1e3:9,.0f} k tokens/s"
        if peer and (title, model) in PEERS:
            ratio = statistics.median(
                ours / other for ours, other in zip(values, theirs[title], strict=True)
            )
            line += f"   transformers {statistics.median(theirs[title]) / 1e3:,.0f} k: {ratio:.1f}× as fast"
        print(line)
    if peer:
        peer.close()


def models(name: str) -> list[str]:
    """Where the objective runs by default."""
    from lm.core import compatibility

    return ["decoder"] if name in ("mixture", "biphasic") else compatibility.models(name)


class Peer:
    """A process that collates the same rows with transformers, and says how many tokens a second it makes."""

    def __init__(self, python: str, store, tokenizer, length: int):
        import numpy as np

        count = min(256, len(store.tokens) // length)
        rows = np.asarray(store.tokens[: count * length], np.int64).reshape(count, length).tolist()
        self.process = subprocess.Popen(
            [python, "-c", _PEER_CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        first = {
            "rows": rows,
            "size": tokenizer.size,
            "batch": _BATCH.value,
            "starts": tokenizer.is_word_start.tolist(),
        }
        self._send(first)
        print("peer:", self._read())

    def speed(self, kind: str, seconds: float) -> float:
        """Tokens a second."""
        self._send({"kind": kind, "seconds": seconds})
        return float(self._read())

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _send(self, value) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def _read(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the peer ended; has --peer transformers and torch?")
        return line.strip()


# What the peer runs. A tokenizer of whole words stands in for a vocabulary: the collators need its special ids only.
_PEER_CODE = """
import json, sys, time
first = json.loads(sys.stdin.readline())
import tokenizers, torch, transformers
torch.set_num_threads(1)
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
names = special + [("w" if start else "##") + str(i) for i, start in list(enumerate(first["starts"]))[len(special):]]
words = {name: i for i, name in enumerate(names)}
model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                                 sep_token="[SEP]", mask_token="[MASK]")
mask = torch.ones(len(first["rows"][0]), dtype=torch.long).tolist()
rows = [{"input_ids": [max(i, 5) for i in row], "attention_mask": mask} for row in first["rows"]]
rows = [row | {"special_tokens_mask": [0] * len(row["input_ids"])} for row in rows]
collators = {"mlm": transformers.DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.15),
             "clm": transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)}
print(f"transformers {transformers.__version__}, torch {torch.__version__}, one thread", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    collate, size = collators[asked["kind"]], first["batch"]
    collate([dict(row) for row in rows[:size]])
    tokens, at, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < asked["seconds"]:
        batch = [dict(row) for row in rows[at:at + size]]
        collate(batch)
        tokens += sum(len(row["input_ids"]) for row in batch)
        at = (at + size) % (len(rows) - size + 1)
    print(tokens / (time.perf_counter() - begin), flush=True)
"""


if __name__ == "__main__":
    command.run(main)
