"""Every kind of file that the project reads, with a small sound example and its reader."""

from __future__ import annotations

import csv
import functools
import importlib
import json
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import scipy.io
import torch
from mutations import Format
from PIL import Image
from synthetic_assets import official_arrays

import v3recon.networks
from v3recon.data.mesh_detection import stored_detector
from v3recon.evaluation.aflw2000 import read_annotation
from v3recon.evaluation.landmark_scores import read_points_file
from v3recon.face_models.bfm import load_bfm, load_similarity_landmarks
from v3recon.face_models.deep3d import DEEP3D_VARIABLES, load_deep3d
from v3recon.face_models.detector_mesh import POINT_COUNT
from v3recon.face_models.photohead import load_photohead
from v3recon.io.celebamask import read_celebamask
from v3recon.io.given_faces import open_given_faces, read_faces
from v3recon.io.images import read_image
from v3recon.io.obj import read_obj, write_obj
from v3recon.io.photo_index import (
    PhotoEntry,
    read_person_labels,
    read_photo_index,
    read_points,
    read_pts,
)
from v3recon.io.scan import read_points_3d, read_scan
from v3recon.io.tensors import read_tensor_file
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.networks.face_regressor import FORMAT as CHECKPOINT_FORMAT
from v3recon.training.run_state import FORMAT as STATE_FORMAT
from v3recon.training.run_state import FORMAT_VERSION, read_run

DEFAULT_WEIGHTS = Path(v3recon.networks.__file__).parent / "data" / "photohead_lite0.pth"


def _photo() -> Image.Image:
    y, x = np.mgrid[:60, :80]
    return Image.fromarray(np.stack([x * 3, y * 4, (x + y)], -1).astype(np.uint8))


def _images(folder: Path) -> list[Path]:
    photo = _photo()
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "a.jpg": {"exif": exif},
        "a.png": {"exif": exif},
        "a.webp": {},
        "a.bmp": {},
        "a.tif": {"compression": "tiff_lzw"},
    }
    for name, options in made.items():
        photo.save(folder / name, **options)
    photo.quantize(32).save(folder / "a.gif")
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(folder / "grey16.png")
    more = {"a.jp2": "JPEG2000", "a.avif": "AVIF", "a.heic": "HEIF", "a.jxl": "JXL"}
    for name, kind in more.items():
        with suppress(ImportError, ValueError):
            plugin = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}.get(kind, "PIL")
            getattr(importlib.import_module(plugin), "register_heif_opener", lambda: None)()
            Image.init()
            if kind in Image.SAVE:
                photo.save(folder / name, kind)
    return sorted(path for path in folder.iterdir() if path.is_file())


def _masks(folder: Path) -> list[Path]:
    classes = np.zeros((40, 40), np.uint8)
    classes[5:35, 5:35] = 1
    classes[20:24, 18:22] = 2
    Image.fromarray(classes).save(folder / "grey.png")
    picture = Image.fromarray(classes, "P")
    picture.putpalette(list(range(256)) * 3)
    picture.save(folder / "palette.png")
    return [folder / "grey.png", folder / "palette.png"]


def _points(folder: Path) -> list[Path]:
    np.save(folder / "points.npy", np.random.default_rng(0).random((3, 2, 68)))
    return [folder / "points.npy"]


def _detections(folder: Path) -> list[Path]:
    points = np.random.default_rng(0).random((2, POINT_COUNT, 3)).astype(np.float32)
    np.savez(folder / "meshes.npz", names=np.array(["a.jpg", "b.jpg"]), pts=points)
    np.savez_compressed(folder / "small.npz", names=np.array(["a.jpg", "b.jpg"]), pts=points)
    return [folder / "meshes.npz", folder / "small.npz"]


def _similarity(folder: Path) -> list[Path]:
    values = {"lm": np.random.default_rng(0).random((68, 3))}
    scipy.io.savemat(folder / "plain.mat", values)
    scipy.io.savemat(folder / "packed.mat", values, do_compression=True)
    return [folder / "plain.mat", folder / "packed.mat"]


def _annotation(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)
    values = {"roi": [[1, 2, 3, 4]], "pt3d_68": random.random((3, 68)), "name": "text"}
    values["Pose_Para"] = random.random((1, 7))
    scipy.io.savemat(folder / "plain.mat", values)
    scipy.io.savemat(folder / "packed.mat", values, do_compression=True)
    return [folder / "plain.mat", folder / "packed.mat"]


