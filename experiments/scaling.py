"""What does the masked half of a hybrid cost in causal prediction, and does size or text remove it?

  python -m lm.compare --config=experiments/scaling.py:tiny --workdir=runs/scaling

Two series, CLM and GPT-BERT's hybrid 1:1 (Charpentier and Samuel 2024), at three sizes × three
numbers of tokens. One seed, so no hypotheses. The report fits L = E + A/N^α + B/D^β to each series
(Hoffmann et al. 2022) and gives the FLOPs at which they cross. All sizes use the recipe's learning
rate, and every run has the full schedule.

tiny: 18 runs, 2 CPU cores, 9 minutes; results in scaling/README.md.
small (one GPU, or four TPU chips) and base (a slice): experiments/_common.py; not run yet.
"""

from ml_collections import ConfigDict

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


def get_config(size: str = "tiny") -> ConfigDict:
    tokens, arms = _common.at_size(size, TOKENS), {}
    for series, (config, label) in SERIES.items():
        for name, (layers, width, heads) in SIZES[size].items():
            for times in TIMES:
                describe = (
                    f"{label}, {layers} layers of width {width}, {_short(times * tokens)} tokens"
                )
                arm = _common.arm(
                    config,
                    size,
                    f"{label} {name} {_short(times * tokens)}",
                    describe,
                    series=label,
                    times=times,
                )
                arm["run"].model.update(
                    layers=layers, width=width, heads=heads, feedforward=4 * width
                )
                arms[f"{series}_{name.lower()}_{times}"] = arm
    return _common.experiment(
        "scaling",
        size,
        "What does the masked half of a hybrid cost in causal prediction, and does size or text"
        " remove that cost?",
        arms,
        ("tokens", tokens),
        ("causal",),
        (),
        reference="clm_l_16",
        seeds=(0,),
        tuned=False,
        scaling={"task": "causal", "metric": "nll"},
    )


def _short(tokens: int) -> str:
    return f"{tokens / 1e9:g} B" if tokens >= 1e9 else f"{tokens / 1e6:g} M"
