"""Labels of faces: what the files hold is the face, in the photo's pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from v3recon.data.face_labels import (
    COLUMNS,
    LABEL_KINDS,
    chosen_kinds,
    face_parameters,
    part_mask,
    write_labels,
)
from v3recon.decode import decode
from v3recon.detection.crop import crop_of_square
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.io.celebamask import CLASS_NAMES, read_celebamask
from v3recon.io.photo_index import read_pts
from v3recon.networks.encoder import SEEN_NAMES
from v3recon.reconstruct.alignment import points_photo_3d
from v3recon.reconstruct.faces import Face, make_faces
from v3recon.types import FaceCoeffs


def class_of(name: str) -> int:
    return CLASS_NAMES.index(name)


@pytest.fixture(scope="module")
def face() -> Face:
    """PhotoHead with an open mouth, turned a little, in a photo of 300 x 400."""
    model = load_face_model("photohead")
    coeffs = FaceCoeffs.zeros(1, model.sizes)
    coeffs.angle[:] = torch.tensor([[0.05, 0.3, -0.1]])
    coeffs.id[:] = 0.5 * torch.randn(coeffs.id.shape, generator=torch.Generator().manual_seed(0))
    coeffs.exp[:] = model.named_expressions["mouth_open"]
    crop = crop_of_square(torch.tensor([180.0, 150.0]), 200.0, Camera())
    photo = np.zeros((300, 400, 3), np.uint8)
    return make_faces(coeffs, model, Camera(), [crop], [photo], [None])[0]


def with_seen(face: Face, name: str, part: tuple[slice, slice]) -> Face:
    """The face as a network with a part head tells of it: skin, and something else at a place."""
    seen = torch.zeros(1, len(SEEN_NAMES), 56, 56, dtype=torch.uint8)
    seen[:, SEEN_NAMES.index("skin")] = 255
    seen[0, :, *part] = 0
    seen[0, SEEN_NAMES.index(name), *part] = 255
    return Face(replace(face.batch, seen=seen))


def test_masks_hold_the_parts_and_the_inner_mouth(face):
    mask, labels = part_mask(face), face.parts().labels
    assert mask.shape == face.image_size and mask.dtype == np.uint8
    names = "right_eye left_eye right_eyebrow left_eyebrow nose up_lip down_lip skin".split()
    for label, name in enumerate(names, 1):
        np.testing.assert_array_equal(mask == class_of(name), labels == label)
    rows, columns = np.nonzero(mask == class_of("inner_mouth"))
    lips = face.landmarks_68[[62, 66]].mean(0).numpy()
    off = np.hypot(columns.mean() - lips[0], rows.mean() - lips[1])
    assert len(rows) > 50 and off < 0.2 * len(rows) ** 0.5
    assert set(np.unique(mask)) == {0, class_of("inner_mouth"), *map(class_of, names)}


@pytest.mark.parametrize(
    ("seen", "name"), [("hair", "hair"), ("glasses", "glasses"), ("occluder", "background")]
)
def test_what_lies_before_the_face_is_not_the_face(face, seen, name):
    left = part_mask(with_seen(face, seen, (slice(0, 56), slice(0, 28))))
    plain = part_mask(face)
    middle = 179  # of the crop, 80 … 279
    np.testing.assert_array_equal(left[:, middle + 3 :], plain[:, middle + 3 :])
    assert (left[60:240, 85 : middle - 3] == class_of(name)).all()


def test_beyond_the_crop_the_mesh_shows_what_the_border_does(face):
    """A head that leaves its crop at the top, where the network sees hair along the border."""
    crop = crop_of_square(torch.tensor([180.0, 150.0]), 120.0, Camera())
    coeffs = replace(face.coeffs, trans=torch.tensor([[0.0, 0.5, 0.0]]))
    photo = np.zeros((300, 400, 3), np.uint8)
    (high,) = make_faces(coeffs, face.model, Camera(), [crop], [photo], [None])
    labels, top = high.parts().labels, 150 - 60
    assert (labels[: top - 3] > 0).sum() > 100, "the mesh leaves the crop"
    mask = part_mask(with_seen(high, "hair", (slice(0, 8), slice(0, 56))))
    above = labels[: top - 1] > 0
    assert (mask[: top - 1][above] == class_of("hair")).all()
    assert (mask[: top - 1][~above] == 0).all(), "nothing is known beside the mesh"


def test_parameters_make_the_points_again(face):
    values = face_parameters(face)
    sizes = face.model.sizes
    packed = torch.from_numpy(values["coeffs"])[None]
    decoded = decode(FaceCoeffs.from_tensor(packed, sizes), face.model, Camera())
    linear, shift = values["crop_matrix"][:, :2], values["crop_matrix"][:, 2]
    pixels = (decoded.points_2d[0].numpy() - shift) @ np.linalg.inv(linear).T
    np.testing.assert_allclose(pixels, face.points_photo.numpy(), atol=1e-2)
    named = np.concatenate([values[key] for key in ("id", "exp", "alb", "angle", "sh", "trans")])
    np.testing.assert_array_equal(named, values["coeffs"])
    head = decoded.model_vertices[0].numpy()
    posed = values["scale"] * head @ values["rotation"] + values["translation"]
    truth = points_photo_3d(face.batch)[0].numpy() * [1, -1, 1]
    error = np.linalg.norm(posed - truth, axis=1).mean() / np.ptp(truth[:, 0])
    assert error < 0.02, "what is left is perspective"
    np.testing.assert_allclose(values["rotation"] @ values["rotation"].T, np.eye(3), atol=1e-5)
    assert str(values["face_model"]) == "photohead"
    assert str(values["face_model_hash"]) == face.model.content_hash


def test_files_hold_what_the_functions_say(face, tmp_path):
    row = write_labels(tmp_path, "a_face2", face, tuple(LABEL_KINDS), "photos/a.jpg", 2)
    assert set(row) == set(COLUMNS) - {"problem"}
    assert row["masks"] == "masks/a_face2.png" and row["face"] == "2"
    points = face.landmarks_68_2d.numpy()
    np.testing.assert_allclose(np.loadtxt(tmp_path / row["landmarks"]), points, atol=6e-4)
    np.testing.assert_allclose(read_pts(tmp_path / "landmarks/a_face2.pts"), points, atol=1e-3)
    mask = read_celebamask(tmp_path / row["masks"], repair=False).classes
    np.testing.assert_array_equal(mask, part_mask(face))
    with np.load(tmp_path / row["params"], allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["coeffs"], face_parameters(face)["coeffs"])
    assert np.load(tmp_path / row["positions"], allow_pickle=False).shape == (256, 256, 3)
    box = [float(row[key]) for key in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(box, [*points.min(0), *points.max(0)], atol=6e-3)
    assert float(row["yaw"]) == pytest.approx(np.degrees(0.3), abs=0.01)
    only = write_labels(tmp_path / "masks", "b", face, ("landmarks",), "b.jpg", 1)
    assert "masks" not in only and not (tmp_path / "masks" / "masks").exists()


def test_kinds_are_chosen_by_name():
    assert chosen_kinds("positions, landmarks") == ("landmarks", "positions")
    with pytest.raises(ValueError, match="only: 'poses' is not known; known: landmarks, masks"):
        chosen_kinds("landmarks,poses")
