"""Compiler options of the TPU generation (lm/parallel/chips.py), overridden by the user's."""

from collections.abc import Sequence

from lm.core.plugins import UserError
from lm.parallel import chips


def options(generation: str, given: Sequence[str] = ()) -> dict[str, str]:
    """Returns the generation's options, overridden by the user's.

    Args:
      generation: a key of chips.COMPILER_OPTIONS.
      given: the user's options, "name=value"; an empty value removes the option.

    Raises:
      UserError: an option has no "=".
    """
    merged = dict(chips.COMPILER_OPTIONS[generation])
    for option in given:
        name, equals, value = option.strip().lstrip("-").partition("=")
        if not equals or not name:
            raise UserError(
                f"--flag={option!r} should be name=value, for example"
                " --flag=xla_tpu_scoped_vmem_limit_kib=98304 (an empty value removes it)"
            )
        merged.pop(name, None)
        if value:
            merged[name] = value
    return merged
