"""Compiles a config's train step for TPU slices, without a TPU: memory, collectives, roofline.

python -m tpu.aot --config=configs/clm.py:base --tpu=v5e-16,v6e-16 [--json[=FILE]]
    [--config.mesh.fsdp=16] [--flag=xla_option=value]

Exit status: 0; 1 if the step does not fit one of the slices; 2 for a mistake in the arguments.
"""

import json
import sys
import time

from absl import flags

from lm.core import command

_CONFIG = command.config_flag()
_TPU = flags.DEFINE_list(
    "tpu",
    None,
    "slices: v4-32, v5e-16, v5p-8, v6e-256, tpu7x-8, 2xv5e-256, … (comma-separated)",
    required=True,
)
_JSON = flags.DEFINE_string(
    "json",
    "",
    "print JSON instead of tables; with a value, write it to this file in addition to the tables",
)
_FLAG = flags.DEFINE_multi_string(
    "flag",
    [],
    "a compiler option, name=value; overrides the generation's own, and an empty value removes it",
)
_SAVE = flags.DEFINE_string(
    "save",
    "",
    "a file for the compiled HLO; with several slices, each file name gets the slice's name"
    " before its suffix",
)
_UNSCANNED = flags.DEFINE_bool(
    "unscanned",
    False,
    "also compile two small depths without loops, and extrapolate the compiler's own count",
)


def main() -> int:
    from lm.core.plain import plain
    from lm.core.plugins import UserError
    from tpu import environment

    environment.prepare()
    environment.silence_stderr()
    from pathlib import Path

    from tpu import measure, slices, tables

    targets = slices.parse_all(_TPU.value)
    config = plain(_CONFIG.value)
    records, failed = [], False
    for tpu in targets:
        path = Path(_SAVE.value) if _SAVE.value else None
        save = str(
            path.with_name(f"{path.stem}.{tpu.name}{path.suffix}")
            if path and len(targets) > 1
            else path or ""
        )
        options = measure.options(tpu, _FLAG.value)
        start = time.perf_counter()
        try:
            with tables.spinner(f"compiling for {tpu.name}"):
                record = measure.measure(config, tpu, options, costs=_UNSCANNED.value, save=save)
        except UserError as error:
            if len(targets) == 1:
                raise
            record, failed = {"tpu": tpu.name, "error": str(error)}, True
        record["seconds"] = time.perf_counter() - start
        records.append(record)
    if _JSON.value != "-":
        tables.print_records(records, title=config)
    if _JSON.value:
        text = json.dumps(records if len(records) > 1 else records[0], indent=1, ensure_ascii=False)
        if _JSON.value == "-":
            print(text)
        else:
            tables.write(_JSON.value, text)
    if failed:
        return 2
    return 0 if all(record["fits"] for record in records) else 1


if __name__ == "__main__":
    # An absl flag takes a value; --json alone means the standard output.
    sys.argv = ["--json=-" if argument == "--json" else argument for argument in sys.argv]
    command.run(main)
