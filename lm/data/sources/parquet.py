"""Parquet files with a column of texts, or of lists of texts (paragraphs), read by row groups."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from lm.core.plugins import UserError
from lm.data import files
from lm.data.documents import Collector, Document, Tally
from lm.data.documents import signature as identity

_SUFFIXES = (".parquet",)
_ROWS = 1024  # number of rows read at once


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      path: files, directories or globs.
      field: the column of the text; "" means the first of "text", "paragraphs" and "content"
        that exists.
    """

    path: tuple[str, ...] = ()
    field: str = ""


def documents(config: Config, tally: Tally) -> Iterator[Document]:
    """Yields one document per row.

    Raises:
      UserError: a path matches nothing, a file is not Parquet, or it lacks the column of texts.
    """
    return _documents(files.find(config.path, _SUFFIXES, "parquet"), config.field, tally)


def signature(config: Config) -> str:
    """An identity of the field, and of the names, sizes and times of the files."""
    matches = files.find(config.path, _SUFFIXES, "parquet")
    return identity(config.field, files.identity(matches), code=(__file__, files.__file__))


def _documents(matches: list[tuple[str, str]], wanted: str, tally: Tally) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    collector = Collector(tally)
    for path, name in matches:
        number = 0
        try:
            with pyarrow.parquet.ParquetFile(path) as table:
                field = files.pick_field(wanted, table.schema_arrow.names, path)
                kind = table.schema_arrow.field(field).type
                if not _is_text(kind):
                    raise UserError(
                        f"{path}: data.field={field!r} is of type {kind}, and should be text or"
                        " lists of text"
                    )
                for batch in table.iter_batches(_ROWS, columns=[field]):
                    for value in batch.column(0).to_pylist():
                        number += 1
                        paragraphs = files.paragraphs_of(value)
                        if paragraphs is None:
                            tally.drop("rows without text")
                        else:
                            yield from collector.collect(f"{name}#{number}", paragraphs)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(
                f"{path} cannot be read as Parquet, after {number} rows: {error}"
            ) from error
        tally.drop("empty files", number == 0)


def _is_text(kind: Any) -> bool:
    """Whether a pyarrow.DataType is text or lists of text. The module does not import pyarrow."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
