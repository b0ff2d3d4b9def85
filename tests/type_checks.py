"""The type checker of the tests: beartype, as a decorator for jaxtyping's import hook."""

from collections.abc import Callable
from typing import Any

import beartype
import numpy as np

# As type checkers read annotations: an int is accepted as a float (PEP 484), and NumPy's scalars as
# Python's.
_CONFIG = beartype.BeartypeConf(
    hint_overrides=beartype.FrozenDict(
        {int: int | np.integer, float: float | int | np.floating | np.integer}
    )
)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks arguments and results of a function against its annotations in each call."""
    return beartype.beartype(conf=_CONFIG)(function)
