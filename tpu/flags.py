"""Compiler options given by the user over those of the generation (lm/parallel/chips.py)."""

from collections.abc import Sequence

from lm.core.plugins import UserError
from lm.parallel import chips


def options(generation: str, given: Sequence[str] = ()) -> dict[str, str]:
    """The generation's options with the user's over them.

    Args:
      given: "name=value" each; an empty value takes the option away.

    Raises:
      UserError: one has no "=".
    """
    merged = dict(chips.COMPILER_OPTIONS[generation])
    for each in given:
        name, equals, value = each.strip().lstrip("-").partition("=")
        if not equals or not name:
            raise UserError(
                f"--flag={each!r} should be name=value, as --flag=xla_tpu_scoped_vmem_limit_kib=98304 (an empty value removes it)"
            )
        merged.pop(name, None)
        if value:
            merged[name] = value
    return merged
