import dataclasses
import types
from typing import Any

import pytest
from ml_collections import ConfigDict

from lm.core import plugins
from lm.core.plugins import UserError


def test_names_are_files():
    assert {"clm", "mlm", "mlm_nsp", "nsp"} <= set(plugins.names("objectives"))
    assert {"jsonl", "python_docs", "text"} <= set(plugins.names("data.sources"))
    assert plugins.names("objectives") == sorted(plugins.names("objectives"))


def test_helper_modules_are_no_plug_ins():
    assert "_groups" not in plugins.names("optimizers") and "adamw" in plugins.names("optimizers")
    assert "mask" not in plugins.names("nn.attention") and "reference" in plugins.names(
        "nn.attention"
    )


def test_find():
    assert isinstance(plugins.find("models", "decoder"), types.ModuleType)
    assert plugins.find("data.sources", "text").__name__ == "lm.data.sources.text"


@pytest.mark.parametrize(
    ("room", "name", "message"),
    [
        (
            "objectives",
            "clmm",
            r"no objectives plug-in is called 'clmm' \(did you mean 'clm'\?\); there are: ",
        ),
        ("objectives", "zzz", r"no objectives plug-in is called 'zzz'; there are: "),
        (
            "data.sources",
            "parket",
            r"no sources plug-in is called 'parket' \(did you mean 'parquet'\?\)",
        ),
        ("optimizers", "_groups", "no optimizers plug-in"),
        ("objectives", "", "no objectives plug-in is called ''"),
    ],
)
def test_an_unknown_name_lists_the_valid_ones(room, name, message):
    with pytest.raises(UserError, match=message):
        plugins.find(room, name)


@dataclasses.dataclass(frozen=True)
class Config:
    count: int = 3
    rate: float = 0.5
    name: str = "default"
    on: bool = False
    paths: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1,)
    maybe: int | None = None
    anything: Any = 0

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count={self.count} must not be negative")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, {}),
        (
            {"count": 4, "rate": 0.1, "name": "x", "on": True},
            {"count": 4, "rate": 0.1, "name": "x", "on": True},
        ),
        ({"count": None, "name": "", "rate": None, "unknown": "", "other": None}, {}),  # not set
        ({"rate": 1}, {"rate": 1.0}),
        ({"count": 4.0}, {"count": 4}),
        ({"paths": "a, b,,c"}, {"paths": ("a", "b", "c")}),
        ({"paths": ["a", "b"]}, {"paths": ("a", "b")}),
        ({"sizes": (2.0, 3)}, {"sizes": (2, 3)}),
        ({"maybe": 5}, {"maybe": 5}),
        ({"anything": [1]}, {"anything": [1]}),
        (
            {"count": 0, "on": False, "rate": 0.0},
            {"count": 0, "on": False, "rate": 0.0},
        ),  # set, though false
    ],
)
def test_configure(section, expected):
    for given in (section, ConfigDict(section)):
        made = plugins.configure(Config, given, "config.x")
        assert made == Config(**expected)
    assert type(made.rate) is float and type(made.count) is int


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"cuont": 1},
            r"config\.x\.cuont=1 is not known \(did you mean 'count'\?\); config\.x takes: count, ",
        ),
        ({"zzz": 0}, r"config\.x\.zzz=0 is not known; config\.x takes"),
        ({"count": 1.5}, r"config\.x\.count=1\.5 should be int, not float"),
        ({"count": "4"}, r"config\.x\.count='4' should be int, not str"),
        ({"count": True}, r"config\.x\.count=True should be int, not bool"),
        ({"rate": True}, r"config\.x\.rate=True should be float, not bool"),
        ({"rate": "0.1"}, r"config\.x\.rate='0\.1' should be float"),
        ({"on": 1}, r"config\.x\.on=1 should be bool, not int"),
        ({"name": 3}, r"config\.x\.name=3 should be str, not int"),
        ({"paths": 3}, r"config\.x\.paths=3 should be a list"),
        ({"sizes": "a,b"}, r"config\.x\.sizes='a' should be int"),
        ({"maybe": "x"}, r"config\.x\.maybe='x' should be int"),
        ({"count": -1}, r"config\.x: count=-1 must not be negative"),
    ],
)
def test_a_wrong_value_is_refused(section, message):
    with pytest.raises(UserError, match=message):
        plugins.configure(Config, section, "config.x")


def test_skipped_keys_are_ignored():
    assert plugins.configure(
        Config, {"count": 1, "theirs": 2}, "config.x", skip=("theirs",)
    ) == Config(count=1)


def test_fields_without_a_default_are_required():
    @dataclasses.dataclass(frozen=True)
    class Needy:
        path: str
        count: int
        parts: list = dataclasses.field(default_factory=list)

    with pytest.raises(UserError, match="config.data needs a value for: path, count"):
        plugins.configure(Needy, {"path": ""}, "config.data")


def test_defaults():
    @dataclasses.dataclass(frozen=True)
    class Options:
        path: str
        count: int = 3
        parts: list = dataclasses.field(default_factory=list)

    assert plugins.defaults(Options) == {"path": None, "count": 3, "parts": []}
    defaults = plugins.defaults(Config)
    assert plugins.configure(Config, defaults, "config.x") == Config()


def test_a_user_error_of_the_dataclass_is_not_wrapped():
    @dataclasses.dataclass(frozen=True)
    class Strict:
        count: int = 0

        def __post_init__(self):
            raise UserError("as it is")

    with pytest.raises(UserError, match="^as it is$"):
        plugins.configure(Strict, {}, "config.x")
