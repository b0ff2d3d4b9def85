"""Has mypy compare every plug-in with its protocol: `python tests/check_plug_ins.py`.

Plug-ins are found by name at run time, where mypy does not see them. This writes a module in which
each stands where its protocol is expected, and checks that; a new plug-in needs no line here.
"""

import sys
import tempfile
from pathlib import Path

import mypy.api

from lm.core import plugins

# Room → (protocol, class of the plug-in; "" where the module itself is the plug-in).
ROOMS = {
    "data.formats": ("Format", "Format"),
    "data.sources": ("Source", ""),
    "models": ("Model", "Model"),
    "nn.attention": ("Attention", ""),
    "objectives": ("Objective", "Objective"),
    "optimizers": ("Optimizer", ""),
    "tasks": ("Task", "Task"),
    "tokenizers": ("TokenizerKind", ""),
}


def source() -> str:
    """A module that uses each plug-in as its protocol."""
    lines = ["from lm.core import protocols"]
    for room, (protocol, cls) in ROOMS.items():
        for name in plugins.names(room):
            plug_in = f"{room.replace('.', '_')}_{name}"
            lines.append(f"import lm.{room}.{name} as {plug_in}")
            if cls:
                lines.append(f"def check_{plug_in}(x: {plug_in}.{cls}) -> protocols.{protocol}:")
                lines.append("    return x")
            else:
                lines.append(f"check_{plug_in}: protocols.{protocol} = {plug_in}")
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
