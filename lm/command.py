"""What every command shares: the config flag, and errors that a user can read."""

import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from lm.lookup import UserError


def config_flag(default: str | None = None, required: bool = True):
    """Defines --config=FILE:SIZE, whose every field can be overridden as --config.section.field=value."""
    help_ = "a config file, its size after a colon: configs/mlm.py:tiny; override any field by --config.section.field=value"
    holder = config_flags.DEFINE_config_file("config", default, help_, lock_config=True)
    if required and default is None:
        flags.mark_flag_as_required("config")
    return holder


def run(main: Callable[[], int | None], doc: str) -> None:
    """Parses flags and runs `main`; a UserError is printed without a traceback and exits with 2."""

    def guarded(arguments: list[str]) -> int | None:
        if len(arguments) > 1:
            print(f"error: {' '.join(arguments[1:])!r} is not a flag; flags begin with -- and take their value after =", file=sys.stderr)
            return 2
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            return main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    try:
        app.run(guarded, flags_parser=_parse)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse(arguments: list[str]) -> list[str]:
    """Flag parsing whose errors name what is wrong with a config file or a field, without a traceback."""
    try:
        return app.parse_flags_with_usage(arguments)
    except (AttributeError, KeyError, ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {str(error).strip(chr(34))}", file=sys.stderr)
        sys.exit(2)
