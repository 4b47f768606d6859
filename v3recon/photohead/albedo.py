"""Albedo statistics from photographs: unwrap to vertices, remove light, fill gaps, PCA.

Light is nine spherical harmonics a colour, fitted on the skin of each photo against the normals of
its fitted mesh and the mean albedo of the round before, and divided out. Its mean over the face is
one in every colour, so the tone of the skin stays where the photo has it: a single photo cannot
tell a bright skin from a bright lamp. What the mean albedo itself has in common with the
harmonics is taken out as well, because faces are lit from above more often than not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu

from v3recon.face_models.linear_face_model import PART_NAMES
from v3recon.geometry.spherical_harmonics import sh_basis
from v3recon.photohead.albedo_samples import AlbedoMesh, Unwrapped

SKIN_LABELS = (PART_NAMES.index("nose") + 1, PART_NAMES.index("skin") + 1)
ASYMMETRY = 0.5
"""Differences between the sides count this much: most of them is light that was not removed."""
TONE_SPREAD = 0.75
"""Deviations of a face's brightness (log) count this much: part of it is the camera's exposure."""
BLOTCH_SPREAD = 0.6
"""Differences of hue within the skin of one face count this much: many are tinted lamps."""
HUE_SPREAD = 0.45
"""Deviations of a face's hue from what goes with its brightness count this much: most of them are
the camera's white balance."""
_LIGHT_ROUNDS = 3
_LIGHT_PRIOR = 0.02
_LIGHT_STEP = 4  # light has 9 numbers a color: every fourth vertex says enough
_MIN_LIGHT = 0.4
_FILL_ROUNDS = 3
_FILL_MODES = 40
_OUTLIER = 3.5
_OFTEN = 0.45
_SPREAD = 0.5
_MIN_CHROMA = 0.04
_MIN_SEEN = 0.5


@dataclass(frozen=True)
class AlbedoModel:
    """Linear albedo statistics.

    Attributes:
        mean: [Va, 3] RGB, 0…1.
        basis: [Va, 3, K] per standard deviation.
        used: number of photos that went in.
        explained: share of the variance that the K modes explain.
    """

    mean: np.ndarray
    basis: np.ndarray
    used: int
    explained: float


def learn_albedo(unwrapped: Unwrapped, mesh: AlbedoMesh, modes: int = 80) -> AlbedoModel:
    """Mean albedo and its main modes.

    Args:
        unwrapped: photos at the vertices.
        mesh: the albedo mesh.
        modes: K.

    Raises:
        ValueError: if there are fewer usable photos than modes.
    """
    keep = usable(unwrapped, mesh)
    if keep.sum() <= modes:
        raise ValueError(
            f"{int(keep.sum())} usable photos of {len(keep)} for {modes} albedo modes; "
            f"more than {modes} are needed"
        )
    colors, weights = unwrapped.colors[keep], unwrapped.weights[keep]
    basis_sh = light_basis(unwrapped.normals[keep])
    skin = np.isin(mesh.labels, SKIN_LABELS)
    mean = np.broadcast_to(tone_of(colors, weights, skin).mean(0), colors.shape[1:]).copy()
    albedo = colors
    for _ in range(_LIGHT_ROUNDS):
        light, trust = fit_light(colors, weights, basis_sh, mean, skin)
        albedo = colors / np.maximum(light, _MIN_LIGHT)
        mean = _weighted_mean(albedo, trust, mesh)
        mean = _flatten(mean, basis_sh.mean(0), skin)
    weights = trust
    albedo = _temper_tone(np.clip(albedo, 0, 1.3), tone_of(albedo, weights, skin))
    filled = fill_hidden(albedo, weights, mean, mesh, skin)
    filled = _temper_blotches(filled, skin)
    sample_weights = tone_balance(tone_of(filled, np.ones_like(weights), skin))
    model = _statistics(filled, sample_weights, mesh, modes)
    return smooth_rarely_seen(model, weights.mean(0), mesh)


