"""Compiler options of each TPU generation, given with each compile and never through the environment.

Few by intent: each option below is there for a reason that was measured, and some that are not (SparseCore offloads) gave wrong losses.
"""

from collections.abc import Mapping, Sequence

from lm.lookup import UserError

_ALL = {
    "xla_tpu_enable_latency_hiding_scheduler": "true",
    # Rolled loops of partial products in place of one gather and one product: 1.6 (v5p) to 2.3 times (v5e) the cycles of a 1B step.
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
}
OPTIONS: dict[str, dict[str, str]] = {
    "v2": _ALL,
    "v3": _ALL,
    "v4": {**_ALL, "xla_enable_async_all_gather": "true", "xla_enable_async_collective_permute": "true"},
    "v5e": _ALL,
    "v5p": {**_ALL, "xla_enable_async_all_gather": "true", "xla_enable_async_collective_permute": "true"},
    "v6e": _ALL,
    "tpu7x": _ALL,
}


def options(generation: str, given: Sequence[str] = ()) -> dict[str, str]:
    """The generation's options with the user's over them.

    Args:
      given: "name=value" each; an empty value takes the option away.

    Raises:
      UserError: one has no "=".
    """
    merged = dict(OPTIONS[generation])
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


def line(chosen: Mapping[str, str]) -> str:
    """The options in one line, as LIBTPU_INIT_ARGS takes them on a real slice."""
    return " ".join(f"--{name}={value}" for name, value in chosen.items())
