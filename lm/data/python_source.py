"""From Python source files to prose: parses docstrings, and imports or executes nothing.

When run as a module, it is the worker process of `sources/python_docs.py`: it reads file names from
stdin and writes documents to stdout, both as JSON. Parsing is most of the work. The workers are
plain subprocesses, because a fork would copy the threads of jax, and multiprocessing's spawn would
import the user's main module again. They do not import numpy.
"""

import ast
import collections
import gc
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence

from lm.data import docstrings, text

OWN_DOCUMENT = 120  # words from which a class, a method or a function is its own document
SMALL_MODULE = 40  # words up to which a module is joined to other small ones of its directory
MIN_PARAGRAPH = 5  # words
SHORT = f"paragraphs of under {MIN_PARAGRAPH} words"
NO_PROSE = "paragraphs that are no English prose (code, tables, templates, licences)"

TOPICS = "pydoc_data.topics"  # a module with a dict of pages

Named = tuple[str, list[str]]  # name and paragraphs of a document


def read_directory(
    files: Iterable[tuple[str, str]], drops: collections.Counter[str]
) -> Iterator[Named]:
    """Yields the documents of a directory.

    Args:
      files: (path, module name) of each source file.
      drops: counts what is dropped, by reason.
    """
    small: list[str] = []
    package = ""
    for path, module in files:
        try:
            documents = list(read_file(path, module, drops))
        except (SyntaxError, ValueError, RecursionError, OSError):
            drops["files that are not valid Python"] += 1
            continue
        for name, paragraphs in documents:
            if name == module and _words(paragraphs) <= SMALL_MODULE:
                small += paragraphs
                package = package or module.rpartition(".")[0] or "stdlib"
            else:
                yield name, paragraphs
    if small:
        yield f"{package}.*", small


def read_file(path: str, module: str, drops: collections.Counter[str]) -> Iterator[Named]:
    """Yields the documents of a source file: the module, then large classes, methods and functions.

    Args:
      path: path of the file.
      module: name of the module, whose document has all shorter docstrings.
      drops: counts what is dropped, by reason.

    Raises:
      SyntaxError, ValueError: the file is not valid source of this Python version.
    """
    with open(path, "rb") as file:
        source = file.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escape sequences in packages
        tree = ast.parse(source)
    if module == TOPICS:
        yield from _topics(tree, drops)
        return
    large: list[Named] = []
    rest = _prose(_docstring(tree), drops) + _gather(tree.body, module, large, drops)
    yield module, rest
    yield from large


def _gather(
    body: Sequence[ast.stmt], name: str, large: list[Named], drops: collections.Counter[str]
) -> list[str]:
    """Appends large documents to `large`, and returns the paragraphs of the rest."""
    rest: list[str] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{name}.{node.name}"
            paragraphs = _prose(_docstring(node), drops)
            if isinstance(node, ast.ClassDef):
                paragraphs += _gather(node.body, inner, large, drops)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            handlers = [
                statement for handler in getattr(node, "handlers", []) for statement in handler.body
            ]
            rest += _gather(
                [*node.body, *handlers, *getattr(node, "orelse", [])], name, large, drops
            )
            continue
        else:
            inner, docstring = _attached(node, name)
            paragraphs = _prose(docstring, drops) if docstring else []
        if _words(paragraphs) >= OWN_DOCUMENT:
            large.append((inner, paragraphs))
        else:
            rest += paragraphs
    return rest


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return ast.get_docstring(node, clean=False) or ""


def _attached(node: ast.stmt, name: str) -> tuple[str, str]:
    """Name and text of documentation outside its subject.

    numpy's and scipy's `add_newdoc("module", "name", "text")`, and `x.__doc__ = "text"`.
    """
    value = getattr(node, "value", None)
    if isinstance(node, ast.Expr) and isinstance(value, ast.Call):
        called = (
            value.func.attr
            if isinstance(value.func, ast.Attribute)
            else getattr(value.func, "id", "")
        )
        if "add_newdoc" in called:
            parts = [
                part
                for argument in value.args
                for part in (argument.elts if isinstance(argument, ast.Tuple) else [argument])
            ]
            strings = [
                part.value
                for part in parts
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if len(strings) > 1:
                return f"{name}.{strings[-2]}", strings[-1]
    elif (
        isinstance(node, ast.Assign)
        and isinstance(value, ast.Constant)
        and isinstance(value.value, str)
    ):
        target = node.targets[0]
        called = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        if "doc" in called.lower():
            return f"{name}.{ast.unparse(target)}", value.value
    return name, ""


def _topics(tree: ast.Module, drops: collections.Counter[str]) -> Iterator[Named]:
    """Yields the pages of `help()`, which are a dict literal."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, page in ast.literal_eval(node.value).items():
                yield f"topics.{key}", _prose(page, drops)


def _prose(docstring: str, drops: collections.Counter[str]) -> list[str]:
    kept = []
    for paragraph in docstrings.clean(docstring) if docstring else ():
        if paragraph.count(" ") + paragraph.count("\n") + 1 < MIN_PARAGRAPH:
            drops[SHORT] += 1
        elif not docstrings.is_prose(paragraph):
            drops[NO_PROSE] += 1
        else:
            kept.append(paragraph)
    return kept


def _words(paragraphs: Iterable[str]) -> int:
    return sum(map(text.count_words, paragraphs))


def _main() -> None:
    gc.disable()  # all of a syntax tree is in use while it is built: collecting doubles the time
    drops: collections.Counter[str] = collections.Counter()
    documents = [
        document for files in json.load(sys.stdin) for document in read_directory(files, drops)
    ]
    json.dump({"documents": documents, "drops": drops}, sys.stdout)


if __name__ == "__main__":
    _main()
