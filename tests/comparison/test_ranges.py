"""Lists and ranges of --sweep.FIELD."""

import math
import random
from collections import Counter

import pytest

from lm import sweep
from lm.comparison import ranges
from lm.core.plugins import UserError

CONFIG = {
    "seed": 0,
    "optimizer": {"learning_rate": 1e-3, "b1": None, "name": "adamw"},
    "model": {"layers": 2, "scan": False},
}


@pytest.mark.parametrize(
    ("field", "text", "values"),
    [
        ("optimizer.learning_rate", "1e-4,3e-4,1", (1e-4, 3e-4, 1.0)),
        ("optimizer.learning_rate", "log(1e-4,1e-2,3)", (1e-4, 1e-3, 1e-2)),
        ("optimizer.b1", "lin(0,1,5)", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("model.layers", "int(2,8,3)", (2, 5, 8)),
        ("model.layers", "1,2", (1, 2)),
        ("model.scan", "True,False", (True, False)),
        ("optimizer.name", "adamw,muon", ("adamw", "muon")),
    ],
)
def test_values_have_the_type_of_the_field(field, text, values):
    parsed = ranges.fields({field: text}, CONFIG)[field].values
    assert parsed == values and list(map(type, parsed)) == list(map(type, values))


MISTAKES = {
    (
        "optimizer.lerning_rate",
        "1",
    ): "the config has no field 'optimizer.lerning_rate'; did you mean 'optimizer.learning_rate'",
    ("optimizer.learning_rate", "fast"): "'fast' should be float, as in the config",
    ("model.layers", "1.5,2"): "1.5 should be int",
    ("model.layers", "log(1,8,3)"): "model.layers is a whole number",
    ("model.scan", "1,0"): "1 should be bool",
    ("optimizer.learning_rate", "log(0,1,3)"): "FROM must be below TO and above 0",
    ("optimizer.learning_rate", "lin(1,0,3)"): "FROM must be below TO",
    ("optimizer.learning_rate", "lin(0,1,1)"): "POINTS must be a whole number from 2",
    ("optimizer.learning_rate", "log(1,2,3,4)"): r"should be log\(FROM,TO,POINTS\)",
    ("optimizer.learning_rate", "1,1.0"): "names a value twice",
}


@pytest.mark.parametrize(("field", "text"), MISTAKES)
def test_mistakes(field, text):
    with pytest.raises(UserError, match=MISTAKES[field, text]):
        ranges.fields({field: text}, CONFIG)


def test_a_grid_is_the_product_and_needs_points():
    swept = ranges.fields(
        {"optimizer.learning_rate": "1e-3,1e-2", "model.layers": "int(1,3)"}, CONFIG
    )
    combinations = ranges.grid(swept)
    assert len(combinations) == 6 and combinations[1] == {
        "optimizer.learning_rate": 1e-3,
        "model.layers": 2,
    }
    with pytest.raises(
        UserError,
        match=r"log\(1e-4,1e-2\) has no number of points for a grid; give log\(1e-4,1e-2,8\), or"
        " --sampler=random",
    ):
        ranges.grid(ranges.fields({"optimizer.learning_rate": "log(1e-4,1e-2)"}, CONFIG))


def test_draws_have_the_distribution_of_the_range_and_do_not_depend_on_the_count():
    swept = ranges.fields(
        {"optimizer.learning_rate": "log(1e-4,1e-2)", "model.layers": "int(1,2)"}, CONFIG
    )
    drawn = ranges.sample(swept, 4000, 3)
    assert drawn[:10] == ranges.sample(swept, 10, 3) != ranges.sample(swept, 10, 4)
    rates = [values["optimizer.learning_rate"] for values in drawn]
    assert min(rates) >= 1e-4 and max(rates) <= 1e-2
    # Log-uniform: half are below the geometric mean, and the mean is (b - a) / ln(b / a).
    assert abs(sum(rate < 1e-3 for rate in rates) / 4000 - 0.5) < 0.04
    assert math.isclose(sum(rates) / 4000, 9.9e-3 / math.log(100), rel_tol=0.06)
    assert abs(Counter(values["model.layers"] for values in drawn)[1] - 2000) < 160
    uniform = ranges.parse("b", "lin(0,1)", None)
    assert abs(sum(uniform.draw(random.Random(seed)) for seed in range(2000)) / 2000 - 0.5) < 0.03


def test_swept_fields_are_separated_from_the_arguments():
    rest, swept = sweep.split(
        ["x", "--config=a", "--sweep.model.layers=1,2", "-sweep.seed=0", "--sweep"]
    )
    assert rest == ["x", "--config=a", "--sweep"] and swept == {"model.layers": "1,2", "seed": "0"}
