import json

import numpy as np
import pytest
import torch

from v3recon.data import part_parser, prepare
from v3recon.data.part_parser import (
    PartParser,
    load_parser,
    parse_record,
    part_iou,
    save_parser,
    train_parser,
)
from v3recon.data.regions import polygon_labels
from v3recon.data.samples import LABELS_HAND, FaceRecord
from v3recon.data.shards import PreparedFace, PreparedSet, write_shard
from v3recon.face_models.detector_mesh import estimate_pose, load_face_mesh
from v3recon.geometry.rotation import euler_to_matrix

MESH = load_face_mesh()


def drawn_face(number: int, roll: float = 0.0) -> FaceRecord:
    """A face whose mask differs from its polygons in the same way each time: no nose."""
    rotation = euler_to_matrix(torch.tensor([0.0, 0.1 * number, np.radians(roll)]).double()).numpy()
    points = MESH.mean.astype(np.float64) @ rotation * [65, -65, 65] + [128, 120, 0]
    labels = polygon_labels(points, 256)
    image = np.repeat(labels[..., None] * 25, 3, 2).astype(np.uint8)
    labels[labels == 5] = 8
    nothing = np.full((68, 3), np.nan)
    pose = estimate_pose(points)
    return FaceRecord(image, points, nothing, labels, LABELS_HAND, pose, 0, f"{number}.jpg")


@pytest.fixture
def prepared(tmp_path):
    for split, count in (("train", 6), ("val", 2)):
        faces = [PreparedFace(drawn_face(i), np.eye(2, 3)) for i in range(count)]
        write_shard(tmp_path / "prepared" / split / "00000", faces, ["drawn"], [])
    return tmp_path


def untrained() -> PartParser:
    """A parser that gives back the polygons it is given."""
    parser = PartParser().eval()
    torch.nn.init.zeros_(parser.head.weight)
    torch.nn.init.zeros_(parser.head.bias)
    return parser


def test_shapes():
    logits = PartParser().eval()(torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64))
    assert logits.shape == (2, 9, 64, 64)


@pytest.mark.parametrize("roll", [0.0, 30.0, -70.0])
def test_labels_come_back_to_their_place(roll):
    record = drawn_face(1, roll)
    labels = parse_record(untrained(), record)
    iou = part_iou(labels, polygon_labels(record.points, 256))
    assert iou.min() > 0.7 and iou[7] > 0.95, iou


def test_part_iou_counts_pixels():
    truth = np.array([[1, 1, 2, 0]])
    iou = part_iou(np.array([[1, 2, 2, 0]]), truth)
    np.testing.assert_allclose(iou[:2], [0.5, 0.5])
    assert np.isnan(iou[2:]).all()


@pytest.mark.slow
def test_training_learns_what_masks_show(prepared):
    records = PreparedSet(prepared / "prepared")
    start = part_parser.start_backbone(None)
    parser = train_parser(records, list(range(6)), steps=40, batch=2, start=start)
    labels = parse_record(parser, drawn_face(1))
    assert (labels == 5).sum() < 0.5 * (polygon_labels(drawn_face(1).points, 256) == 5).sum()


def test_program_saves_and_compares(prepared, capsys):
    out = prepared / "parser.pth"
    argv = ["--prepared", str(prepared / "prepared"), "--out", str(out), "--steps", "2"]
    assert part_parser.main(argv) == 0
    printed = capsys.readouterr().out
    assert "polygons" in printed and "parser" in printed
    assert load_parser(out)(torch.rand(1, 3, 64, 64), torch.zeros(1, 64, 64)).isfinite().all()
    assert part_parser.main(["--prepared", str(prepared), "--out", str(out)]) == 2
    assert "no prepared 'train' photos" in capsys.readouterr().err


def test_weights_round_trip_and_bad_files(tmp_path):
    parser = untrained()
    save_parser(tmp_path / "p.pth", parser, {"masks": 3})
    image, polygons = torch.rand(1, 3, 64, 64), torch.randint(0, 9, (1, 64, 64))
    torch.testing.assert_close(
        load_parser(tmp_path / "p.pth")(image, polygons), parser(image, polygons)
    )
    torch.save({"state": {"x": torch.zeros(1)}}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("x")
    for name in ("other.pth", "text.pth", "missing.pth"):
        with pytest.raises(ValueError, match=name):
            load_parser(tmp_path / name)


def test_prepare_uses_the_parser(tmp_path):
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(photos / "a.png")
    np.savez(tmp_path / "m.npz", names=np.array(["a.png"]), pts=drawn_face(0).points[None])
    save_parser(tmp_path / "p.pth", untrained(), {})
    argv = ["--photos", str(photos), "--out", str(tmp_path / "out"), "--workers", "1"]
    argv += ["--meshes", str(tmp_path / "m.npz"), "--face-model", "none"]
    assert prepare.main([*argv, "--part-parser", str(tmp_path / "p.pth")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["with_parsed_labels"] == 1 and report["with_polygon_labels"] == 0
    assert set(np.unique(PreparedSet(tmp_path / "out").record(0).labels)) == set(range(9))
    assert prepare.main([*argv, "--part-parser", str(tmp_path / "m.npz")]) == 2
