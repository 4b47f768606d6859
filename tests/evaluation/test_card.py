from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from v3recon.cli.evaluate import main
from v3recon.evaluation.card import Line, _cells, card_text


def test_cells_show_what_the_figures_hold():
    figures = {"a": {"b/c": 1, "x": {"y": 0.12345, "z": float("nan"), "n": 7.0}}, "scored": 3}
    assert _cells(Line("", ("a/x/y",)), figures) == ("12.35", "3")
    line = Line("", ("a/x/y", "a/x/z", "a/none/y"), 1.0, 3, "a/x/n")
    assert _cells(line, figures) == ("0.123 / - / -", "7")
    assert _cells(Line("", ("a/x/y",), count="-"), figures)[1] == "-"


def test_card_text():
    rows = [
        ("AFLW, val", "one", "1.0", "4"),
        ("AFLW, val", "two", "2.0", "4"),
        ("CFP", "x", "-", "-"),
    ]
    text = card_text([("title", "weights"), ("file", "w.pth")], rows, ["a note"])
    assert text.splitlines()[:11] == [
        *("# weights", "", "| | |", "|---|---|", "| file | w.pth |", ""),
        "| data | measure | value | number |",
        "|---|---|---|---|",
        "| AFLW, val | one | 1.0 | 4 |",
        "|  | two | 2.0 | 4 |",
        "| CFP | x | - | - |",
    ]
    assert "- a note\n" in text and text.endswith("people.\n")


def test_card_end_to_end(tmp_path, example_photo, random_weights):
    """What there are photos of is measured, in `val` if the split has none; the rest is named."""
    photos = tmp_path / "photos"
    (photos / "celebamask/images").mkdir(parents=True)
    (photos / "celebamask/masks").mkdir()
    shutil.copy(example_photo, photos / "celebamask/images/a.jpg")
    with Image.open(example_photo) as picture:
        mask = np.zeros(picture.size[::-1], np.uint8)
    mask[60:160, 180:270] = 1
    mask[100:120, 215:235] = 2
    Image.fromarray(mask, "L").save(photos / "celebamask/masks/a.png")
    row = "celebamask/images/a.jpg,celebamask,a,val,celebamask/masks/a.png"
    (photos / "index.csv").write_text(f"file,source,subject,split,mask\n{row}\n")
    card = tmp_path / "card.md"
    flags = ["--photos", str(photos), "--split", "test", "--drawn", "0", "--out", str(card)]
    status = main(["card", "--weights", str(random_weights), "--device", "cpu", *flags])
    text = card.read_text()
    assert status == 0
    assert text.startswith("# random\n") and "photohead" in text
    assert "| CelebAMask-HQ, val | IoU eyes" in text
    for missing in ("landmarks: no photos of helen+afw", "cfp: no photos", "skin: no photos"):
        assert f"- {missing}" in text


def test_card_wrong_usage(tmp_path, random_weights, capsys):
    flags = ["card", "--photos", str(tmp_path / "absent"), "--weights", str(random_weights)]
    assert main(flags) == 2
    assert main([*flags[:2], str(tmp_path), "--out", str(tmp_path / "no/card.md")]) == 2
    assert "cannot write" in capsys.readouterr().err


NEW = ("aflw", "card", "cfp", "geometry", "identity", "skin", "visibility")


@pytest.mark.parametrize("name", NEW)
def test_help_is_quick_and_says_what_it_measures(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--weights" in text and ("--split" in text) == (name != "geometry")