def usable(unwrapped: Unwrapped, mesh: AlbedoMesh) -> np.ndarray:
    """Photos [N] in color, mostly seen, without an extreme color cast."""
    skin = np.isin(mesh.labels, SKIN_LABELS)
    tone = tone_of(unwrapped.colors, unwrapped.weights, skin)
    seen = (unwrapped.weights[:, skin] > 0.1).mean(1) > _MIN_SEEN
    lit = (tone > 0.08).all(1) & (tone < 0.95).all(1)
    colored = (tone[:, 0] - tone[:, 2]) / tone.sum(1).clip(1e-3) > _MIN_CHROMA
    keep = seen & lit & colored
    if keep.sum() < 3:
        return keep
    hue = np.log(tone[:, [0, 2]].clip(1e-3) / tone[:, 1:2].clip(1e-3))
    center = np.median(hue[keep], 0)
    spread = 1.48 * np.median(np.abs(hue[keep] - center), 0) + 1e-6
    return keep & ((((hue - center) / spread) ** 2).sum(1) < 3.5**2)


def tone_of(colors: np.ndarray, weights: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Median-like skin colour of each photo, [N, 3]: the mean of the middle half by brightness."""
    tones = []
    for color, weight in zip(colors[:, skin], weights[:, skin], strict=True):
        seen = color[weight > 0.3]
        if len(seen) < 10:
            tones.append(np.zeros(3))
            continue
        bright = seen.sum(1)
        low, high = np.quantile(bright, [0.25, 0.75])
        tones.append(seen[(bright >= low) & (bright <= high)].mean(0))
    return np.array(tones)


def light_basis(normals: np.ndarray) -> np.ndarray:
    """Spherical harmonics [N, Va, 9] at normals [N, Va, 3], first term 1."""
    basis = sh_basis(torch.from_numpy(np.ascontiguousarray(normals))).numpy()
    return basis / basis[..., :1]


def fit_light(
    colors: np.ndarray,
    weights: np.ndarray,
    basis: np.ndarray,
    mean: np.ndarray,
    skin: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Light of each photo on its vertices, and which vertices look like the face at all.

    Args:
        colors: [N, Va, 3].
        weights: [N, Va].
        basis: [N, Va, 9], see `light_basis`.
        mean: [Va, 3] current mean albedo.
        skin: [Va] bool, vertices that light is fitted on.

    Returns:
        light [N, Va, 3], mean 1 over the seen skin in each color; and weights [N, Va] without
        hair, glasses, shadows and highlights.
    """
    prior = _LIGHT_PRIOR * np.array([0, 1, 1, 1, 2, 2, 2, 2, 2.0])
    light, trust = np.empty_like(colors), np.empty_like(weights)
    some = np.flatnonzero(skin)[::_LIGHT_STEP]
    for index, (color, weight, harmonics) in enumerate(zip(colors, weights, basis, strict=True)):
        fitted, seen = color[some], harmonics[some].astype(np.float64)
        robust = weight[some].astype(np.float64)
        for _ in range(3):
            coeffs = _solve_light(fitted, mean[some], seen, robust, prior)
            predicted = mean[some] * (seen @ coeffs)
            residual = np.abs(fitted - predicted).mean(1)
            spread = np.median(residual[robust > 0]) * 2 + 1e-4 if (robust > 0).any() else 1.0
            robust = weight[some] / (1 + (residual / spread) ** 4)
        shade = harmonics @ coeffs
        level = (robust[:, None] * shade[some]).sum(0) / robust.sum().clip(1e-6)
        error = np.abs(color - mean * shade).mean(1) / (mean * level).mean(1)
        limit = _OUTLIER * np.median(error[skin][weight[skin] > 0.3]) + 0.05
        known_face = ~skin  # eyes, brows and lips differ too much between people to be judged
        trust[index] = weight * (known_face | (error < limit))
        light[index] = shade / level
    return light, trust


def _solve_light(
    color: np.ndarray, albedo: np.ndarray, basis: np.ndarray, weight: np.ndarray, prior: np.ndarray
) -> np.ndarray:
    """Coefficients [9, 3] of color = albedo * (basis @ coeffs); colors share all but strength."""
    total = max(weight.sum(), 1e-6)
    gray_albedo, gray = albedo.mean(1), color.mean(1)
    design = basis * gray_albedo[:, None]
    normal = (design * weight[:, None]).T @ design / total
    scale = normal[0, 0]
    gray_coeffs = np.linalg.solve(
        normal + scale * np.diag(prior), design.T @ (weight * gray) / total
    )
    coeffs = np.empty((9, 3))
    for channel in range(3):  # tinted lamps: small deviations from a common pattern
        design = basis * albedo[:, channel : channel + 1]
        normal = (design * weight[:, None]).T @ design / total
        right = design.T @ (weight * color[:, channel]) / total
        ratio = right[0] / max(float(normal[0] @ gray_coeffs), 1e-6)
        start = gray_coeffs * ratio
        stiff = normal + normal[0, 0] * np.diag(5 * prior)
        coeffs[:, channel] = start + np.linalg.solve(stiff, right - normal @ start)
    return coeffs


def fill_hidden(
    albedo: np.ndarray,
    weights: np.ndarray,
    mean: np.ndarray,
    mesh: AlbedoMesh,
    skin: np.ndarray,
) -> np.ndarray:
    """Replace hidden vertices: by the other side where it is seen, else by the PCA of the rest.

    Args:
        albedo: [N, Va, 3].
        weights: [N, Va].
        mean: [Va, 3].
        mesh: the albedo mesh.
        skin: [Va] bool.

    Returns:
        [N, Va, 3] float32.
    """
    other, other_weight = albedo[:, mesh.mirror], weights[:, mesh.mirror]
    total = weights + other_weight
    mixed = (weights[..., None] * albedo + other_weight[..., None] * other) / np.maximum(
        total, 1e-6
    )[..., None]
    seen = np.clip(weights / 0.5, 0, 1)[..., None]
    either = np.clip(total / 0.5, 0, 1)[..., None]
    tone = tone_of(mixed, total, skin) / mean[skin].mean(0)
    guess = mean * tone[:, None]
    result = guess
    for _ in range(_FILL_ROUNDS):
        result = seen * albedo + (1 - seen) * (either * mixed + (1 - either) * guess)
        guess = _project(result, _FILL_MODES)
    return result.astype(np.float32)


def tone_balance(tone: np.ndarray) -> np.ndarray:
    """Weights [N], mean 1, that let rare skin tones count more (inverse density of brightness)."""
    bright = np.log(tone.mean(1).clip(0.05))
    counts, edges = np.histogram(bright, bins=12)
    bin_of = np.clip(np.digitize(bright, edges) - 1, 0, 11)
    weight = np.clip((counts.mean() / counts[bin_of].clip(1)) ** 0.5, 0.5, 3.0)
    return weight / weight.mean()


def _weighted_mean(albedo: np.ndarray, weights: np.ndarray, mesh: AlbedoMesh) -> np.ndarray:
    """Symmetric mean [Va, 3] over the photos that see a vertex."""
    total = np.einsum("nv,nvc->vc", weights, np.clip(albedo, 0, 1.3))
    count = weights.sum(0)[:, None]
    total, count = total + total[mesh.mirror], count + count[mesh.mirror]
    overall = total.sum(0) / count.sum()
    return ((total + overall) / (count + 1)).astype(np.float32)


def _flatten(mean: np.ndarray, basis: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """The mean albedo without the harmonics that fit the brightness of its skin."""
    gray = mean.mean(1)
    design = basis[skin]
    coeffs = np.linalg.lstsq(design, gray[skin] / gray[skin].mean(), rcond=None)[0]
    shade = np.clip(basis @ coeffs, 0.6, 1.5)
    return (mean / shade[:, None]).astype(np.float32)


def _temper_tone(albedo: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Albedo with the spread of brightness and hue that TONE_SPREAD and HUE_SPREAD leave."""
    logs = np.log(tone.clip(0.02))
    bright = logs.mean(1)
    hue = logs - bright[:, None]
    design = np.stack([np.ones_like(bright), bright - np.median(bright)], 1)
    expected = design @ np.linalg.lstsq(design, hue, rcond=None)[0]
    change = (HUE_SPREAD - 1) * (hue - expected)
    change = change + (TONE_SPREAD - 1) * (bright - np.median(bright))[:, None]
    return (albedo * np.exp(change)[:, None]).astype(np.float32)


def _temper_blotches(albedo: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Albedo whose skin deviates in hue from the face's own tone BLOTCH_SPREAD times as much."""
    usual = albedo.mean(0)[skin]
    tone = albedo[:, skin].mean(1, keepdims=True)
    expected = usual * (tone / usual.mean(0))
    offset = albedo[:, skin] - expected
    gray = offset.mean(2, keepdims=True) * expected / expected.mean(2, keepdims=True)
    result = albedo.copy()
    result[:, skin] = expected + gray + BLOTCH_SPREAD * (offset - gray)
    return result


def smooth_rarely_seen(model: AlbedoModel, weight: np.ndarray, mesh: AlbedoMesh) -> AlbedoModel:
    """Let vertices that few photos see follow their neighbors (creases, rims, scalp, neck).

    Minimizes sum w (x - a)^2 + sum over edges (1 - w) (x_i - x_j)^2 with w = (mean weight /
    _OFTEN)^2, at most one: what is never seen is interpolated, and constant toward its far end.

    Args:
        model: the statistics.
        weight: [Va] mean weight of each vertex over the photos.
        mesh: the albedo mesh.
    """
    often = np.clip((weight + weight[mesh.mirror]) / (2 * _OFTEN), 0, 1) ** 2
    count = len(often)
    half = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    edges = np.unique(np.sort(half, 1), axis=0)
    rare = 1 - often[edges].mean(1)
    ends = sparse.csr_matrix(
        (np.tile([1.0, -1.0], len(edges)), (np.repeat(np.arange(len(edges)), 2), edges.ravel())),
        shape=(len(edges), count),
    )
    system = sparse.diags(often) + 1e-7 * sparse.identity(count)
    system = system + _SPREAD * ends.T @ sparse.diags(rare) @ ends
    values = np.concatenate([model.mean[..., None], model.basis], 2).reshape(count, -1)
    solved = splu(sparse.csc_matrix(system)).solve(often[:, None] * values.astype(np.float64))
    solved = solved.reshape(count, 3, -1).astype(np.float32)
    return AlbedoModel(solved[..., 0], solved[..., 1:], model.used, model.explained)


def _project(samples: np.ndarray, modes: int) -> np.ndarray:
    """Samples rebuilt from their first principal components."""
    mean = samples.mean(0)
    flat = (samples - mean).reshape(len(samples), -1)
    vectors = _top_vectors(flat @ flat.T, modes)
    return (vectors @ (vectors.T @ flat)).reshape(samples.shape) + mean


def _top_vectors(gram: np.ndarray, count: int) -> np.ndarray:
    """Eigenvectors [N, count] of the largest eigenvalues, largest first."""
    count = min(count, len(gram))
    return np.linalg.eigh(gram.astype(np.float64))[1][:, ::-1][:, :count].astype(np.float32)


def _statistics(
    albedo: np.ndarray, sample_weights: np.ndarray, mesh: AlbedoMesh, modes: int
) -> AlbedoModel:
    """PCA of the samples and their mirror images: symmetric and antisymmetric parts apart."""
    weight = (sample_weights / sample_weights.sum()).astype(np.float32)
    mirrored = albedo[:, mesh.mirror]
    even = (albedo + mirrored) / 2
    odd = ASYMMETRY * (albedo - mirrored) / 2
    mean = np.einsum("n,nvc->vc", weight, even)
    parts = []
    for samples in (even - mean, odd):
        flat = np.sqrt(weight)[:, None] * samples.reshape(len(samples), -1)
        gram = (flat @ flat.T).astype(np.float64)
        values, vectors = np.linalg.eigh(gram)
        values, vectors = values[::-1][:modes], vectors[:, ::-1][:, :modes]
        basis = flat.T @ vectors.astype(np.float32)  # length = standard deviation
        parts.append((values, basis, np.trace(gram)))
    values = np.concatenate([part[0] for part in parts])
    basis = np.concatenate([part[1] for part in parts], 1)
    order = np.argsort(-values, kind="stable")[:modes]
    basis = basis[:, order]
    basis = basis * np.where(basis.sum(0) < 0, -1, 1)  # brighter where positive
    explained = values[order].sum() / sum(part[2] for part in parts)
    shape = (*mean.shape, modes)
    return AlbedoModel(mean, basis.reshape(shape), len(albedo), float(explained))


def interpolation_operator(parents: np.ndarray, coarse_count: int) -> sparse.csr_matrix:
    """Dense values from coarse ones: kept vertices as they are, new ones half of both parents.

    Args:
        parents: [V, 2] ids of the coarse vertices whose edge a vertex halves.
        coarse_count: Va.

    Returns:
        [V, Va].
    """
    count = len(parents)
    rows = np.repeat(np.arange(count), 2)
    data = (np.full(2 * count, 0.5), (rows, parents.ravel()))
    return sparse.csr_matrix(data, shape=(count, coarse_count))
