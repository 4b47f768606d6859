"""Albedo: light that was put on comes off again, hidden places are filled, modes are found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from v3recon.photohead import albedo, albedo_samples
from v3recon.photohead.albedo_samples import Unwrapped

SIDE = 16


@pytest.fixture(scope="module")
def mesh() -> albedo_samples.AlbedoMesh:
    """A grid over a half-cylinder that faces the camera; all skin, but for two eye vertices."""
    ids = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a, b, c, d = ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]
    faces = np.concatenate(
        [np.stack([a, b, d], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    )
    labels = np.full(SIDE * SIDE, 8)
    labels[[ids[4, 4], ids[4, SIDE - 5]]] = 1, 2
    operator = sparse.csr_matrix(sparse.identity(SIDE * SIDE))
    return albedo_samples.AlbedoMesh(operator, faces, np.fliplr(ids).reshape(-1), labels)


def control_points() -> np.ndarray:
    """[V, 3] pixels, y up: a bulge 40 pixels wide in an image of 64."""
    x, y = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(1, -1, SIDE))
    z = np.sqrt(np.clip(2.2 - x**2 - 0.6 * y**2, 0, None))
    return np.stack([32 + 20 * x, 20 * y - 32, 20 * z], -1).reshape(-1, 3)


def lit_photos(mesh: albedo_samples.AlbedoMesh, count: int, light_size: float) -> Unwrapped:
    """Samples of people who differ in two tones, each under a light of its own."""
    rng = np.random.default_rng(0)
    normals = albedo_samples.vertex_normals(control_points(), mesh.faces)
    basis = albedo.light_basis(normals.astype(np.float32)[None])[0]
    tone = np.array([0.6, 0.45, 0.36]) * np.exp(0.2 * rng.normal(size=(count, 1)))
    cheeks = np.exp(-((normals[:, 0] ** 2 - 0.2) ** 2) / 0.01)[:, None] * [1, 0.2, 0.1]
    skins = tone[:, None] + 0.08 * rng.normal(size=(count, 1, 1)) * cheeks
    coeffs = light_size * rng.normal(size=(count, 9)) / 2
    coeffs[:, 0] = 1
    light = basis @ coeffs.T
    light = (light / light.mean(0)).T[..., None]
    weights = np.ones((count, len(normals)), np.float32)
    return Unwrapped(
        (skins * light).astype(np.float32),
        weights,
        np.broadcast_to(normals, skins.shape).astype(np.float32),
    )


def test_light_is_removed_and_tone_stays(mesh: albedo_samples.AlbedoMesh) -> None:
    dark, lit = lit_photos(mesh, 60, 0.0), lit_photos(mesh, 60, 0.12)
    skin = mesh.labels == 8
    basis = albedo.light_basis(lit.normals)
    mean = dark.colors.mean(0)
    light, trust = albedo.fit_light(lit.colors, lit.weights, basis, mean, skin)
    before = np.abs(lit.colors - dark.colors).mean()
    after = np.abs(lit.colors / light - dark.colors).mean()
    assert after < 0.35 * before
    assert (trust > 0).mean() > 0.95
    level = (lit.colors / light)[:, skin].mean(1) / dark.colors[:, skin].mean(1)
    np.testing.assert_allclose(level, 1, atol=0.06)


def test_model_spans_the_tones(mesh: albedo_samples.AlbedoMesh) -> None:
    model = albedo.learn_albedo(lit_photos(mesh, 80, 0.05), mesh, modes=6)
    assert model.mean.shape == (SIDE * SIDE, 3) and model.basis.shape == (SIDE * SIDE, 3, 6)
    np.testing.assert_allclose(model.mean, model.mean[mesh.mirror], atol=1e-5)
    norms = (model.basis**2).sum((0, 1))
    assert (np.diff(norms) <= 1e-6).all() and model.explained > 0.9
    first = model.basis[..., 0]
    assert (first > 0).mean() > 0.95  # brightness comes first, brighter where positive
    assert first.std(0).max() < 0.35 * first.mean()


def test_too_few_photos_are_refused(mesh: albedo_samples.AlbedoMesh) -> None:
    with pytest.raises(ValueError, match="more than 80 are needed"):
        albedo.learn_albedo(lit_photos(mesh, 20, 0.0), mesh, modes=80)


def test_gray_photos_are_not_used(mesh: albedo_samples.AlbedoMesh) -> None:
    photos = lit_photos(mesh, 20, 0.0)
    colors = photos.colors.copy()
    colors[3] = colors[3].mean(-1, keepdims=True)
    keep = albedo.usable(Unwrapped(colors, photos.weights, photos.normals), mesh)
    assert not keep[3] and keep.sum() >= 17


def test_hidden_side_is_taken_from_the_other(mesh: albedo_samples.AlbedoMesh) -> None:
    photos = lit_photos(mesh, 30, 0.0)
    x = control_points()[:, 0]
    colors, weights = photos.colors.copy(), photos.weights.copy()
    hidden = x > 36
    colors[0, hidden], weights[0, hidden] = 0.0, 0.0
    skin = mesh.labels == 8
    filled = albedo.fill_hidden(colors, weights, colors[1:].mean(0), mesh, skin)
    np.testing.assert_allclose(filled[0], photos.colors[0], atol=0.02)


def test_unwrapping_samples_the_photo_and_leaves_out_what_is_hidden(
    mesh: albedo_samples.AlbedoMesh,
) -> None:
    rows, columns = np.mgrid[:64, :64]
    image = np.stack([4 * columns, 4 * rows, 0 * rows], -1).astype(np.uint8)
    labels = np.full((64, 64), 8)
    labels[:, :30] = 0  # hair
    control = control_points()
    photo = albedo_samples.FacePhoto(image, control, labels, eyes_open=False, lips_closed=True)
    unwrapped = albedo_samples.unwrap_photos([photo], mesh)
    expected = np.stack([4 * control[:, 0], -4 * control[:, 1]], 1) / 255
    np.testing.assert_allclose(unwrapped.colors[0, :, :2], expected, atol=0.01)
    weight = unwrapped.weights[0]
    assert (weight[control[:, 0] < 29.4] == 0).all()
    assert (weight[np.isin(mesh.labels, (1, 2))] == 0).all()
    inner = (control[:, 0] > 31) & (control[:, 0] < 38) & (mesh.labels == 8)
    assert (weight[inner] > 0.5).all()


def test_interpolation_operator() -> None:
    parents = np.array([[0, 0], [1, 1], [2, 2], [0, 1], [2, 1]])
    dense = albedo.interpolation_operator(parents, 3) @ np.array([0.0, 10.0, 4.0])
    np.testing.assert_allclose(dense, [0, 10, 4, 5, 7])