def _tensors(folder: Path) -> list[Path]:
    content = {"net_recon": {"a": torch.rand(3, 4), "b": torch.arange(5)}, "epoch": 3}
    torch.save(content, folder / "zip.pth")
    torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
    return [folder / "zip.pth", folder / "old.pth"]


def _state(folder: Path) -> list[Path]:
    text = json.dumps({"version": FORMAT_VERSION, "recipe": {"seed": 0}, "inputs": {}})
    weights = {"w": torch.rand(4, 4)}
    content = {"format": STATE_FORMAT, "description": text, "step": 3, "weights": weights}
    torch.save(content | {"average": weights, "optimizer": {"state": {}}}, folder / "state.pt")
    return [folder / "state.pt"]


def _meshes(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)
    vertices, faces = random.random((20, 3)), random.integers(0, 20, (30, 3))
    write_obj(folder / "colors.obj", vertices, faces, colors=random.random((20, 3)))
    write_obj(folder / "uv.obj", vertices, faces, uv_coords=random.random((20, 2)))
    return [folder / "colors.obj", folder / "uv.obj"]


def _pts(folder: Path) -> list[Path]:
    lines = "\n".join(f"{x:.3f} {y:.3f}" for x, y in np.random.default_rng(0).random((68, 2)) * 99)
    (folder / "a.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    return [folder / "a.pts"]


def _given_faces(folder: Path) -> list[Path]:
    made = {
        "a.txt": "# left top right bottom\n10 20 60 80\n5.5 6.5 30 41\n",
        "b.txt": "20 30\n40 30\n30 40\n22 50\n38 50\n",
        "c.bbox": "1\n1 10 60 20 80\n",
        "d.json": json.dumps([[1, 2, 30, 40], {"box": [1, 2, 3, 4], "points": [[1, 2]] * 5}]),
    }
    for name, text in made.items():
        (folder / name).write_text(text)
    return [folder / name for name in made]


def _given_table(folder: Path) -> list[Path]:
    (folder / "all.txt").write_text("photo,left,top,right,bottom\na b.jpg,1,2,30,40\n")
    (folder / "all.json").write_text(json.dumps({"a.jpg": [[1, 2, 30, 40]], "b.jpg": []}))
    return [folder / "all.txt", folder / "all.json"]


def _deep3d(folder: Path) -> list[Path]:
    arrays = official_arrays(rows=30, columns=15, sizes=(3, 2, 2))
    stored = {name: np.asarray(arrays[key]) for key, name in DEEP3D_VARIABLES.items()}
    for name in ("tri", "point_buf", "keypoints"):
        stored[name] = stored[name] + 1
    scipy.io.savemat(folder / "BFM_model_front.mat", stored)
    return [folder / "BFM_model_front.mat"]


def _index(folder: Path) -> list[Path]:
    path = folder / "index.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "source", "split", "landmarks", "mask"])
        rows.writerows([f"a/{n}.jpg", "a", "train", f"a/{n}.pts", ""] for n in range(20))
    return [path]


def _annotations(folder: Path) -> list[Path]:
    """Hand-made points of a whole source, as of CFP."""
    random, path = np.random.default_rng(0), folder / "annotations.npz"
    table = np.r_[np.arange(20), [-1] * 10]
    arrays = {
        "file": np.array(["a.jpg", "b.jpg"]),  # a name that numpy's own writer does not take
        "points_30": random.random((2, 30, 2)),
        "side": np.array(["right", "left"]),
        "ibug_right": table,
        "ibug_left": table,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return [path]


def _read_annotations(path: Path) -> object:
    entry = PhotoEntry("a.jpg", "a", "a", "train", path.name)
    return read_points(path.parent, entry)


def _person_labels(folder: Path) -> list[Path]:
    (folder / "a").mkdir()
    path = folder / "a" / "labels.csv"
    path.write_text("file,race,gender,age\n" + "".join(f"a/{n}.jpg,x,y,20-29\n" for n in range(9)))
    return [path]


def _read_person_labels(path: Path) -> object:
    return read_person_labels(path.parent.parent, "a")


def _scans(folder: Path) -> list[Path]:
    """A bowl of the size of a face, in three formats."""
    y, x = np.mgrid[-100:101:10, -100:101:10]
    vertices = np.stack([x, y, -((x**2 + y**2) / 200)], -1).reshape(-1, 3).astype(float)
    corner = (np.arange(20)[:, None] * 21 + np.arange(20)).ravel()
    upper = np.stack([corner, corner + 1, corner + 21], 1)
    faces = np.concatenate([upper, np.stack([corner + 1, corner + 22, corner + 21], 1)])
    write_obj(folder / "a.obj", vertices, faces)
    np.savez(folder / "b.npz", vertices=vertices, faces=faces)
    paths = [folder / "a.obj", folder / "b.npz"]
    with suppress(ImportError):
        import trimesh

        mesh = trimesh.Trimesh(vertices, faces, process=False)
        for kind in ("ply", "stl", "glb"):
            mesh.export(folder / f"c.{kind}")
            paths.append(folder / f"c.{kind}")
    return paths


def _scan_points(folder: Path) -> list[Path]:
    points = np.random.default_rng(0).random((7, 3)) * 100
    np.savetxt(folder / "a.txt", points)
    np.savetxt(folder / "a.csv", points, delimiter=",")
    np.save(folder / "a.npy", points)
    return [folder / "a.txt", folder / "a.csv", folder / "a.npy"]


def _face_model(folder: Path) -> list[Path]:
    arrays = official_arrays(rows=30, columns=15, sizes=(3, 2, 2))
    np.save(folder / "face_model.npy", np.array(arrays, dtype=object), allow_pickle=True)
    return [folder / "face_model.npy"]


def _small_photohead(folder: Path) -> list[Path]:
    path = folder / "head.npz"
    np.savez_compressed(path, **_photohead_arrays())
    return [path]


@functools.cache
def _photohead_arrays() -> dict[str, np.ndarray]:
    """The shipped head's arrays with two identity modes."""
    import v3recon.face_models.photohead as module

    with np.load(Path(module.__file__).parent / "data" / "photohead.npz") as file:
        arrays = {key: file[key] for key in file.files}
    arrays["id_basis"] = arrays["id_basis"][..., :2]
    return arrays


def _description(folder: Path) -> list[Path]:
    """The JSON text inside a checkpoint."""
    path = folder / "description.json"
    path.write_text(read_tensor_file(DEFAULT_WEIGHTS)["description"])
    return [path]


def _read_description(path: Path) -> object:
    text = path.read_bytes().decode("utf-8", "replace")
    content = {"format": CHECKPOINT_FORMAT, "description": text, "weights": _weights()}
    torch.save(content, path.with_suffix(".pth"))
    return load_checkpoint(path.with_suffix(".pth"))


@functools.cache
def _weights() -> dict[str, torch.Tensor]:
    return read_tensor_file(DEFAULT_WEIGHTS)["weights"]


def _read_index(path: Path) -> object:
    return read_photo_index(path.parent, path)


def _read_detections(path: Path) -> object:
    return stored_detector([path])


FORMATS = (
    Format("photo", _images, read_image, names_file=False),
    Format("label picture", _masks, read_celebamask),
    Format("points .npy", _points, read_points_file),
    Format("detections .npz", _detections, _read_detections),
    Format("similarity .mat", _similarity, load_similarity_landmarks),
    Format("AFLW2000 .mat", _annotation, read_annotation, names_file=False),
    Format("tensors .pth", _tensors, read_tensor_file),
    Format("training state", _state, read_run),
    Format("description", _description, _read_description),
    Format("mesh .obj", _meshes, read_obj),
    Format("points .pts", _pts, read_pts),
    Format("given faces", _given_faces, read_faces),
    Format("given faces of photos", _given_table, open_given_faces),
    Format("Deep3D's model .mat", _deep3d, load_deep3d),
    Format("index .csv", _index, _read_index),
    Format("annotations .npz", _annotations, _read_annotations),
    Format("labels .csv", _person_labels, _read_person_labels),
    Format("scan", _scans, read_scan),
    Format("points of a scan", _scan_points, read_points_3d),
    Format("face_model.npy", _face_model, load_bfm),
    Format("head .npz", _small_photohead, load_photohead),
)
