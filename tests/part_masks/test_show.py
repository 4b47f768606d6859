"""The picture of a model's parts, and the commands around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_assets import official_arrays, tiny_face_model

from v3recon.cli.part_masks import main
from v3recon.face_models.bfm import load_bfm
from v3recon.face_models.parts import PART_COLORS, part_masks
from v3recon.io.images import read_image
from v3recon.part_masks.labels import read_labels, write_labels
from v3recon.part_masks.show import VIEWS, draw_parts, masks_with_labels


def part_pixels(view):
    """Per part: the pixels of its hue, whatever their shading, [8, H, W]."""
    pixels = view.astype(float)
    unit = pixels / np.linalg.norm(pixels, axis=-1, keepdims=True).clip(1)
    table = np.array(PART_COLORS, float)
    table /= np.linalg.norm(table, axis=-1, keepdims=True)
    return np.stack([(unit @ color) > 0.9995 for color in table])


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "face_model.npy"
    arrays = official_arrays(60, 60, sizes=(4, 4, 4))
    np.save(path, np.array(arrays, dtype=object), allow_pickle=True)
    return path


def test_png_has_all_parts_on_their_sides(model_file, tmp_path):
    out = tmp_path / "parts.png"
    assert main(["show", "--face-model", str(model_file), "--out", str(out), "--size", "200"]) == 0
    picture = read_image(out)
    assert picture.shape[1] == 3 * 200
    for color in PART_COLORS:  # exact in the legend
        assert (picture[230:] == color).all(-1).sum() >= 200
    front, right_side, left_side = (picture[30:228, i * 200 : i * 200 + 200] for i in range(3))
    found = part_pixels(front)
    assert (found.sum((1, 2)) > 30).all()
    columns = [np.nonzero(one)[1].mean() for one in found]
    assert columns[0] < 90 and columns[2] < 90 < 110 < columns[1] and columns[3] > 110
    # the person's right side shows the right eye, and the nose points to the viewer's right
    seen_right, seen_left = (part_pixels(view).sum((1, 2)) for view in (right_side, left_side))
    assert seen_right[0] > 30 > 5 > seen_right[1] and seen_left[1] > 30 > 5 > seen_left[0]
    assert len(VIEWS) == 3


def test_other_labels_change_picture_and_counts():
    model = tiny_face_model()
    labels = torch.full((model.vertex_count,), 5, dtype=torch.uint8)
    masks = masks_with_labels(model, labels)
    assert len(masks.vertices[4]) == model.vertex_count and len(masks.faces[4]) == len(model.faces)
    assert sum(len(vertices) for vertices in masks.vertices) == model.vertex_count
    views = draw_parts(model, masks, size=100)[30:128]
    assert part_pixels(views)[4].sum() > 1000 and part_pixels(views)[[0, 1, 5, 6, 7]].sum() == 0


def test_own_labels_give_the_models_own_triangles():
    model = tiny_face_model()
    own, again = part_masks(model), masks_with_labels(model, model.part_labels)
    assert [len(faces) for faces in own.faces] == [len(faces) for faces in again.faces]


def test_export_then_import(model_file, tmp_path):
    labels_file, copy = tmp_path / "labels.csv", tmp_path / "copy.npy"
    source = ["--face-model", str(model_file)]
    assert main(["export", *source, "--out", str(labels_file)]) == 0
    labels = read_labels(labels_file)
    model = load_bfm(model_file)
    np.testing.assert_array_equal(labels, model.part_labels.numpy())
    labels[labels == 5] = 0
    write_labels(labels_file, labels)
    assert main(["import", *source, "--labels", str(labels_file), "--out", str(copy)]) == 0
    changed = load_bfm(copy)
    np.testing.assert_array_equal(changed.part_labels.numpy(), labels)
    assert [len(part) for part in changed.part_faces][4] == 0
    torch.testing.assert_close(changed.part_faces[7], model.part_faces[7])
    torch.testing.assert_close(changed.mean_shape, model.mean_shape)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["show", "--face-model", "nothing.npy", "--out", "a.png"],
        ["show", "--face-model", "unknown", "--out", "a.png"],
        ["export", "--face-model", "MODEL", "--out", "a.txt"],
        ["import", "--face-model", "MODEL", "--labels", "absent.npy", "--out", "a.npy"],
        ["import", "--face-model", "MODEL", "--labels", "absent.npy", "--out", "a.npz"],
        ["transfer", "--labels", "absent.npy", "--indices", "x.npy", "--out", "b.npy"],
        ["show", "--face-model", "MODEL", "--size", "3", "--out", "a.png"],
        ["dance"],
        [],
    ],
)
def test_wrong_usage_is_status_2(arguments, model_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(model_file) if a == "MODEL" else a for a in arguments]) == 2
    assert capsys.readouterr().err.strip()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_status_1(model_file, tmp_path, capsys):
    out = str(tmp_path / "absent" / "a.png")
    assert main(["show", "--face-model", str(model_file), "--size", "64", "--out", out]) == 1
    assert "absent" in capsys.readouterr().err
