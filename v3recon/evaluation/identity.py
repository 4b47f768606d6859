"""Same person or another, by the identity part of the shape, on pairs of photos."""

from __future__ import annotations

import numpy as np

from v3recon.evaluation.marked import entries_of, reconstruct_photos
from v3recon.evaluation.options import IdentityOptions
from v3recon.evaluation.predict import load_reconstructor
from v3recon.evaluation.ranking import area_under_curve
from v3recon.evaluation.report import Report, Table, WorstCases, number, percent
from v3recon.io.photo_index import PhotoEntry


def evaluate_identity(options: IdentityOptions) -> tuple[Report, WorstCases]:
    """Score pairs of photos; see `IdentityOptions`.

    Raises:
        ValueError: for wrong usage: no person with two photos, missing weights, …
    """
    report = Report(f"identity of {options.source} in {options.photos} ({options.split})")
    pairs = _pairs(options)
    entries = [entry for pair in pairs for entry in pair]
    reconstructor = load_reconstructor(options)
    found: dict[str, np.ndarray] = {}
    for entry, _, face in reconstruct_photos(
        reconstructor, options.photos, entries, options.batch_size, report
    ):
        found[entry.file] = face.coeffs.id[0].double().cpu().numpy()
    kept = [pair for pair in pairs if all(entry.file in found for entry in pair)]
    if len(kept) < 2:
        raise ValueError("fewer than two pairs of photos have a face in both")
    first, second = (np.stack([found[pair[i].file] for pair in kept]) for i in range(2))
    rows, figures = [], {}
    for name, similarity in (
        ("cosine", cosine_similarity(first, second)),
        ("distance", -np.linalg.norm(first[:, None] - second[None], axis=2)),
    ):
        area, rank = pair_scores(similarity)
        figures[name] = {"auc": area, "rank_1": rank}
        rows.append((name, number(area, 3), percent(rank, 1)))
    title = f"{len(kept)} people, two photos each: same or another"
    report.tables.append(Table(title, ("similarity", "AUC", "rank 1, %"), rows))
    report.figures |= {
        "identity": figures,
        "pairs": len(kept),
        "photos": len(entries),
    }
    report.notes.append(
        "AUC: a pair of one person scores higher than one of two; rank 1: of all second photos "
        f"the own one is nearest (by chance {percent(1 / len(kept), 1)} %)"
    )
    return report, WorstCases(0)


def pair_scores(similarity: np.ndarray) -> tuple[float, float]:
    """AUC and rank-1 rate of similarities [N, N]; the diagonal holds the pairs of one person."""
    same = np.eye(len(similarity), dtype=bool)
    area = area_under_curve(similarity[same], similarity[~same])
    rank = float((similarity.argmax(1) == np.arange(len(similarity))).mean())
    return area, rank


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines [N, M] of rows [N, K] and [M, K]."""
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9) for x in (first, second))
    return one @ other.T


def _pairs(options: IdentityOptions) -> list[tuple[PhotoEntry, PhotoEntry]]:
    """The first two photos of each person who has two."""
    of_person: dict[str, list[PhotoEntry]] = {}
    for entry in entries_of(options, (options.source,)):
        of_person.setdefault(entry.subject, []).append(entry)
    pairs = [(photos[0], photos[1]) for photos in of_person.values() if len(photos) > 1]
    if not pairs:
        raise ValueError(
            f"no person of {options.source} has two photos in the split {options.split}"
        )
    return pairs[: options.pairs or None]
