"""What README tells people to type works as it stands there."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from v3recon.networks.face_regressor import load_face_regressor

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)
PYTHON = [block for kind, block in BLOCKS if kind == "python"]
COMMANDS = [
    line.split("#", 1)[0].strip()
    for kind, block in BLOCKS
    if kind in ("", "bash", "sh", "console")
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"(\.venv/bin/)?(python|v3recon|torchrun|make)\b", line)
]


def test_there_is_something_to_test():
    assert PYTHON and len(COMMANDS) >= 4
    assert any("train" in command for command in COMMANDS)


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_examples_run(tmp_path, number):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    code = PYTHON[number]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_training_on_a_plain_folder_runs(tmp_path):
    """README's line as it stands, but for its length: detection, drawn heads, steps, weights."""
    pytest.importorskip("mediapipe", reason="the landmark detector is not installed (make dev)")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    folder = tmp_path / "PHOTOS" / "some"
    folder.mkdir(parents=True)
    with Image.open(ROOT / "examples/astronaut.jpg") as photo:
        for k in range(3):
            photo.rotate(5 * k).save(folder / f"{k}.jpg")
        photo.crop((0, 0, 40, 40)).save(folder / "background.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (line,) = (c for c in COMMANDS if re.match(r"\S*v3recon train ", c))
    _, *words = shlex.split(line)
    done = subprocess.run(
        [sys.executable, "-m", "v3recon", *words, "--minutes", "0.06", "--workers", "0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 photos to learn from" in done.stdout and "1 for `val`" in done.stdout
    assert "broken.jpg" in done.stdout and "background.jpg" in done.stdout
    network, said = load_face_regressor(tmp_path / "runs/photohead/weights.pth")
    assert said.training["step"] == 2 and said.face_model == "photohead"
    assert network.sizes == (80, 64, 80)


@functools.cache
def help_of(*program: str) -> str:
    done = subprocess.run(
        [sys.executable, *program, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (program, done.stderr[-1000:])
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist_and_have_these_flags(command):
    """Program, subcommand, and every flag: some take hours or files that cannot be shipped."""
    words = shlex.split(command)
    program, rest = words[0].rpartition("/")[2], words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(rest) <= set(targets), command
        return
    if program == "torchrun":
        rest = rest[next(i for i, word in enumerate(rest) if word.endswith(".py")) :]
        program = "python"
    start, rest = (["-m", "v3recon"], rest) if program == "v3recon" else ([rest[0]], rest[1:])
    for word in rest:  # a subcommand or a preset; PHOTOS and FILE stand for the reader's own
        if word.startswith("-") or word.isupper():
            break
        start.append(word)
    text = help_of(*start)
    for flag in (word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)):
        assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{flag} of {command}"
