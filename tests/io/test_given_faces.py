"""Boxes and landmarks of users: every form that is read, and one sentence for the others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from v3recon.io.given_faces import GivenFace, open_given_faces, read_faces

BOX = (10.0, 20.0, 60.5, 80.0)
FIVE = [[20.0, 30.0], [40.0, 30.0], [30.0, 40.0], [22.0, 50.0], [38.0, 50.0]]


def written(path, text: str):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "10 20 60.5 80\n"),
        ("a.txt", "# left top right bottom\n10, 20, 60.5, 80\n\n"),
        ("a.bbox", "1\n1 10 60.5 20 80\n"),
        ("a.json", "[10, 20, 60.5, 80]"),
        ("a.json", "[[10, 20, 60.5, 80]]"),
        ("a.json", '{"box": [10, 20, 60.5, 80]}'),
    ],
)
def test_forms_of_a_box(tmp_path, name, text):
    (face,) = read_faces(written(tmp_path / name, text))
    assert face.box == BOX and face.points is None


def test_forms_of_points(tmp_path):
    lines = "\n".join(f"{x} {y}" for x, y in FIVE)
    (one,) = read_faces(written(tmp_path / "a.txt", lines))
    (two,) = read_faces(written(tmp_path / "a.json", json.dumps(FIVE)))
    (three,) = read_faces(written(tmp_path / "b.json", json.dumps([{"points": FIVE, "box": BOX}])))
    for face in (one, two, three):
        assert face.points is not None
        np.testing.assert_array_equal(face.points, FIVE)
    assert one.box is None and three.box == BOX
    many = "\n".join(f"{x} {x}" for x in range(68))
    (face,) = read_faces(written(tmp_path / "a.pts", f"version: 1\nn_points: 68\n{{\n{many}\n}}"))
    assert face.points is not None and face.points[1, 0] == 0, "iBUG counts pixels from 1"
    assert len(read_faces(written(tmp_path / "c.json", json.dumps([FIVE, list(BOX)])))) == 2
    assert read_faces(written(tmp_path / "d.json", "[]")) == ()


def test_one_file_for_all_photos(tmp_path):
    text = "photo,left,top,right,bottom\na b.jpg,10,20,60.5,80\na b.jpg,1,2,3,4\nc.jpg 1 2 3 4\n"
    for path in (
        written(tmp_path / "all.csv", text),
        written(tmp_path / "all.json", json.dumps({"a b.jpg": [BOX, [1, 2, 3, 4]], "c": BOX})),
    ):
        given = open_given_faces(path)
        faces = given.of(tmp_path / "a b.jpg")
        assert faces is not None and [face.box for face in faces] == [BOX, (1, 2, 3, 4)]
        assert given.of(tmp_path / "c.jpg") is not None
        assert given.of(tmp_path / "other.jpg") is None


def test_files_beside_photos_and_in_a_folder(tmp_path):
    (tmp_path / "boxes").mkdir()
    written(tmp_path / "a.jpg.bbox", "1\n1 10 60.5 20 80\n")
    written(tmp_path / "boxes" / "b.txt", "1 2 3 4")
    beside, folder = open_given_faces("beside"), open_given_faces(tmp_path / "boxes")
    assert [face.box for face in beside.of(tmp_path / "a.jpg") or []] == [BOX]
    assert beside.of(tmp_path / "b.jpg") is None
    assert [face.box for face in folder.of(tmp_path / "b.jpg") or []] == [(1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10 20 5 80", "a box is left, top, right, bottom, not 10, 20, 5, 80"),
        ("10 20 nan 80", "a box is left"),
        ("1 2\n3 4", "5 or 68 pairs"),
        ("1 2 3", "neither boxes"),
        ("", "neither boxes"),
        ("2\n1 10 60 20 80", "says 2 boxes and holds 1"),
        ("left top", "could not convert"),
    ],
)
def test_what_cannot_be_understood_is_one_sentence(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_faces(written(tmp_path / "a.txt", text))
    assert str(caught.value).startswith(f"boxes: {tmp_path / 'a.txt'}: ")


def test_other_faults_are_named(tmp_path):
    for text in ("{", "3", '[{"box": 3}]', '[{"box": ["a", 1, 2, 3]}]', '[{"points": {}}]', "[{}]"):
        with pytest.raises(ValueError, match=r"boxes: .*a\.json"):
            read_faces(written(tmp_path / "a.json", text))
    with pytest.raises(ValueError, match="no such file or folder; or say 'beside'"):
        open_given_faces(tmp_path / "absent")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="not a text file"):
        read_faces(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="without box and points"):
        GivenFace()
