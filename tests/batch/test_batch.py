"""Many photos to tables: each photo once, whatever is killed."""

from __future__ import annotations

import multiprocessing
import tarfile

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from skimage.data import astronaut

from v3recon.batch import run
from v3recon.batch.parquet import write_parquet
from v3recon.batch.run import PLAN, run_batch, shard_path
from v3recon.batch.sources import list_items, read_item
from v3recon.cli.batch import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with two faces, a meadow and a damaged file, and a tar file with a face."""
    folder = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(astronaut()[:256, 96:352])
    face.save(folder / "a.jpg", quality=95)
    (folder / "deep").mkdir()
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "deep" / "b.png")
    Image.new("RGB", (80, 60), "green").save(folder / "c.png")
    (folder / "d.jpg").write_bytes(b"\xff\xd8\xffdamaged")
    face.save(folder / "in_tar.jpg", quality=95)
    with tarfile.open(folder / "more.tar", "w") as archive:
        (folder / "0001.json").write_text("{}")
        archive.add(folder / "0001.json", "0001.json")
        archive.add(folder / "in_tar.jpg", "0001.jpg")
    (folder / "in_tar.jpg").unlink()
    return folder


def test_sources_name_each_photo_once(photos, tmp_path):
    items = list_items([str(photos), str(photos / "a.jpg"), str(photos / "more.tar")])
    names = [item.name.removeprefix(str(photos)) for item in items]
    assert names == ["/a.jpg", "/c.png", "/d.jpg", "/deep/b.png", "/more.tar/0001.jpg"]
    np.testing.assert_array_equal(read_item(items[-1]), read_item(items[0]))
    pattern = list_items([str(photos / "**" / "*.png")])
    assert [item.name for item in pattern] == [str(photos / "c.png"), str(photos / "deep/b.png")]
    (tmp_path / "list.txt").write_text(f"{photos / 'a.jpg'}\n\n{photos / 'c.png'}\n")
    write_parquet(tmp_path / "list.parquet", {"path": [str(photos / "a.jpg")], "n": [1]})
    assert len(list_items([str(tmp_path / "list.txt")])) == 2
    assert len(list_items([str(tmp_path / "list.parquet")])) == 1
    (tmp_path / "bad.tar").write_bytes(b"no tar file")
    for source in ("none", "none/*.jpg", "bad.tar"):
        with pytest.raises(ValueError, match=source.replace("*", r"\*")):
            list_items([str(tmp_path / source)])
    with pytest.raises(ValueError, match="column 'path'"):
        write_parquet(tmp_path / "other.parquet", {"n": [1]})
        list_items([str(tmp_path / "other.parquet")])


def test_a_killed_process_loses_nothing(photos, tmp_path):
    items = list_items([str(photos), str(photos / "more.tar")])
    reports = []

    def kill_once(report: run.ShardReport) -> None:
        reports.append(report)
        if len(reports) == 1:
            for child in multiprocessing.active_children():
                child.kill()

    settings = {"device": "cpu"}
    folder = tmp_path / "out"
    assert run_batch(items, folder, settings, shard_size=2, done=kill_once) == []
    parts = [shard_path(folder, number) for number in range(3)]
    assert sorted(folder.iterdir()) == sorted([*parts, folder / PLAN])
    tables = [pyarrow.parquet.read_table(path).to_pylist() for path in parts]
    rows = [row for table in tables for row in table]
    assert [row["photo"] for row in rows] == [item.name for item in items]
    assert [row["face"] for row in rows] == [1, 0, 0, 1, 1]
    assert "JPEG" in rows[2]["error"] or "read" in rows[2]["error"]
    assert rows[1]["error"] == "" and rows[1]["landmarks_68"] is None
    assert len(rows[0]["id"]) == 80 and len(rows[0]["landmarks_68"]) == 136
    assert rows[0]["landmarks_68"] == rows[4]["landmarks_68"]  # the same photo, from the tar file
    assert rows[0]["quality"] > 0.5 and rows[0]["score"] > 0.9
    # Done once: nothing is done again, and other photos have no place here.
    before = [path.stat().st_mtime_ns for path in parts]
    assert run_batch(items, folder, settings, shard_size=2) == []
    assert [path.stat().st_mtime_ns for path in parts] == before
    for other, others in ((items[:4], settings), (items, {"device": "cuda"})):
        with pytest.raises(ValueError, match="other photos or settings"):
            run_batch(other, folder, others, shard_size=2)


def test_a_shard_that_always_kills_is_given_up(monkeypatch, tmp_path, photos):
    """The pool is replaced: shard 1 kills its process at every try."""
    items = list_items([str(photos)])
    tried: list[list[int]] = []

    def pool(waiting, items, folder, *_):
        tried.append(list(waiting))
        for number in waiting:
            if number == 1:
                return {*waiting}
            write_parquet(shard_path(folder, number), {"photo": ["x"]})
        return {*waiting}

    monkeypatch.setattr(run, "_run_pool", pool)
    assert run_batch(items, tmp_path, {}, shard_size=1, workers=2) == [1]
    assert shard_path(tmp_path, 0).is_file() and shard_path(tmp_path, 3).is_file()
    assert not shard_path(tmp_path, 1).is_file() and tried.count([1]) == 2


def test_wrong_usage_is_told(tmp_path, photos, capsys):
    assert main([str(tmp_path / "none"), "-s", str(tmp_path / "out")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([str(photos), "-s", str(tmp_path / "out"), "--workers", "0"]) == 2
    assert main([]) == 2
