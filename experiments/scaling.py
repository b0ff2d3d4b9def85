"""What does the masked half of a hybrid cost a causal reader, and does size or text make it vanish?

  python -m lm.compare --config=experiments/scaling.py:tiny --workdir=runs/scaling

Two series, CLM and GPT-BERT's hybrid 1:1 (Charpentier and Samuel 2024), at three sizes × three numbers of tokens, every size with each; one
seed, so no hypotheses. The report fits L = E + A/N^α + B/D^β to each (Hoffmann et al. 2022) and says at which FLOPs they cross. All sizes
have the recipe's learning rate, and every run has the whole schedule. tiny: for 2 CPU cores; scaling/README.md says how long it took. small
and base: experiments/_common.py.
"""

from experiments import _common

TOKENS = {"tiny": 100_000, "small": 50_000_000, "base": 1_000_000_000}
TIMES = (1, 4, 16)
# (layers, width, heads)
SIZES = {
    "tiny": {"S": (2, 32, 2), "M": (2, 64, 2), "L": (2, 128, 2)},
    "small": {"S": (4, 256, 4), "M": (8, 512, 8), "L": (12, 768, 12)},
    "base": {"S": (8, 512, 8), "M": (12, 768, 12), "L": (24, 1024, 16)},
}
SERIES = {"clm": ("clm", "CLM"), "hybrid": ("hybrid", "Hybrid 1:1")}


def get_config(size: str = "tiny"):
    tokens, arms = _common.sized(size, TOKENS), {}
    for series, (config, label) in SERIES.items():
        for name, (layers, width, heads) in SIZES[size].items():
            for times in TIMES:
                about = (
                    f"{label}, {layers} layers of width {width}, {_short(times * tokens)} tokens"
                )
                arm = _common.arm(
                    config,
                    size,
                    f"{label} {name} {_short(times * tokens)}",
                    about,
                    series=label,
                    times=times,
                )
                arm["run"].model.update(
                    layers=layers, width=width, heads=heads, feedforward=4 * width
                )
                arms[f"{series}_{name.lower()}_{times}"] = arm
    return _common.experiment(
        "scaling", size, "What does the masked half of a hybrid cost a causal reader, and does size or text make it vanish?", arms,
        ("tokens", tokens), ("causal",), (), reference="clm_l_16", seeds=(0,), tuned=False,
        scaling={"task": "causal", "metric": "nll"},
    )  # fmt: skip


def _short(tokens: int) -> str:
    return f"{tokens / 1e9:g} B" if tokens >= 1e9 else f"{tokens / 1e6:g} M"
