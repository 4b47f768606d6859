"""Every example runs as it stands and says or writes what it promises."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAYS = {
    "01_reconstruct.py": "1 faces in",
    "02_batch.py": "Faces(1 in 'astronaut'",
    "03_parts.py": "parts.png",
    "04_views.py": "views.png",
    "05_differentiable.py": "step 10",
}


def test_every_example_is_tested():
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example(name, tmp_path, monkeypatch, capsys):
    arguments = {"01_reconstruct.py": [str(EXAMPLES / "astronaut.jpg"), "."], "03_parts.py": ["."]}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments.get(name, [])])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    said = capsys.readouterr().out
    assert SAYS[name] in said
    for path in said.split():
        if path.endswith(".png"):
            assert (tmp_path / path).is_file()
