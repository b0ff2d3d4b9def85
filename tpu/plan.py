"""Finds mesh, rematerialization and microbatches of a config on TPU slices, without a TPU.

The TPU compiler measures the candidates.

python -m tpu.plan --config=configs/llama.py:base --tpu=v5e-16,v6e-16 [--global_batch=256]
    [--top=5] [--workdir=runs/plan]

Prints the best plans that fit, and their flags to paste. The workdir keeps what was compiled: the
same command resumes after an interruption.
Exit status: 0; 1 if nothing fits a slice; 2 for a mistake in the arguments.
"""

import json
import sys

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_TPU = flags.DEFINE_list(
    "tpu",
    None,
    "slices: v4-32, v5e-16, v5p-8, v6e-256, tpu7x-8, 2xv5e-256, … (comma-separated)",
    required=True,
)
_BATCH = flags.DEFINE_integer(
    "global_batch",
    0,
    "rows per step over all chips; default: the config's training.batch_size",
    lower_bound=0,
)
_TOP = flags.DEFINE_integer("top", 5, "how many plans to find for each slice", lower_bound=1)
_MOST = flags.DEFINE_integer(
    "most", 40, "maximum number of programs to compile for each slice", lower_bound=1
)
_REMAT = flags.DEFINE_list(
    "remat",
    [],
    "rematerialization policies to try; default: all (config.model.remat)",
)
_CHUNKS = flags.DEFINE_list(
    "head_chunks", [], "values of config.model.head_chunks to try; default: the config's own"
)
_PRICE = flags.DEFINE_list(
    "price", [], "USD per chip-hour, for example v5e=1.2,v6e=2.7, in place of the list prices"
)
_FLAG = flags.DEFINE_multi_string(
    "flag",
    [],
    "a compiler option, name=value; overrides the generation's own, and an empty value removes it",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "runs/plan", "directory of compiled records; an empty value keeps none"
)
_JSON = flags.DEFINE_string(
    "json",
    "",
    "print JSON instead of tables; with a value, write it to this file in addition to the tables",
)


def main() -> int:
    from lm.core.plain import plain
    from lm.core.plugins import UserError, choice
    from lm.nn.config import TransformerConfig
    from tpu import environment

    environment.prepare()
    environment.silence_stderr()

    from tpu import cache, measure, prices, search, slices, tables

    targets = slices.parse_all(_TPU.value)
    price = prices.table(_PRICE.value)
    config = plain(_CONFIG.value)
    config["training"]["batch_size"] = _BATCH.value or config["training"]["batch_size"]
    given = [f"--config.training.batch_size={_BATCH.value}"] * bool(_BATCH.value) + [
        argument for argument in sys.argv[1:] if argument.startswith("--config.")
    ]
    # The rooflines omit the link to the host, so offloading would look free.
    remats = _REMAT.value or [
        name for name in TransformerConfig.CHOICES["remat"] if name != "offload"
    ]
    try:
        for remat in remats:
            choice("--remat", remat, TransformerConfig.CHOICES["remat"])
        chunks = [int(value) for value in _CHUNKS.value] or [int(config["model"]["head_chunks"])]
    except ValueError as error:
        raise UserError(str(error)) from None
    records = cache.Cache(_WORKDIR.value or None)
    results = []
    for tpu in targets:
        options = measure.options(tpu, _FLAG.value)
        planner = search.Search(config, tpu, options, records)
        with tables.progress(f"{tpu.name}: compiling", _MOST.value) as report:
            planner.run(remats, chunks, _TOP.value, _MOST.value, report)
        results.append(
            {
                "tpu": tpu.name, "chips": tpu.chips, "compiled": planner.compiled,
                "settled": planner.complete, "left": planner.remaining,
                "price": price[tpu.generation],
                "global_batch": config["training"]["batch_size"],
                "dtype": config["model"]["dtype"],
                "plans": [
                    {
                        "flags": search.merge_flags(given, plan.flags(config)), **record,
                        "usd_per_billion_tokens": prices.per_billion(
                            record["tokens_per_second_per_chip"], price[tpu.generation]
                        ),
                    }
                    for _, plan, record in planner.results[: _TOP.value]
                ],
            }
        )  # fmt: skip
        if _JSON.value != "-":
            tables.print_plans(results[-1], prices.SOURCE)
    text = json.dumps(results if len(results) > 1 else results[0], indent=1, ensure_ascii=False)
    if _JSON.value == "-":
        print(text)
    elif _JSON.value:
        tables.write(_JSON.value, text)
    return 0 if all(result["plans"] for result in results) else 1


if __name__ == "__main__":
    # An absl flag takes a value; --json alone means the standard output.
    sys.argv = ["--json=-" if argument == "--json" else argument for argument in sys.argv]
    command.run(main)
