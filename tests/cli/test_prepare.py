"""`v3recon prepare` on a folder with good, faceless and broken photos, on made-up assets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from v3recon.cli.prepare import KINDS, main
from v3recon.data import face_labels
from v3recon.data.face_labels import COLUMNS, LABEL_KINDS
from v3recon.io.tables import read_table


@pytest.fixture
def photos(tmp_path):
    """A photo of two faces, one without any, one that is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    face = astronaut()[:256, 96:352]
    Image.fromarray(np.concatenate([face, face], 1)).save(folder / "two.png")
    Image.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(folder / "wall.png")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    return folder


@pytest.fixture
def run(official_assets, tmp_path, photos, capsys):
    def call(*more: object) -> tuple[int, str, str]:
        common = ["-i", photos, "-s", tmp_path / "out", "--assets", official_assets]
        words = [*common, "--backbone", "mbnetv3", "--device", "cpu", *more]
        status = main([str(word) for word in words])
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return call


def test_every_face_has_its_labels_and_its_line(run, tmp_path, photos):
    status, said, _ = run()
    assert status == 1 and "3 photos: 2 faces labeled" in said
    assert "torn.jpg" in said and "no face found in:" in said and "wall.png" in said
    out = tmp_path / "out"
    rows = read_table(out / "list.csv")
    assert list(rows[0]) == list(COLUMNS)
    by_photo = {(row["photo"], row["face"]): row for row in rows}
    assert len(rows) == 4
    assert by_photo[str(photos / "wall.png"), "0"]["problem"] == "no face found"
    assert "not a photo" in by_photo[str(photos / "torn.jpg"), "0"]["problem"]
    endings = {kind: ending for kind, (ending, _) in LABEL_KINDS.items()}
    for number, name in (("1", "two"), ("2", "two_face2")):
        row = by_photo[str(photos / "two.png"), number]
        assert row["problem"] == ""
        for kind, ending in endings.items():
            assert row[kind] == f"{kind}/{name}{ending}" and (out / row[kind]).is_file()
    left, right = (float(by_photo[str(photos / "two.png"), n]["left"]) for n in ("1", "2"))
    assert abs(abs(left - right) - 256) < 8, "the same face twice, side by side"
    assert np.load(out / "uv_weights.npy").shape == (256, 256)
    columns, rows_of = np.loadtxt(out / "uv_kpt_ind.txt").astype(int)
    positions = np.load(out / "positions/two.npy")
    points = np.loadtxt(out / "landmarks/two.txt")
    assert np.abs(positions[rows_of, columns, :2] - points)[17:].mean() < 4  # a coarse mesh


def test_only_what_is_chosen_is_written_and_masks_are_no_photos(run, tmp_path, photos):
    (photos / "torn.jpg").unlink()
    assert run("--only", "masks,params", "-s", photos)[0] == 0
    written = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*") if p.is_file())
    labels = [f"{kind}/{n}.{e}" for kind, e in (("masks", "png"), ("params", "npz"))
              for n in ("two", "two_face2")]  # fmt: skip
    assert written == ["list.csv", *labels, "two.png", "wall.png"]
    status, said, _ = run("--only", "masks", "-s", photos)
    assert status == 0 and "2 photos: 2 faces labeled" in said


def test_a_full_disk_is_named_and_leaves_no_half_file(run, tmp_path, monkeypatch):
    def fail(*_args, **_arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(face_labels.np, "savez", fail)
    status, said, _ = run("--only", "params")
    assert status == 1 and "No space left on device" in said
    assert not list((tmp_path / "out" / "params").iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--only", "poses"), "only: 'poses' is not known"),
        (("--assets", "nowhere"), "nowhere"),
        (("-i", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_wrong_usage_is_one_sentence(run, tmp_path, flags, message):
    status, _, error = run(*flags)
    assert status == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "list.csv").exists()


def test_the_flag_names_every_kind():
    assert tuple(KINDS.split(",")) == tuple(LABEL_KINDS)


def test_faces_may_be_fitted_first(run, photos, tmp_path, monkeypatch):
    for name in ("torn.jpg", "wall.png"):
        (photos / name).unlink()
    asked = []

    def fit(faces):
        asked.append(len(faces))
        return type("Fitted", (), {"faces": faces[:1]})

    monkeypatch.setattr("v3recon.fitting.fit_photo.fit", fit)
    assert run("--fit", "--only", "landmarks")[0] == 0
    assert asked == [2] and len(read_table(tmp_path / "out" / "list.csv")) == 1
