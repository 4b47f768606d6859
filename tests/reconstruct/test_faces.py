"""`Faces` of several faces against its single ones; copies, pickles, devices, files."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from v3recon.detection.crop import crop_of_square
from v3recon.face_models.load import load_face_model
from v3recon.geometry.camera import Camera
from v3recon.reconstruct.faces import Faces, join_faces, make_faces
from v3recon.reconstruct.reconstructor import FaceReconstructor
from v3recon.reconstruct.save import OutputChoice
from v3recon.types import FaceCoeffs

POINTS = ("landmarks_68", "landmarks_106", "landmarks_106_2d", "landmarks_134", "points_photo")
PER_FACE = (*POINTS, "vertices", "angle_degrees")


@pytest.fixture(scope="module")
def faces() -> Faces:
    """Three faces of one photo, by coefficients drawn at random."""
    model, camera = load_face_model("photohead"), Camera()
    coeffs = FaceCoeffs.zeros(3, model.sizes)
    generator = torch.Generator().manual_seed(0)
    packed = coeffs.to_tensor() + 0.1 * torch.randn(coeffs.to_tensor().shape, generator=generator)
    coeffs = FaceCoeffs.from_tensor(packed, model.sizes)
    image = np.ascontiguousarray(astronaut()[:300])
    crops = [crop_of_square(torch.tensor([90.0 * k + 100, 150]), 200.0, camera) for k in range(3)]
    return join_faces(make_faces(coeffs, model, camera, crops, [image] * 3, [None] * 3))


def test_a_batch_holds_its_single_faces(faces):
    assert len(faces) == len(list(faces)) == 3
    for number, face in enumerate(faces):
        for name in PER_FACE:
            torch.testing.assert_close(
                getattr(face, name), getattr(faces, name)[number], atol=1e-3, rtol=1e-5
            )
        assert torch.equal(face.coeffs.id, faces.coeffs.id[number : number + 1])
        assert face.crop.matrix.shape == (2, 3) and face.image is faces.image
    assert torch.equal(faces[-1].vertices, faces.vertices[2])
    assert len(faces[1:]) == 2 and torch.equal(faces[1:].vertices, faces.vertices[1:])
    with pytest.raises(IndexError):
        faces[3]
    points = faces.points_photo
    torch.testing.assert_close(faces.landmarks_68, points[:, faces.model.landmarks_68])
    crop = faces.decoded.points_2d[1]  # a square of 200 pixels of the photo became 224
    expected = (crop - 111.5) / 1.12 + torch.tensor([190.0, 150.0])
    torch.testing.assert_close(points[1], expected, atol=1e-3, rtol=0)


def test_products_of_a_batch_are_those_of_its_faces(faces):
    parts, texture = faces.parts(), faces.texture(64)
    assert parts.labels.shape == (3, 300, 512) and parts.masks.shape == (3, 8, 300, 512)
    assert texture.texture.shape == (3, 64, 64, 3)
    for number, face in enumerate(faces):
        np.testing.assert_array_equal(face.parts().labels, parts.labels[number])
        np.testing.assert_array_equal(face.parts().masks[7], parts.masks[number, 7])
        close = np.abs(face.texture(64).texture.astype(int) - texture.texture[number])
        assert close.mean() < 0.5


def test_a_pickle_is_small_and_gives_the_same_face(faces):
    for given in (faces, faces[1]):
        data = pickle.dumps(given)
        assert len(data) < 20_000
        found = pickle.loads(data)
        assert found.image is None and found.image_size == (300, 512)
        for name in PER_FACE:
            torch.testing.assert_close(
                getattr(found, name), getattr(given, name), atol=1e-3, rtol=0
            )
    with pytest.raises(ValueError, match="image: give the photo"):
        found.texture(64)
    with pytest.raises(ValueError, match="image: the faces are of a photo"):
        found.texture(64, image=faces.image[:100])
    assert found.texture(64, image=faces.image).texture.shape == (64, 64, 3)


def test_a_pickle_of_another_face_model_is_refused(faces, monkeypatch):
    data = pickle.dumps(faces)
    other = copy.deepcopy(faces.model)
    other.content_hash = "other"
    monkeypatch.setattr("v3recon.reconstruct.faces._loaded_again", lambda *_: other)
    with pytest.raises(ValueError, match="not the one that the pickled faces are of"):
        pickle.loads(data)


def test_a_model_without_a_file_travels_along(faces):
    model = copy.deepcopy(faces.model)
    model.source = None
    found = pickle.loads(pickle.dumps(replace(faces, model=model)))
    torch.testing.assert_close(found.vertices, faces.vertices)


def test_copies_have_tensors_of_their_own(faces):
    copied = copy.deepcopy(faces)
    copied.vertices[:] = 0
    copied.image[:] = 0
    assert float(faces.vertices.abs().max()) > 0.5 and faces.image.max() > 0
    assert copied.model is faces.model
    twin = copy.deepcopy(faces.model)
    twin.mean_shape[:] = 0
    assert float(faces.model.mean_shape.abs().max()) > 0.5


def test_another_device_leaves_the_model_where_it_is(faces):
    assert faces.to("cpu") is faces
    away = faces.to("meta")
    assert away.vertices.device.type == away[0].landmarks_68.device.type == "meta"
    assert faces.model.mean_shape.device.type == "cpu"


def test_saving_names_files_and_returns_them(faces, tmp_path):
    choice = OutputChoice(texture_size=64)
    written = faces[:2].save(tmp_path / "out", "who", choice=choice)
    assert written == sorted((tmp_path / "out").iterdir())
    assert {path.name for path in written if path.suffix == ".npy"} == {"who.npy", "who_face2.npy"}
    few = OutputChoice(extracted_texture=False, model_texture=False, seg=False, seg_visible=False)
    assert [path.name for path in faces[0].save(tmp_path / "few", choice=few)] == [
        "photo.json",
        "photo.npy",
        "photo.npz",
        "photo.png",
    ]
    for name in ("a/b", "", ".."):
        with pytest.raises(ValueError, match="name: "):
            faces.save(tmp_path, name)


@pytest.fixture(scope="module")
def reconstructor(official_assets) -> FaceReconstructor:
    return FaceReconstructor.from_pretrained(
        official_assets, backbone="mbnetv3", device="cpu", detector=None
    )


def test_reconstructors_are_copied_and_pickled(reconstructor):
    photo = np.ascontiguousarray(astronaut()[:224, 112:336])
    expected = reconstructor(photo).vertices
    for twin in (copy.deepcopy(reconstructor), pickle.loads(pickle.dumps(reconstructor))):
        torch.testing.assert_close(twin(photo).vertices, expected, atol=1e-5, rtol=1e-5)


def test_one_photo_gives_faces_and_a_list_gives_a_list(reconstructor, tmp_path):
    photo = np.ascontiguousarray(astronaut()[:224, 112:336])
    one = reconstructor(photo)
    assert isinstance(one, Faces) and one.name == "photo"
    both = reconstructor([photo, torch.from_numpy(photo[::-1].copy()).permute(2, 0, 1) / 255])
    assert [len(faces) for faces in both] == [1, 1]
    torch.testing.assert_close(both[0].vertices, one.vertices, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "option",
    [
        {"rasterizer": "gpu"},
        {"detector": "haar"},
        {"min_confidence": 7},
        {"max_faces": 0},
        {"batch_size": 0},
    ],
)
def test_wrong_options_are_named(reconstructor, option):
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: ") as caught:
        replace(reconstructor, **option)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)
