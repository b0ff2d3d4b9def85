"""What is said where the TPU compiler is missing or does not fit."""

import pytest

from lm.core.plugins import UserError
from tpu import environment


def test_what_fits():
    environment.check("0.10.2", "0.0.42.1", "0.0.42.*")
    environment.check("0.10.2", "0.0.42", "0.0.42.*")
    environment.check("0.10.2", "0.0.42.1", None)


@pytest.mark.parametrize(
    ("libtpu", "wanted", "said"),
    [
        (None, "0.0.42.*", "not installed"),
        ("0.0.41", "0.0.42.*", "wants libtpu 0.0.42"),
        ("0.0.420", "0.0.42.*", "0.0.420 does not go"),
    ],
)
def test_what_does_not(libtpu, wanted, said):
    with pytest.raises(UserError, match=said) as error:
        environment.check("0.10.2", libtpu, wanted)
    assert "pip install -e '.[tpu]' -c constraints.txt" in str(error.value)
