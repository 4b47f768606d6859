import numpy as np
import pytest
import torch

from v3recon.data.augment import AugmentSettings, Placement, crop_matrix, resize_matrix
from v3recon.data.profiling import face_center
from v3recon.data.samples import (
    EpochSampler,
    FaceRecord,
    ProfiledValidation,
    TrainingDataset,
    Turn,
    collate,
    draw_sample,
    draw_turn,
    place_sample,
)
from v3recon.face_models.detector_mesh import (
    MIRROR_68,
    MIRROR_LABELS,
    estimate_pose,
    load_face_mesh,
    rotation_between,
)
from v3recon.geometry.rotation import euler_to_matrix

MESH = load_face_mesh()
REGION = 256
SETTINGS = AugmentSettings(size=32)


def mean_points(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """The mean face posed by angles in degrees, in a region of 256 pixels."""
    angle = torch.tensor([pitch, yaw, roll], dtype=torch.float64).deg2rad()
    posed = MESH.mean.astype(np.float64) @ euler_to_matrix(angle).numpy()
    return posed * np.array([65.0, -65.0, 65.0]) + np.array([128.0, 120.0, 0.0])


def make_record(yaw: float = 0.0, roll: float = 0.0, image=None, **changes) -> FaceRecord:
    points = mean_points(yaw, roll=roll)
    if image is None:
        rng = np.random.default_rng(3)
        image = rng.integers(0, 256, (REGION, REGION, 3), dtype=np.uint8)
    values = dict(
        image=image,
        points=points,
        landmarks_68=points[MESH.landmarks_68],
        labels=np.zeros((REGION, REGION), np.uint8),
        labels_source=1,
        pose=estimate_pose(points),
        source=2,
        name="a.jpg",
    )
    return FaceRecord(**{**values, **changes})


def blob_at(place: np.ndarray) -> np.ndarray:
    """White Gaussian spot at x, y on black."""
    y, x = np.mgrid[:REGION, :REGION]
    spot = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 3.0**2))
    return np.repeat(np.round(spot).astype(np.uint8)[..., None], 3, 2)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(np.float64) ** 6  # its peak: foreshortening skews the skirts
    y, x = np.mgrid[: len(image), : len(image)]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


class Listed:
    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def record(self, index):
        return self.records[index]


def test_mirror_tables_are_involutions_and_agree():
    points = np.arange(468)
    assert (MESH.mirror[MESH.mirror] == points).all()
    assert (MIRROR_68[MIRROR_68] == np.arange(68)).all()
    assert (MIRROR_LABELS[MIRROR_LABELS] == np.arange(9)).all()
    assert (MESH.mirror[MESH.landmarks_68] == MESH.landmarks_68[MIRROR_68]).all()
    np.testing.assert_allclose(MESH.mean[MESH.mirror], MESH.mean * [-1, 1, 1], atol=1e-6)
    # The right eye is the person's own right, at the viewer's left.
    assert MESH.mean[MESH.right_eye, 0].max() < 0 < MESH.mean[MESH.left_eye, 0].min()


