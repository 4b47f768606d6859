"""Contact sheets of a face model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_assets import official_arrays, tiny_face_model

from v3recon.cli import show_face_model
from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.io.images import read_image

WHITE = 255


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return tiny_face_model()


def test_every_sheet_is_written(tmp_path: Path) -> None:
    arrays = official_arrays(30, 15, sizes=(10, 8, 6))
    np.save(tmp_path / "face_model.npy", np.array(arrays, dtype=object), allow_pickle=True)
    out = tmp_path / "sheets"
    argv = ["--face-model", str(tmp_path / "face_model.npy"), "--out", str(out)]
    status = show_face_model.main([*argv, "--size", "64", "--modes", "2", "--random", "3"])
    assert status == 0
    written = {path.stem for path in out.glob("*.png")}
    # The official format names no expressions and has no albedo texture.
    assert written == set(show_face_model.SHEETS) - {"expressions", "exp_names", "albedo_texture"}
    for path in out.glob("*.png"):
        assert np.ptp(read_image(path)) > 100


def test_face_fills_the_panel_and_stays_inside(model: LinearFaceModel) -> None:
    look = show_face_model.make_look(model, 128)
    picture, points = show_face_model.draw_face(look, show_face_model.make_coeffs(look))
    rows, columns = np.nonzero((picture != WHITE).any(2))
    share = max(np.ptp(rows), np.ptp(columns)) / 128
    assert 0.85 < share < 0.92
    low, high = points.amin(0), points.amax(0)
    found = torch.tensor([columns.min(), rows.min(), columns.max(), rows.max()])
    assert torch.allclose(found.float(), torch.cat([low, high]), atol=1.5)


def test_turned_face_stays_in_the_middle(model: LinearFaceModel) -> None:
    look = show_face_model.make_look(model, 96)
    for name in ("yaw -75", "yaw 75", "from below"):
        turn = show_face_model._turned(look, *show_face_model.SIDES[name])
        picture, _ = show_face_model.draw_face(look, show_face_model.make_coeffs(look, **turn))
        drawn = (picture != WHITE).any(2)
        border = np.concatenate([drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]])
        assert drawn.mean() > 0.1 and not border.any(), name


def test_colors_come_out_as_given_without_shading(model: LinearFaceModel) -> None:
    look = show_face_model.make_look(model, 64)
    colors = torch.tensor([0.8, 0.4, 0.2]).expand(model.vertex_count, 3)
    picture, _ = show_face_model.draw_face(look, show_face_model.make_coeffs(look), colors, 0.0)
    assert np.abs(picture[32, 32].astype(int) - [204, 102, 51]).max() <= 1


@pytest.mark.parametrize(
    "options", [["--face-model", "nobody"], ["--size", "10"], ["--modes", "0"], ["--what"]]
)
def test_wrong_usage(tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture) -> None:
    assert show_face_model.main(["--out", str(tmp_path), *options]) == 2
    assert capsys.readouterr().err
