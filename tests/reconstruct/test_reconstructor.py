from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from v3recon.decode import decode
from v3recon.detection.crop import crop_of_square
from v3recon.io.obj import read_obj
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.reconstruct import reconstructor as pipeline
from v3recon.reconstruct import save as outputs
from v3recon.reconstruct.assets import find_assets
from v3recon.reconstruct.reconstructor import FaceReconstructor, mean_five_points, resolve_device
from v3recon.reconstruct.save import write_obj
from v3recon.reconstruct.segment import segment, segment_part_bits, segment_visible
from v3recon.reconstruct.texture import extract_texture, make_appearance


@pytest.fixture(scope="module")
def finding(official_assets) -> FaceReconstructor:
    """Its weights are random: what it says of turned photos means nothing."""
    return FaceReconstructor.from_pretrained(
        official_assets, backbone="mbnetv3", device="cpu", find_turned=False
    )


@pytest.fixture(scope="module")
def aligned(finding) -> FaceReconstructor:
    return replace(finding, detector=None)


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[:224, 112:336])


def two_faces() -> np.ndarray:
    canvas = np.full((512, 900, 3), 90, np.uint8)
    canvas[100:356, :256] = cv2.resize(astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    canvas[:, 388:] = astronaut()
    return canvas


def test_aligned_crop_goes_through_unchanged(aligned, official_assets, crop):
    """The whole path against its pieces: network on the bare pixels, decode, projection."""
    (face,) = aligned(crop)
    network = load_checkpoint(official_assets / "net_recon_mbnet.pth", aligned.model).regressor
    batch = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        coeffs = network(batch)
        decoded = decode(coeffs, aligned.model, aligned.camera)
    torch.testing.assert_close(face.coeffs.to_tensor(), coeffs.to_tensor(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(face.points_photo, decoded.points_2d[0], atol=1e-2, rtol=0)
    model = aligned.model
    torch.testing.assert_close(face.landmarks_68, face.points_photo[model.landmarks_68])
    torch.testing.assert_close(face.landmarks_106, face.points_photo[model.landmarks_106])
    torch.testing.assert_close(face.landmarks_134, face.points_photo[model.landmarks_134])
    torch.testing.assert_close(face.landmarks_106_2d[33:], face.landmarks_106[33:])
    assert face.detection is None and face.image_size == (224, 224)
    torch.testing.assert_close(face.angle_degrees, coeffs.angle[0] * 57.29578, atol=1e-2, rtol=0)


def test_aligned_photo_of_another_size_maps_back(aligned, crop):
    stretched = cv2.resize(crop, (448, 112), interpolation=cv2.INTER_AREA)
    (face,) = aligned(stretched)
    expected = (face.decoded.points_2d[0] + 0.5) * torch.tensor([2.0, 0.5]) - 0.5
    torch.testing.assert_close(face.points_photo, expected, atol=1e-3, rtol=0)


def test_batch_equals_single_photos(aligned, crop):
    photos = [crop, crop[::-1], np.full((60, 80, 3), 7, np.uint8), crop // 2, crop[:, ::-1]]
    together = replace(aligned, batch_size=2).reconstruct_photos(photos)
    for photo, faces in zip(photos, together, strict=True):
        (one,) = aligned(photo)
        torch.testing.assert_close(faces[0].points_photo, one.points_photo, atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(
            faces[0].landmarks_106_2d, one.landmarks_106_2d, atol=1e-2, rtol=1e-4
        )


def test_faces_of_several_photos_stay_with_their_photo(finding, crop):
    photos = [np.zeros((90, 70, 3), np.uint8), two_faces(), astronaut()]
    found = finding.reconstruct_photos(photos)
    assert [len(faces) for faces in found] == [0, 2, 1]
    large, small = found[1]
    assert large.landmarks_68[:, 0].mean() > 388 > small.landmarks_68[:, 0].mean()
    assert large.image_size == (512, 900) and found[2][0].image_size == (512, 512)
    # The same face at another place of another photo is the same face.
    torch.testing.assert_close(
        large.landmarks_68 - torch.tensor([388.0, 0.0]), found[2][0].landmarks_68, atol=6, rtol=0
    )
    assert replace(finding, max_faces=1).reconstruct_photos(photos)[1][0].crop.scale < 3


def test_no_faces_at_all(finding):
    assert finding.reconstruct_photos([]) == finding([]) == []
    faces = finding(np.zeros((50, 60, 3), np.uint8))
    assert len(faces) == 0 and list(faces) == [] and faces.save("nowhere") == []
    assert faces.landmarks_106_2d.shape == (0, 106, 2) and faces.vertices.shape[0] == 0
    assert faces.parts().masks.shape == (0, 8, 50, 60)
    assert faces.texture(64).texture.shape == (0, 64, 64, 3)


def test_second_pass_crops_by_its_own_landmarks(finding, monkeypatch):
    monkeypatch.setattr(pipeline, "RESTLESS", np.inf)  # random weights disagree with themselves
    rule = {"name": "box", "scale": 1.5, "passes": 2}
    (face,) = replace(finding, crop_rule=rule)(astronaut())
    (first,) = replace(finding, crop_rule={**rule, "passes": 1})(astronaut())
    box = first.landmarks_68.amax(0) - first.landmarks_68.amin(0)
    assert face.crop.scale == pytest.approx(224 / (1.5 * float(box.max())), rel=1e-4)
    assert face.crop.scale != pytest.approx(first.crop.scale, rel=1e-3)


def looking(finding, monkeypatch, see):
    """A reconstructor whose network is `see`: crop to landmarks in photo pixels; and its crops."""
    seen = []

    def reconstruct_crops(self, images, crops, detections):
        seen.extend(crops)
        return [SimpleNamespace(landmarks_68=see(crop), crop=crop) for crop in crops]

    monkeypatch.setattr(FaceReconstructor, "reconstruct_crops", reconstruct_crops)
    return replace(finding, crop_rule={"name": "box", "scale": 1.5}), seen


def square_points(center: tuple[float, float], side: float) -> torch.Tensor:
    steps = torch.linspace(-0.5, 0.5, 34, dtype=torch.float64)
    ends = torch.full_like(steps, 0.5)
    points = torch.cat([torch.stack([steps, -ends], 1), torch.stack([steps, ends], 1)])
    return points * side + torch.tensor(center, dtype=torch.float64)


def test_a_box_beside_the_face_is_left_for_a_wider_look(finding, monkeypatch):
    """The network sees the face where it is whole, else it wanders off within its crop."""
    face = square_points((100, 100), 40)

    def see(crop):
        if (crop.to_crop(face) > 0).all() and (crop.to_crop(face) < 223).all():
            return face
        middle = crop.from_crop(torch.tensor([[111.5, 140.0]], dtype=torch.float64))[0]
        return square_points(middle.tolist(), 0.6 * 224 / crop.scale)

    reconstructor, seen = looking(finding, monkeypatch, see)
    beside = crop_of_square(torch.tensor([114.0, 110.0]), 50.0, reconstructor.camera)
    right = crop_of_square(torch.tensor([101.0, 99.0]), 66.0, reconstructor.camera)
    found = reconstructor.reconstruct_found([None] * 2, [beside, right], [None] * 2, 2)
    assert torch.equal(found[0].landmarks_68, face) and torch.equal(found[1].landmarks_68, face)
    assert len(seen) == 4 + 3 + 3, "two looks at both; three at the first, three from wider"


def test_without_agreement_the_calmest_looks_are_kept(finding, monkeypatch):
    moves = iter([0, 5, 0, 0, 9, 0, 0, 4, 0, 0, 6])

    def see(crop):
        return square_points((next(moves), 0.0), 40)

    reconstructor, seen = looking(finding, monkeypatch, see)
    crop = crop_of_square(torch.zeros(2), 60.0, reconstructor.camera)
    (found,) = reconstructor.reconstruct_found([None], [crop], [None], 2)
    assert len(seen) == 2 + 3 * 3
    assert float(found.landmarks_68[:, 0].mean()) == pytest.approx(4.0)


def test_one_look_and_agreeing_looks_are_not_repeated(finding, monkeypatch):
    positions = iter([0.0, 1.0, 1.2])
    reconstructor, seen = looking(
        finding, monkeypatch, lambda crop: square_points((next(positions), 0.0), 40)
    )
    crop = crop_of_square(torch.zeros(2), 60.0, reconstructor.camera)
    assert len(reconstructor.reconstruct_found([None], [crop], [None], 1)) == len(seen) == 1
    reconstructor.reconstruct_found([None], [crop], [None], 2)
    assert len(seen) == 3


def test_photo_is_not_changed(finding):
    image = astronaut()
    before = image.copy()
    (face,) = finding(image)
    extract_texture(face, image, 64)
    np.testing.assert_array_equal(image, before)


def test_segment_in_the_crop_equals_the_renderer(aligned, crop):
    (face,) = aligned(crop)
    found = segment(face)
    labels = segment_visible(face.decoded, face.model, face.camera, (224, 224))[0].numpy()
    bits = segment_part_bits(face.decoded, face.model, face.camera, (224, 224))[0].numpy()
    assert (found.labels != labels).mean() < 1e-3 and (found.part_bits != bits).mean() < 1e-3
    assert labels.max() == 8


def test_large_faces_are_segmented_in_place(aligned, crop):
    """Enlarged drawings lie where the exact ones do, also where the photo cuts the face off."""
    small = segment(aligned(crop)[0])
    large_photo = cv2.resize(crop, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    (face,) = aligned(crop)
    scale = torch.tensor([[0.125, 0, -0.4375], [0, 0.125, -0.4375]], dtype=torch.float64)
    moved = replace(face.batch, crop=type(face.crop)(scale[None]), image_size=large_photo.shape[:2])
    large = segment(moved[0])
    assert large.labels.shape == (1792, 1792)
    centres = large.labels[4::8, 4::8]
    assert (centres != small.labels).mean() < 0.01


def test_face_outside_of_the_photo_segments_to_nothing(aligned, crop):
    (face,) = aligned(crop)
    away = face.crop.matrix[None] - 1e4 * torch.tensor([[0, 0, 1.0]])
    found = segment(replace(face.batch, crop=type(face.crop)(away))[0])
    assert found.labels.shape == (224, 224) and found.labels.max() == 0


def test_texture_and_meshes(aligned, crop, tmp_path):
    (face,) = aligned(crop)
    texture = extract_texture(face, crop, 64)
    assert texture.texture.shape == (64, 64, 3)
    with pytest.raises(ValueError, match="photo"):
        extract_texture(face, crop[:100], 64)
    colors = make_appearance(face.batch).colors[0]
    write_obj(tmp_path / "a.obj", face, colors=colors)
    found = read_obj(tmp_path / "a.obj")
    np.testing.assert_allclose(found.vertices, face.decoded.vertices[0], atol=1e-6)
    np.testing.assert_array_equal(found.faces, face.model.faces)
    assert found.colors is not None
    np.testing.assert_allclose(found.colors, colors, atol=1e-6)
    write_obj(tmp_path / "b.obj", face, texture=texture.texture)
    assert read_obj(tmp_path / "b.obj").material_library == "b.mtl"


def test_mean_five_points_are_in_order(aligned):
    points = mean_five_points(aligned.model)
    assert points[0, 0] < 0 < points[1, 0] and points[3, 0] < 0 < points[4, 0]
    assert points[0, 1] > points[2, 1] > points[3, 1] and points[2, 2] > points[0, 2]
    torch.testing.assert_close(points, aligned.points_3d, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "nowhere"}, "no such folder"),
        ({"face_model": "bfm"}, "needs a folder of assets"),
        ({"weights": "none.pth"}, "none.pth: no such file"),
        ({"backbone": "resnet50"}, "resnet50"),
    ],
)
def test_missing_assets_are_named(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        find_assets(**options)
    assert "\n" not in str(caught.value)


def test_missing_official_network_is_named(official_assets):
    with pytest.raises(ValueError, match=r"net_recon\.pth: no such file"):
        find_assets(official_assets)
    with pytest.raises(ValueError, match="official networks are"):
        find_assets(official_assets, backbone="vgg")
    with pytest.raises(ValueError, match="retinaface"):
        FaceReconstructor.from_pretrained(
            official_assets, backbone="mbnetv3", detector="retinaface"
        )


def test_devices():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(None) == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(ValueError, match="device"):
            resolve_device(name)


def test_writing_gives_threads_back(aligned, crop, tmp_path, monkeypatch):
    """Workers share torch's threads only while they write; OpenCV's stay as they are."""
    (face,) = aligned(crop)
    inside = []

    def fail(*_: object) -> None:
        inside.append((torch.get_num_threads(), cv2.getNumThreads()))
        raise OSError("the disk is full")

    monkeypatch.setattr(outputs, "make_appearance", fail)
    before, opencv = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(OSError, match="disk is full"):
            outputs.write_face(tmp_path, "face", face)
        assert inside == [(1, opencv)]
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, opencv)
    finally:
        torch.set_num_threads(before)
