import numpy as np
import pytest
from PIL import Image

from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.io.celebamask import (
    CLASS_NAMES,
    labels_from_celebamask,
    read_celebamask,
    read_classes,
    repair_sides,
)


def write(path, classes, mode="P"):
    picture = Image.fromarray(np.asarray(classes, np.uint8), mode)
    if mode == "P":
        picture.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
    picture.save(path)
    return path


def test_labels_are_the_parts_of_the_same_name():
    """Sides too: both the classes and the parts are named for the person."""
    labels = labels_from_celebamask(np.arange(19)[None])[0]
    for number, name in enumerate(CLASS_NAMES):
        assert labels[number] == (PART_NAMES.index(name) + 1 if name in PART_NAMES else 0)
    assert set(PART_NAMES) <= set(CLASS_NAMES)


def test_other_maps_are_refused():
    for unknown in (19, -1):
        with pytest.raises(ValueError, match="0…18"):
            labels_from_celebamask(np.array([[unknown]]))
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        labels_from_celebamask(np.zeros((2, 2, 3), int))


def test_palette_and_gray_pictures_give_indices(tmp_path):
    classes = np.array([[0, 2, 13], [11, 17, 3]], np.uint8)
    for mode in ("P", "L"):
        mask = read_celebamask(write(tmp_path / f"{mode}.png", classes, mode))
        np.testing.assert_array_equal(mask.classes, classes)
        np.testing.assert_array_equal(mask.labels, [[0, 5, 0], [6, 0, 0]])
        np.testing.assert_array_equal(mask.occluders, [[0, 0, 1], [0, 0, 1]])
        np.testing.assert_array_equal(mask.of("neck", "hair"), [[0, 0, 1], [0, 1, 0]])
        assert not mask.repaired


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("junk.png", b"x", "cannot be read"),
        ("color.png", np.zeros((2, 2, 3)), "mode RGB"),
        ("more.png", np.array([[1, 19]]), "0…18"),
        ("hair.png", np.array([[13, 0]]), "no face part"),
    ],
)
def test_unusable_masks_say_why(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content, "RGB" if content.ndim == 3 else "L")
    with pytest.raises(ValueError, match=message) as error:
        read_celebamask(path)
    assert name in str(error.value)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_reversed_sides_are_repaired(turns):
    """In every orientation of the head; pairs are judged one by one."""
    good = np.zeros((9, 9), np.uint8)
    good[3, 2], good[3, 6], good[2, 2], good[2, 6], good[5, 4] = 1, 2, 3, 4, 5
    bad = good.copy()
    bad[3, 2], bad[3, 6] = 2, 1
    good, bad = np.rot90(good, turns), np.rot90(bad, turns)
    assert repair_sides(good) is good
    assert (repair_sides(bad) == good).all() and (bad != good).sum() == 2
    alone = np.where(bad == 1, 0, bad)
    assert repair_sides(alone) is alone
    both = np.array([0, 2, 1, 4, 3, 5], np.uint8)
    one_eye = np.where(good == 1, 0, good)
    assert (repair_sides(both[one_eye]) == one_eye).all(), "as the brows"


def test_repair_moves_ears_with_the_eyes(tmp_path):
    """A mirrored photo that kept its labels: everything paired is exchanged."""
    good = np.zeros((9, 9), np.uint8)
    good[3, 2], good[3, 6], good[2, 2], good[2, 6], good[5, 4] = 5, 4, 7, 6, 2
    good[4, 0], good[4, 8] = 9, 8
    exchange = np.arange(19, dtype=np.uint8)
    exchange[[4, 5, 6, 7, 8, 9]] = [5, 4, 7, 6, 9, 8]
    assert not read_celebamask(write(tmp_path / "good.png", good)).repaired
    path = write(tmp_path / "bad.png", exchange[good])
    mask = read_celebamask(path)
    assert mask.repaired
    np.testing.assert_array_equal(mask.classes, good)
    np.testing.assert_array_equal(read_celebamask(path, repair=False).classes, exchange[good])


@pytest.mark.needs_shared
def test_hand_made_masks_with_reversed_sides(shared_dir):
    """This one calls the brow and the eye on the image's left the person's left ones."""
    folder = shared_dir / "photos" / "celebamask" / "masks"
    (path,) = folder.glob("*514018fe.png")
    wrong, mask = read_classes(path), read_celebamask(path)
    assert mask.repaired
    for right, left in ((5, 4), (7, 6)):
        assert np.argwhere(wrong == right)[:, 1].mean() > np.argwhere(wrong == left)[:, 1].mean()
        columns = [np.argwhere(mask.classes == side)[:, 1].mean() for side in (right, left)]
        assert columns[0] < columns[1]
