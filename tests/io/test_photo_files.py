from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from v3recon.io.photo_files import find_photos, list_photos

JPEG = b"\xff\xd8\xff\xe0" + bytes(20)


def make(folder, *names, data=b"x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def names_below(folder, paths=None):
    return [path.relative_to(folder).as_posix() for path in list_photos(paths or [folder])]


def test_folders_are_searched_in_order_and_once(tmp_path):
    make(tmp_path, "b.JPG", "a.png", "sub/deep/c.webp", "sub/d.jpeg", "notes.txt", ".hidden.jpg")
    make(tmp_path, ".cache/e.jpg")
    names = names_below(tmp_path, [tmp_path / "sub", tmp_path, tmp_path / "a.png"])
    assert names == ["sub/d.jpeg", "sub/deep/c.webp", "a.png", "b.JPG"]


def test_every_kind_a_viewer_shows_is_listed(tmp_path):
    suffixes = "jpe jfif mpo gif avif heic HEIF jxl bmp tif jp2 ppm nef DNG".split()
    make(tmp_path, *(f"{n:02}.{suffix}" for n, suffix in enumerate(suffixes)))
    assert len(names_below(tmp_path)) == len(suffixes)


def test_photos_without_a_suffix_are_told_by_their_content(tmp_path):
    make(tmp_path, "IMG_1", "b.JPG_large", "c.jpg~", data=JPEG)
    make(tmp_path, "README", "c.unknown", data=b"text")
    make(tmp_path, "d.csv", data=JPEG)
    assert names_below(tmp_path) == ["IMG_1", "b.JPG_large", "c.jpg~"]


def test_linked_folders_are_followed_once(tmp_path):
    make(tmp_path, "album/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "album" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "album" / "loop").symlink_to(tmp_path / "album")
    (tmp_path / "album" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    names = names_below(tmp_path, [tmp_path / "album"])
    assert names == ["album/a.jpg", "album/gone.jpg", "album/more/b.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_closed_folders_are_listed(tmp_path):
    make(tmp_path, "a.jpg", "closed/b.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        assert names_below(tmp_path) == ["a.jpg", "closed"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_results_are_told_by_their_content(tmp_path):
    make(tmp_path, "me.jpg", "out/me/me.png", "out/me/me_face2.png", "out/me/me_uv.png")
    make(tmp_path, "out/me/holiday.png", "out/me/me.jpg")
    np.save(tmp_path / "out/me/me.npy", np.array({"ldm68": 1}, object), allow_pickle=True)
    found = find_photos([tmp_path])
    below = [path.relative_to(tmp_path).as_posix() for path in found.photos]
    assert below == ["me.jpg", "out/me/holiday.png", "out/me/me.jpg"]
    assert sorted(path.name for path in found.results) == ["me.png", "me_face2.png", "me_uv.png"]
    (tmp_path / "out/me/me.npy").unlink()
    assert len(list_photos([tmp_path])) == 6, "nothing tells that they are results"
    (tmp_path / "out/me/me.json").write_text('{"v3recon": "1.0",\n')
    assert len(list_photos([tmp_path])) == 3


def test_numbers_beside_a_photo_are_no_results(tmp_path):
    """Folders of people's own that have the name and files that results have."""
    make(tmp_path, "me/me.png", "me/me_2.png")
    np.save(tmp_path / "me/me.npy", np.zeros(3))
    (tmp_path / "me/me.json").write_text("{}")
    assert names_below(tmp_path) == ["me/me.png", "me/me_2.png"]


def test_a_named_file_is_taken_whatever_it_is(tmp_path):
    make(tmp_path, "photo.xyz")
    assert list_photos([tmp_path / "photo.xyz"]) == [tmp_path / "photo.xyz"]
    Image.new("RGB", (2, 2)).save(tmp_path / "me.png")
    np.save(tmp_path / "me.npy", np.array({}, object), allow_pickle=True)
    assert list_photos([tmp_path / "me.png"]) == [tmp_path / "me.png"]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        list_photos([tmp_path / "none"])
    with pytest.raises(ValueError, match="no photos"):
        list_photos([tmp_path])
