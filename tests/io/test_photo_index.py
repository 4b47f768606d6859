import hashlib
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from v3recon.io.photo_index import (
    HIDDEN,
    NOT_STATED,
    SELF_OCCLUDED,
    VISIBLE,
    PhotoEntry,
    final_split,
    read_person_labels,
    read_photo_index,
    read_points,
    read_pts,
)


def write_pts(path, points) -> None:
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points + 1)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")


def write_npz(path, **arrays) -> None:
    """As numpy.savez, which cannot write an array of the name `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def photo(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_pts_start_at_zero(tmp_path):
    points = np.arange(136).reshape(68, 2) * 1.0
    write_pts(tmp_path / "a.pts", points)
    np.testing.assert_allclose(read_pts(tmp_path / "a.pts"), points)
    hand = read_points(tmp_path, PhotoEntry("a.jpg", "x", "a", "train", "a.pts"))
    assert hand is not None and hand.complete and (hand.visibility == NOT_STATED).all()
    np.testing.assert_allclose(hand.points_68, points)
    write_pts(tmp_path / "b.pts", points[:5])
    with pytest.raises(ValueError, match="5 points, not 68"):
        read_points(tmp_path, PhotoEntry("b.jpg", "x", "b", "train", "b.pts"))
    (tmp_path / "c.pts").write_text("version: 1\n{\n1 2\nthree four\n}\n")
    with pytest.raises(ValueError, match=r"c.pts is not a readable"):
        read_pts(tmp_path / "c.pts")


def test_index_defaults_and_order(tmp_path):
    rows = ["file,split,landmarks", "set/b.jpg,val,set/b.pts", "a.jpg,,"]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    first, second = read_photo_index(tmp_path)
    assert first == PhotoEntry("a.jpg", "photos", "a", "train")
    assert second == PhotoEntry("set/b.jpg", "set", "set/b", "val", "set/b.pts")
    assert read_points(tmp_path, first) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nx\n", "no column 'file'"),
        ("file,split\na.jpg,dev\n", "split 'dev'"),
        ("file,mask_from\na.jpg,guess\n", "mask_from 'guess'"),
        ("file\n../a.jpg\n", "leads out"),
        ("file,landmarks\na.jpg,/etc/points.pts\n", "leads out"),
        ("file\n", "no photos"),
    ],
)
def test_unusable_indexes_say_why(tmp_path, text, message):
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_photo_index(tmp_path)


def test_folders_say_when_they_hold_nothing(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        read_photo_index(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no photos"):
        read_photo_index(tmp_path)


def test_folder_without_index_holds_a_share_out(tmp_path):
    """By name, so that the same photo is always held out; points lie beside photos."""
    for number in range(200):
        photo(tmp_path / f"set/{number}.png")
    write_pts(tmp_path / "set/7.pts", np.zeros((68, 2)))
    entries = {entry.file: entry for entry in read_photo_index(tmp_path)}
    assert len(entries) == 200 and entries["set/7.png"].landmarks == "set/7.pts"
    count = Counter(entry.split for entry in entries.values())
    assert set(count) == {"train", "val"} and 3 <= count["val"] <= 20
    for entry in entries.values():
        digest = hashlib.sha1(b"val" + entry.subject.encode()).hexdigest()
        assert (entry.split == "val") == (int(digest, 16) % 20 == 0)


def test_test_split_is_that_of_the_hash():
    share = {"aflw": 10, "cfp": 10, "fairface": 2}
    for subject in ("image04389", "cfp_451", "88", "someone"):
        value = int(hashlib.sha1(f"test{subject}".encode()).hexdigest(), 16)
        for source, parts in share.items():
            expected = "test" if value % parts == 0 else "train"
            assert final_split(source, subject, "train") == expected
            held_out = expected if expected == "test" and source == "fairface" else "val"
            assert final_split(source, subject, "val") == held_out
        assert final_split("lfw", subject, "train") == "train"


def test_annotations_of_a_source(tmp_path):
    """One file for many photos; each source's points also where iBUG has the same place."""
    rng = np.random.default_rng(0)
    points, seen = rng.normal(size=(2, 68, 2)), rng.integers(0, 3, (2, 68))
    points[seen == 0] = np.nan
    aflw = {"points_68": points, "visibility": seen, "points_21": rng.normal(size=(2, 21, 2))}
    aflw |= {name: np.array([3.0, 4.0]) for name in ("yaw", "residual", "shift_sigma")}
    aflw |= {"scale_exact": np.array([True, False]), "file": np.array(["b.jpg", "a.jpg"])}
    write_npz(tmp_path / "aflw.npz", **aflw)
    hand = read_points(tmp_path, PhotoEntry("a.jpg", "aflw", "a", "train", "aflw.npz"))
    assert hand is not None and not hand.scale_exact and hand.yaw == 4
    np.testing.assert_array_equal(hand.points_68, points[1])
    np.testing.assert_array_equal(hand.visibility, seen[1])
    with pytest.raises(ValueError, match=r"no points of c\.jpg"):
        read_points(tmp_path, PhotoEntry("c.jpg", "aflw", "c", "train", "aflw.npz"))
    write_npz(tmp_path / "other.npz", file=np.array(["a.jpg"]), x=np.zeros(1))
    with pytest.raises(ValueError, match="is not a file of points: it holds file, x"):
        read_points(tmp_path, PhotoEntry("a.jpg", "aflw", "a", "train", "other.npz"))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk.npz is not a file of points"):
        read_points(tmp_path, PhotoEntry("a.jpg", "aflw", "a", "train", "junk.npz"))
    with pytest.raises(ValueError, match=r"cannot read .*none.npz"):
        read_points(tmp_path, PhotoEntry("a.jpg", "aflw", "a", "train", "none.npz"))


