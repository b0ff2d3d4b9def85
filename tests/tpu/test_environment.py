"""Errors when the TPU compiler is missing or has the wrong version."""

import pytest

from lm.core.plugins import UserError
from tpu import environment


def test_versions_that_fit():
    environment.check("0.10.2", "0.0.42.1", "0.0.42.*")
    environment.check("0.10.2", "0.0.42", "0.0.42.*")
    environment.check("0.10.2", "0.0.42.1", None)


@pytest.mark.parametrize(
    ("libtpu", "required", "message"),
    [
        (None, "0.0.42.*", "not installed"),
        ("0.0.41", "0.0.42.*", "requires libtpu 0.0.42"),
        ("0.0.420", "0.0.42.*", "0.0.420 does not work"),
    ],
)
def test_versions_that_do_not_fit(libtpu, required, message):
    with pytest.raises(UserError, match=message) as error:
        environment.check("0.10.2", libtpu, required)
    assert "pip install -e '.[tpu]' -c constraints.txt" in str(error.value)