def test_mesh_is_a_disc_with_three_holes():
    edges = np.sort(MESH.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    assert 468 - len(unique) + len(MESH.triangles) == 1 - 3  # Euler characteristic
    loops = [MESH.outline, MESH.mouth, MESH.right_eye, MESH.left_eye]
    rim = np.concatenate([np.stack([loop, np.roll(loop, -1)], 1) for loop in loops])
    np.testing.assert_array_equal(np.unique(np.sort(rim, 1), axis=0), unique[counts == 1])


@pytest.mark.parametrize("angles", [(0, 0, 0), (10, 35, -20), (-15, -70, 30)])
def test_estimate_pose_recovers_angles(angles):
    pitch, yaw, roll = angles
    pose = np.degrees(estimate_pose(mean_points(yaw, pitch, roll)))
    np.testing.assert_allclose(pose, angles, atol=1e-3)


def test_rotation_between_reaches_the_new_pose():
    points = mean_points(yaw=20, pitch=-8, roll=25)
    turn = rotation_between(estimate_pose(points), np.radians(80), np.radians(5))
    turned = (points - face_center(points)) @ turn
    np.testing.assert_allclose(np.degrees(estimate_pose(turned)), [5, 80, 25], atol=1e-3)


def test_crop_rule_without_jitter():
    points = np.random.default_rng(0).uniform(40, 140, (68, 2))
    matrix = crop_matrix(points, Placement())
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    low, high = mapped.min(0), mapped.max(0)
    np.testing.assert_allclose((low + high) / 2, 111.5)
    np.testing.assert_allclose(max(high - low), 224 / 1.414)
    half = resize_matrix(matrix, 112)  # pixel i of 112 covers pixels 2i and 2i + 1 of 224
    np.testing.assert_allclose(points @ half[:, :2].T + half[:, 2], (mapped + 0.5) / 2 - 0.5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("yaw", [None, 25.0])
@pytest.mark.parametrize("size", [112, 224])
def test_points_and_picture_move_together(flip, yaw, size):
    vertex = 50 if yaw is None else 280  # a cheek that stays visible
    points = mean_points(roll=10)
    record = make_record(roll=10, image=blob_at(points[vertex]))
    turn = None if yaw is None else Turn(np.radians(-yaw), 0.0)
    sample = place_sample(record, Placement(flip, 0.4, 0.9, (0.03, -0.02)), turn, size)
    found = (centroid(sample.image) + 0.5) * 224 / size - 0.5
    expected = sample.points[MESH.mirror[vertex] if flip else vertex, :2]
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_turned_points_are_the_rotated_points():
    record = make_record(yaw=12, roll=8)
    turn = Turn(np.radians(70), np.radians(6))
    sample = place_sample(record, Placement(), turn, 32)
    rotated = record.points @ rotation_between(record.pose, turn.yaw, turn.pitch)
    size = np.ptp(sample.points, axis=0) / np.ptp(rotated, axis=0)
    np.testing.assert_allclose(size, size[0], rtol=1e-5)  # one scale for x, y and z
    centred = rotated - rotated.mean(0)
    np.testing.assert_allclose(sample.points - sample.points.mean(0), size[0] * centred, atol=1e-3)
    pose = estimate_pose(sample.points.astype(np.float64))
    np.testing.assert_allclose(sample.angle, pose, atol=1e-4)
    # Hand-made points lie on the mesh in this record, so they turn with it.
    np.testing.assert_allclose(sample.landmarks_68, sample.points[MESH.landmarks_68, :2], atol=1e-3)


def test_nearer_half_hides_the_farther_half():
    image = np.zeros((REGION, REGION, 3), np.uint8)
    image[:, :128], image[:, 128:] = (255, 0, 0), (0, 255, 0)  # viewer's left red, right green
    record = make_record(image=image)
    # Positive yaw turns the nose to the viewer's right: the viewer's left cheek stays in view.
    sample = place_sample(record, Placement(), Turn(np.radians(90), 0.0), 112)
    x, y, _ = np.round((sample.points[MESH.landmarks_68[36]] + 0.5) / 2 - 0.5).astype(int)
    nose = sample.points[1, 0]
    assert nose > sample.points[MESH.outline, 0].max()
    np.testing.assert_array_equal(sample.image[y, x], (255, 0, 0))


def test_flip_twice_is_identity():
    record = make_record(yaw=15, labels=_two_eyes())
    plain = place_sample(record, Placement(), None, 64)
    mirrored = place_sample(record, Placement(flip=True), None, 64)
    np.testing.assert_allclose(mirrored.image[:, ::-1].astype(int), plain.image, atol=1)
    back = mirrored.points[MESH.mirror] * [-1, 1, 1] + [223, 0, 0]
    np.testing.assert_allclose(back, plain.points, atol=1e-3)
    landmarks = mirrored.landmarks_68[MIRROR_68] * [-1, 1] + [223, 0]
    np.testing.assert_allclose(landmarks, plain.landmarks_68, atol=1e-3)
    np.testing.assert_allclose(mirrored.angle, plain.angle * [1, -1, -1], atol=1e-6)
    differs = (MIRROR_LABELS[mirrored.labels[:, ::-1]] != plain.labels).mean()
    assert differs < 0.005  # a pixel of a border may fall to the other side


def _two_eyes() -> np.ndarray:
    labels = np.zeros((REGION, REGION), np.uint8)
    points = mean_points(yaw=15)
    for label, loop in ((1, MESH.right_eye), (2, MESH.left_eye)):
        x, y, _ = points[loop].mean(0).astype(int)
        labels[y - 6 : y + 7, x - 9 : x + 10] = label
    return labels


@pytest.mark.parametrize("turn", [None, Turn(np.radians(35), 0.0)])
def test_labels_follow_points_and_swap_sides(turn):
    record = make_record(yaw=15, labels=_two_eyes())
    for flip in (False, True):
        sample = place_sample(record, Placement(flip=flip), turn, 112)
        for label, loop in ((1, MESH.right_eye), (2, MESH.left_eye)):
            rows, columns = np.nonzero(sample.labels == label)
            found = np.array([columns.mean(), rows.mean()]) * 2 + 0.5
            np.testing.assert_allclose(found, sample.points[loop, :2].mean(0), atol=2.5)


def test_jaw_of_side_views_is_dropped_when_turned():
    turn = Turn(np.radians(80), 0.0)
    front = place_sample(make_record(yaw=5), Placement(), turn, 32)
    side = place_sample(make_record(yaw=30), Placement(), turn, 32)
    assert not front.landmarks_weight[9:17].any()  # the cheek that turned away
    assert front.landmarks_weight[:9].all() and front.landmarks_weight[17:].all()
    mirrored = place_sample(make_record(yaw=5), Placement(flip=True), turn, 32)
    assert not mirrored.landmarks_weight[:8].any() and mirrored.landmarks_weight[8:].all()
    assert not side.landmarks_weight[:17].any() and side.landmarks_weight[17:].all()


def test_record_without_mesh_gives_landmarks_only():
    record = make_record(points=np.full((468, 3), np.nan), pose=np.zeros(3))
    sample = draw_sample(record, np.random.default_rng(0), AugmentSettings(size=32, profile=1.0))
    assert not sample.points_weight.any() and np.isfinite(sample.points).all()
    assert sample.landmarks_weight.all() and not sample.profiled
    none = make_record(landmarks_68=np.full((68, 3), np.nan), labels=None, labels_source=0)
    sample = draw_sample(none, np.random.default_rng(0), SETTINGS)
    assert not sample.landmarks_weight.any() and np.isfinite(sample.landmarks_68).all()
    assert not sample.labels.any() and sample.points_weight.all()


def test_turns_go_outward_only_and_keep_the_side():
    rng = np.random.default_rng(0)
    settings = AugmentSettings(profile=1.0, min_yaw=20)
    for yaw in (-40.0, 30.0, 10.0):
        turns = [draw_turn(np.radians([0, yaw, 0]), rng, settings) for _ in range(200)]
        degrees = np.degrees([turn.yaw for turn in turns])
        assert (np.sign(degrees) == np.sign(yaw)).all()
        assert np.abs(degrees).min() >= max(abs(yaw), 20) - 1e-6
        assert 90 < np.abs(degrees).max() <= 95
    sides = {np.sign(draw_turn(np.zeros(3), rng, settings).yaw) for _ in range(50)}
    assert sides == {-1.0, 1.0}


def test_same_seed_same_sample_and_records_stay_untouched():
    record = make_record(labels=_two_eyes())
    before = record.image.copy()
    record.image.setflags(write=False)
    data = TrainingDataset(Listed([record, make_record(yaw=9)]), SETTINGS, seed=4)
    again = TrainingDataset(Listed([record, make_record(yaw=9)]), SETTINGS, seed=4)
    for index in range(12):
        first, second = data[index], again[index]
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.points, second.points)
        assert first.index == index % 2
    assert not np.array_equal(data[0].points, data[2].points)  # another epoch
    other = TrainingDataset(data.records, SETTINGS, seed=5)
    assert not np.array_equal(data[0].points, other[0].points)
    np.testing.assert_array_equal(record.image, before)


def test_collate_shapes_and_types():
    data = TrainingDataset(Listed([make_record()]), SETTINGS)
    batch = collate([data[0], data[1], data[2]])
    assert batch.image.shape == (3, 3, 32, 32) and batch.image.dtype == torch.uint8
    assert batch.points.shape == (3, 468, 3) and batch.points.dtype == torch.float32
    assert batch.labels.shape == (3, 32, 32) and batch.angle.shape == (3, 3)
    assert batch.source.tolist() == [2, 2, 2] and len(batch) == 3
    np.testing.assert_array_equal(batch.image[1].permute(1, 2, 0), data[1].image)


def test_epoch_sampler_covers_resumes_and_splits():
    batches = list(EpochSampler(10, 4, seed=1, stop_step=10))
    flat = np.concatenate(batches)
    assert sorted(flat[:10] % 10) == list(range(10)) and (flat[:10] // 10 == 0).all()
    assert sorted(flat) == list(range(40))  # four epochs, each record once in each
    assert list(EpochSampler(10, 4, seed=1, start_step=6, stop_step=10)) == batches[6:]
    ranks = [list(EpochSampler(10, 4, seed=1, stop_step=10, rank=r, world_size=2)) for r in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == batches


def test_epoch_sampler_repeats_are_different_draws():
    flat = np.concatenate(list(EpochSampler(3, 5, seed=0, repeats=[1, 3, 1], stop_step=2)))
    assert sorted(flat % 3) == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2]
    assert len(set(flat)) == 10


def test_epoch_sampler_refuses_impossible_batches():
    with pytest.raises(ValueError, match="divisible"):
        EpochSampler(10, 5, world_size=2)
    with pytest.raises(ValueError, match="empty"):
        EpochSampler(0, 4)


def test_profiled_validation_is_fixed_and_in_range():
    lost = make_record(points=np.full((468, 3), np.nan))
    records = Listed([make_record(), lost, make_record(yaw=-20), make_record(yaw=30)])
    first, second = ProfiledValidation(records, 32), ProfiledValidation(records, 32)
    assert len(first) == 3 and [first[i].index for i in range(3)] == [0, 2, 3]
    yaws = np.degrees([first[i].angle[1] for i in range(3)])
    assert ((np.abs(yaws) >= 60) & (np.abs(yaws) <= 90)).all()
    assert yaws[1] < 0 < yaws[2]
    for i in range(3):
        np.testing.assert_array_equal(first[i].image, second[i].image)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="scale"):
        AugmentSettings(scale=(1.2, 0.9))
    with pytest.raises(ValueError, match="min_yaw"):
        AugmentSettings(min_yaw=96)
    with pytest.raises(ValueError, match="size"):
        AugmentSettings(size=4)
    plain = AugmentSettings(size=48).plain()
    record = make_record()
    drawn = draw_sample(record, np.random.default_rng(0), plain)
    placed = place_sample(record, Placement(), None, 48)
    np.testing.assert_array_equal(drawn.image, placed.image)
    np.testing.assert_array_equal(drawn.points, placed.points)