@pytest.mark.needs_shared
def test_given_photos(shared_dir):
    """Numbers of the shared README; every row's points can be read."""
    folder = shared_dir / "photos"
    entries = read_photo_index(folder)
    count = Counter((entry.source, entry.split) for entry in entries)
    assert len(entries) == 21097 and count["aflw", "val"] == 460
    assert count["aflw", "test"] + count["aflw", "train"] == 8557
    for source, share in (("aflw", 0.1), ("cfp", 0.1), ("fairface", 0.5)):
        held_out = count[source, "test"] / (count[source, "test"] + count[source, "train"])
        assert abs(held_out - share) < 0.03
    assert {entry.source for entry in entries if entry.split == "test"} == {
        *("aflw", "cfp", "fairface")
    }
    subjects: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        subjects.setdefault((entry.source, entry.subject), set()).add(entry.split)
    assert all(len(splits) == 1 for splits in subjects.values())
    chosen = {}
    for entry in entries:
        if entry.landmarks.endswith(".npz"):
            hand = read_points(folder, entry)
            assert hand is not None
            known = np.isfinite(hand.points_68).all(1)
            if entry.source == "aflw":
                assert (known == (hand.visibility != SELF_OCCLUDED)).all()
                assert set(np.unique(hand.visibility)) <= {SELF_OCCLUDED, HIDDEN, VISIBLE}
            else:
                assert known.sum() == (21 if entry.source == "cfp" else 24)
            chosen[entry.source] = hand
    assert set(chosen) == {"aflw", "cfp", "webmorph"}
    webmorph = chosen["webmorph"].points_68  # right eye on the image's left, chin at the bottom
    assert webmorph[36, 0] < webmorph[45, 0] and webmorph[8, 1] == np.nanmax(webmorph[:, 1])


@pytest.mark.needs_shared
def test_given_labels(shared_dir):
    labels = read_person_labels(shared_dir / "photos", "fairface")
    assert len(labels) == 700
    assert set(Counter(one.group for one in labels.values()).values()) == {100}
    assert len(read_person_labels(shared_dir / "photos", "webmorph")) == 244
    with pytest.raises(ValueError, match="cannot read"):
        read_person_labels(shared_dir / "photos", "cfp")


@pytest.mark.parametrize("count", [2, 6])
def test_a_few_photos_without_an_index_have_one_for_validation(tmp_path, count):
    """By hash alone, none of so few might be held out."""
    for folder in range(5):
        root = tmp_path / str(folder)
        root.mkdir()
        for number in range(count):
            (root / f"{folder}_{number}.jpg").write_bytes(b"x")
        splits = [entry.split for entry in read_photo_index(root)]
        assert splits.count("val") >= 1 and splits.count("train") >= 1
        assert splits == [entry.split for entry in read_photo_index(root)]
