"""What tests that compile for TPUs share."""

import pytest


@pytest.fixture(scope="module")
def needs_compiler():
    """Skips where the TPU compiler is not installed; else prepares it."""
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
