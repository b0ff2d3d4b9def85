"""What every command shares: the config flag, and errors that a user can read."""

import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from lm.core.plain import typed
from lm.core.plugins import UserError


def config_flag(default: str | None = None, required: bool = True):
    """Defines --config=FILE:SIZE, whose every field can be overridden as --config.section.field=value."""
    help_ = "a config file, its size after a colon: configs/mlm.py:tiny; override any field by --config.section.field=value"
    holder = config_flags.DEFINE_config_file("config", default, help_, lock_config=True)
    if required and default is None:
        flags.mark_flag_as_required("config")
    return holder


def set_flag():
    """Defines --set=TASK.OPTION=VALUE, to be read by `task_options`."""
    return flags.DEFINE_multi_string(
        "set", [], "an option of a task, TASK.OPTION=VALUE; may be given again and again"
    )


def task_options(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Options of tasks as they are typed, "minimal_pairs.path=a.jsonl" each, by the task's name.

    Raises:
      UserError: one of them has another form.
    """
    options: dict[str, dict[str, Any]] = {}
    for each in given:
        path, equals, text = each.partition("=")
        name, dot, field = path.partition(".")
        if not (equals and dot and name and field):
            raise UserError(
                f"--set={each!r} should be TASK.OPTION=VALUE, as --set=causal.tokens=65536"
            )
        options.setdefault(name, {})[field] = typed(text)
    return options


def run(main: Callable[[], int | None], doc: str) -> None:
    """Parses flags and runs `main`; a UserError is printed without a traceback and exits with 2."""

    def guarded(arguments: list[str]) -> int | None:
        if len(arguments) > 1:
            print(
                f"error: {' '.join(arguments[1:])!r} is not a flag; flags begin with -- and take their value after =",
                file=sys.stderr,
            )
            return 2
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            return main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    sys.unraisablehook = _unraisable
    try:
        app.run(guarded, flags_parser=_parse)
    except KeyboardInterrupt:
        sys.exit(130)


def _unraisable(unraisable: Any) -> None:
    """Leaves out what follows when a checkpoint cannot be read or written: orbax has closed its event loop, and every other array
    on its way prints a traceback about that, before the error that says what is wrong."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _parse(arguments: list[str]) -> list[str]:
    """Flag parsing whose errors name what is wrong with a config file or a field, without a traceback."""
    try:
        rest = flags.FLAGS(arguments)
        if "config" in flags.FLAGS:
            hasattr(
                flags.FLAGS["config"].value, "keys"
            )  # a config file that is not there raises only when it is looked into
        return rest
    except flags.Error as error:
        told = _flag_error(str(error))
    except (KeyError, AttributeError) as error:
        # ml_collections quotes what it has quoted already: "'\\'wdith\\'\\nDid you mean …".
        field, _, advice = re.sub(r"['\\]", "", str(error.args[0]).replace("\\n", "\n")).partition(
            "\n"
        )
        told = f"unknown config field {field!r}{' ' * bool(advice)}{advice} (fields are given as --config.section.field=value)"
    except OSError as error:
        told = f"the config file cannot be loaded: {str(error).strip().splitlines()[-1].strip()}"
    except (ValueError, TypeError, ImportError) as error:
        told = str(error)
    print(f"error: {told}; --help shows how this command is used", file=sys.stderr)
    sys.exit(2)


def _flag_error(text: str) -> str:
    """A flag error without what only a programmer wants to know."""
    missing = re.fullmatch(
        r"flag --(\w+)=None: Flag --\w+ must have a value other than None\.", text
    )
    if missing:
        return f"--{missing[1]} is missing"
    *_, last = text.strip().splitlines()
    kind, _, said = last.strip().partition(": ")
    # A size or value that the config file refuses; any other error in a config file is shown with its traceback.
    return said if kind in ("ValueError", "lm.core.plugins.UserError") else text
