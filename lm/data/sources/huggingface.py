"""A dataset of the Hugging Face hub, streamed by the optional package `datasets`.

No code of a dataset is run.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from lm.core.plugins import UserError
from lm.data import files
from lm.data.documents import Collector, Document, Tally
from lm.data.documents import signature as identity


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      name: the dataset's name on the hub.
      subset: name of the configuration of a dataset that has several.
      field: the field of the text, or of a list of texts (paragraphs); "" means the first of
        "text", "paragraphs" and "content" that the first record has.
      split: split of the dataset to read. Its documents are split again into training, validation
        and test.
      limit: maximum number of records to read, in the dataset's order; 0 means all.
    """

    name: str = ""
    subset: str = ""
    field: str = ""
    split: str = "train"
    limit: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"limit={self.limit} should be a number of records, or 0 for all")


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """Yields one document per record.

    Raises:
      UserError: `datasets` is not installed, or the dataset cannot be opened or lacks the
        field.
    """
    return _documents(config, _open(config), tally)


def signature(config: Config) -> str:
    """An identity of the options. Changes of the dataset on the hub go unnoticed."""
    if not config.name:
        raise UserError(_NO_NAME)
    return identity(dataclasses.astuple(config), code=(__file__, files.__file__))


_NO_NAME = (
    "data.source=huggingface needs data.name: a dataset's name on the hub, such as 'wikitext' (with"
    " data.subset=wikitext-2-raw-v1)"
)


def _open(config: Config) -> Iterable[dict[str, Any]]:
    if not config.name:
        raise UserError(_NO_NAME)
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "data.source=huggingface needs a package that is not installed:"
            " pip install -e '.[huggingface]'"
        ) from error
    try:
        return datasets.load_dataset(
            config.name, config.subset or None, split=config.split, streaming=True
        )
    except Exception as error:  # of the network, or of a wrong name
        raise UserError(_problem(config, error)) from error


def _problem(config: Config, error: Exception) -> str:
    return (
        f"the dataset name={config.name!r} subset={config.subset!r} split={config.split!r}"
        f" cannot be read: {type(error).__name__}: {error}. Check data.name, data.subset,"
        " data.split and the network"
    )


def _documents(
    config: Config, records: Iterable[dict[str, Any]], tally: Tally
) -> Iterator[Document]:
    collector = Collector(tally)
    field = ""
    for number, record in enumerate(_read(config, records), start=1):
        field = field or files.pick_field(config.field, record, f"the dataset {config.name!r}")
        paragraphs = files.paragraphs_of(record.get(field))
        if paragraphs is None:
            tally.drop("records without text")
        else:
            yield from collector.collect(f"{config.name}#{number}", paragraphs)
        if number == config.limit:
            return


def _read(config: Config, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from records
    except Exception as error:
        raise UserError(_problem(config, error)) from error
