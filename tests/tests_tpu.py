"""A fixture for tests that compile for TPUs."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def needs_compiler() -> Iterator[None]:
    """Skips the test if the TPU compiler is not installed; otherwise sets its environment up."""
    from lm.core.plugins import UserError
    from tpu import environment

    with pytest.MonkeyPatch.context() as patch:
        try:
            environment.check_installed()
        except UserError as error:
            pytest.skip(str(error))
        for name, value in environment.VARIABLES.items():
            patch.setenv(name, value)
        yield
