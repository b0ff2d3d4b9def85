"""Speed of building examples, in tokens/s on one core, for every objective.

  python -m benchmarks.examples [--length=512] [--seconds=2] [--peer=PYTHON]

Tokens are positions that are not padding. The text is the default corpus, already in its token
store. `--peer` names a Python that has `transformers` and `torch`. Rows of the same tokens then go
through its DataCollatorForLanguageModeling (masked and causal) in a separate process, alternating
with ours. transformers has no collator for T5's span corruption.
"""

import json
import statistics
import subprocess
import time

from absl import flags

from lm.core import command
from lm.core.protocols import Tokenizer
from lm.data.store import Store

_LENGTH = flags.DEFINE_integer("length", 512, "positions per row", lower_bound=16)
_SECONDS = flags.DEFINE_float("seconds", 2.0, "seconds to measure each objective", lower_bound=0.1)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 3, "measurements of each objective, alternating", lower_bound=1
)
_PEER = flags.DEFINE_string("peer", "", "path of a Python with transformers and torch")
_BATCH = flags.DEFINE_integer("batch", 32, "rows per batch", lower_bound=1)

# Objectives that transformers has a collator for.
PEERS = {("mlm", "encoder"): "mlm", ("clm", "decoder"): "clm"}


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
            peer_speed = statistics.median(theirs[title]) / 1e3
            line += f"   transformers {peer_speed:,.0f} k: {ratio:.1f}× as fast"
        print(line)
    if peer:
        peer.close()


def models(name: str) -> list[str]:
    """Models that an objective runs on by default."""
    from lm.core import compatibility

    return ["decoder"] if name in ("mixture", "biphasic") else compatibility.models(name)


class Peer:
    """A process that collates the same rows with transformers."""

    def __init__(self, python: str, store: Store, tokenizer: Tokenizer, length: int) -> None:
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
        """Measures the peer, in tokens/s."""
        self._send({"kind": kind, "seconds": seconds})
        return float(self._read())

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _send(self, value: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def _read(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the peer exited; check that --peer has transformers and torch")
        return line.strip()


# The peer's program. A word-level tokenizer replaces the vocabulary: the collators only need its
# special ids.
_PEER_CODE = """
import json, sys, time
first = json.loads(sys.stdin.readline())
import tokenizers, torch, transformers
torch.set_num_threads(1)
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
names = special + [
    ("w" if start else "##") + str(i)
    for i, start in list(enumerate(first["starts"]))[len(special):]
]
words = {name: i for i, name in enumerate(names)}
model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
    sep_token="[SEP]", mask_token="[MASK]")
mask = torch.ones(len(first["rows"][0]), dtype=torch.long).tolist()
rows = [{"input_ids": [max(i, 5) for i in row], "attention_mask": mask} for row in first["rows"]]
rows = [row | {"special_tokens_mask": [0] * len(row["input_ids"])} for row in rows]
collate_masked = transformers.DataCollatorForLanguageModeling(
    tokenizer, mlm=True, mlm_probability=0.15)
collate_causal = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
collators = {"mlm": collate_masked, "clm": collate_causal}
print(f"transformers {transformers.__version__}, torch {torch.__version__}, one thread", flush=True)
for line in sys.stdin:
    query = json.loads(line)
    collate, size = collators[query["kind"]], first["batch"]
    collate([dict(row) for row in rows[:size]])
    tokens, at, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < query["seconds"]:
        batch = [dict(row) for row in rows[at:at + size]]
        collate(batch)
        tokens += sum(len(row["input_ids"]) for row in batch)
        at = (at + size) % (len(rows) - size + 1)
    print(tokens / (time.perf_counter() - begin), flush=True)
"""


if __name__ == "__main__":
    command.run(main)
