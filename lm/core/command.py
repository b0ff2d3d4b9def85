"""Shared by all commands: the flags --config and --set, and error messages without tracebacks."""

import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from lm.core.plain import typed
from lm.core.plugins import UserError


def config_flag(default: str | None = None, required: bool = True) -> flags.FlagHolder[Any]:
    """Defines the flag --config=FILE:SIZE, and --config.section.field=value for each field.

    Args:
      default: the config file to use if the flag is not given.
      required: whether the flag must be given; ignored if there is a default.
    """
    help_ = (
        "config file, with the size after a colon: configs/mlm.py:tiny; override any field with"
        " --config.section.field=value"
    )
    holder = config_flags.DEFINE_config_file("config", default, help_, lock_config=True)
    if required and default is None:
        flags.mark_flag_as_required("config")
    return holder


def set_flag() -> flags.FlagHolder[Any]:
    """Defines the flag --set=TASK.OPTION=VALUE; `task_options` parses its values."""
    return flags.DEFINE_multi_string(
        "set", [], "option of a task, TASK.OPTION=VALUE; repeat the flag for more options"
    )


def task_options(given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parses the values of --set.

    Args:
      given: values of the flag, such as "minimal_pairs.path=a.jsonl".

    Returns:
      {task: {option: value}}.

    Raises:
      UserError: a value does not have the form TASK.OPTION=VALUE.
    """
    options: dict[str, dict[str, Any]] = {}
    for option in given:
        path, equals, text = option.partition("=")
        name, dot, field = path.partition(".")
        if not (equals and dot and name and field):
            raise UserError(
                f"--set={option!r} should be TASK.OPTION=VALUE, such as --set=causal.tokens=65536"
            )
        options.setdefault(name, {})[field] = typed(text)
    return options


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, runs a command and exits.

    The exit status is the value that `main` returns (0 for None), 2 after a UserError or an invalid
    flag, 130 after Ctrl-C, and 1 after any other exception. The message of a UserError or of an
    invalid flag is printed without a traceback. --help prints the
    docstring of the command's module.

    Args:
      main: function that runs the command and returns its exit status.
    """

    def guarded(arguments: list[str]) -> int | None:
        if len(arguments) > 1:
            print(
                f"error: {' '.join(arguments[1:])!r} is not a flag; flags begin with -- and take"
                " their value after =",
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
    """Hides what follows a failed checkpoint: since its event loop is closed, orbax prints a
    traceback for each pending array, before the error that matters."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _parse(arguments: list[str]) -> list[str]:
    """Parses flags; an error names the wrong flag, file or field, without a traceback."""
    try:
        rest = flags.FLAGS(arguments)
        if "config" in flags.FLAGS:
            # A missing config file raises only when the config is accessed.
            hasattr(flags.FLAGS["config"].value, "keys")
        return rest
    except flags.Error as error:
        message = _flag_error(str(error))
    except (KeyError, AttributeError) as error:
        # ml_collections quotes the name twice: "'\\'wdith\\'\\nDid you mean …".
        field, _, advice = re.sub(r"['\\]", "", str(error.args[0]).replace("\\n", "\n")).partition(
            "\n"
        )
        message = (
            f"unknown config field {field!r}{' ' * bool(advice)}{advice} (fields are given as"
            " --config.section.field=value)"
        )
    except OSError as error:
        message = f"the config file cannot be loaded: {str(error).strip().splitlines()[-1].strip()}"
    except (ValueError, TypeError, ImportError) as error:
        message = str(error)
    print(f"error: {message}; see --help", file=sys.stderr)
    sys.exit(2)


def _flag_error(text: str) -> str:
    """Shortens the message of a flag error to what the user needs."""
    missing = re.fullmatch(
        r"flag --(\w+)=None: Flag --\w+ must have a value other than None\.", text
    )
    if missing:
        return f"--{missing[1]} is missing"
    *_, last = text.strip().splitlines()
    kind, _, message = last.strip().partition(": ")
    # A size or value that is invalid in the config file. Other errors keep their traceback.
    return message if kind in ("ValueError", "lm.core.plugins.UserError") else text
