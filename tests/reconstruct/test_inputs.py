"""Every kind of photo becomes the same array; everything else is one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from v3recon.io.images import write_png
from v3recon.reconstruct.inputs import as_images

PHOTO = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_all_kinds_are_the_same_photo(tmp_path):
    path = tmp_path / "a photo.png"
    write_png(path, PHOTO)
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    kinds = [
        path,
        str(path),
        Image.fromarray(PHOTO),
        PHOTO,
        PHOTO / 255,
        (PHOTO / 255).astype(np.float32),
        tensor,
        tensor / 255,
        (tensor / 255).double().requires_grad_(),
        np.dstack([PHOTO, np.full((30, 40), 255, np.uint8)]),
        Image.fromarray(PHOTO).convert("RGBA"),
    ]
    for kind in kinds:
        found = as_images(kind)
        assert found.single and len(found.images) == 1
        np.testing.assert_array_equal(found.images[0], PHOTO)
    assert as_images(path).names == ["a photo"] and as_images(PHOTO).names == ["photo"]
    together = as_images(kinds)
    assert not together.single and len(together.images) == len(kinds)


def test_batches_are_lists():
    batch = np.stack([PHOTO, PHOTO[::-1]])
    for kind in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2), [batch[0], batch[1]]):
        found = as_images(kind)
        assert not found.single
        np.testing.assert_array_equal(np.stack(found.images), batch)
    assert as_images([]).images == []


def test_grey_and_opacity():
    grey = PHOTO[..., 0]
    for kind in (grey, grey[..., None], torch.from_numpy(grey)[None], Image.fromarray(grey)):
        np.testing.assert_array_equal(as_images(kind).images[0], np.stack([grey] * 3, 2))
    half = np.dstack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 128, np.uint8)])
    assert (as_images(half).images[0] == 127).all(), "half black over white"
    half[..., 3] = 0
    assert (as_images(half).images[0] == 255).all()


def test_pillow_images_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 3
    image = Image.fromarray(PHOTO)
    image.info["exif"] = exif.tobytes()
    image.getexif()[0x0112] = 3
    np.testing.assert_array_equal(as_images(image).images[0], PHOTO[::-1, ::-1])


def test_the_input_is_not_changed_and_not_shared():
    values = (PHOTO / 255).astype(np.float32)
    before = values.copy()
    as_images(values).images[0][:] = 0
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "NoneType"),
        (7, "int"),
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        (np.zeros((4, 5, 6)), r"\[4, 5, 6\]"),
        (np.zeros(5), r"\[5\]"),
        (torch.zeros(30, 40, 3), r"\[30, 40, 3\]"),
        (torch.zeros(30, 40), r"\[30, 40\]"),
        (np.zeros((3, 3, 3), np.int32), "int32"),
        (np.zeros((3, 3, 3), bool), "bool"),
        (np.full((3, 3, 3), 200.0), "0…1"),
        (np.full((3, 3, 3), -1.0), "0…1"),
        (np.full((3, 3, 3), np.nan), "not finite"),
        (np.zeros((0, 3, 3), np.uint8), "empty"),
        ([PHOTO, None], "NoneType"),
    ],
)
def test_everything_else_is_one_sentence(given, said):
    with pytest.raises(ValueError, match=said) as caught:
        as_images(given)
    assert str(caught.value).startswith("image: ") and "\n" not in str(caught.value)
