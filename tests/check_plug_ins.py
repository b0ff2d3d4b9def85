"""Has mypy compare every plug-in with its protocol: `python tests/check_plug_ins.py`.

Plug-ins are found by name at run time, where mypy does not see them. This writes a module in which
each stands where its protocol is expected, and checks that; a new plug-in needs no line here.
"""

import sys
import tempfile
from pathlib import Path

import mypy.api

from lm.core import plugins

# Room → lines that use the plug-in {m} as what the room's protocol promises.
ROOMS = {
    "data.formats": """
def {m}_made(tokenizer: protocols.Tokenizer) -> protocols.Format:
    return {m}.Format(tokenizer, 128, "next", None)
{m}_pairs: bool = {m}.PAIRS
""",
    "data.sources": "{m}_module: protocols.Source = {m}",
    "models": """
{m}_class: protocols.ModelClass = {m}.Model
def {m}_made(model: {m}.Model) -> protocols.Model:
    return model
""",
    "nn.attention": "{m}_module: protocols.Attention = {m}",
    "objectives": """
def {m}_made(config: {m}.Config, tokenizer: protocols.Tokenizer) -> protocols.Objective:
    return {m}.Objective(config, tokenizer, 128, "prefix")
""",
    "optimizers": "{m}_module: protocols.Optimizer = {m}",
    "tasks": """
def {m}_made(config: {m}.Config, corpus: Corpus) -> protocols.Task:
    return {m}.Task(config, corpus, "test", 128)
""",
    "tokenizers": "{m}_module: protocols.TokenizerKind = {m}",
}


def source() -> str:
    """A module that constructs each plug-in and uses it as its protocol."""
    lines = ["from lm.core import protocols", "from lm.data.corpus import Corpus"]
    for room, template in ROOMS.items():
        for name in plugins.names(room):
            alias = f"{room.replace('.', '_')}_{name}"
            lines += [f"import lm.{room}.{name} as {alias}", template.format(m=alias)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Returns mypy's exit status, and prints its findings."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "plug_ins.py"
        path.write_text(source(), encoding="utf-8")
        output, errors, status = mypy.api.run([str(path)])
    print(output.strip() or errors.strip())
    return status


if __name__ == "__main__":
    sys.exit(main())
