"""Edited pictures of `v3recon synthesize expressions`: how much of each change is read."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import torch

from v3recon.evaluation.expression_faces import Chosen, Face, Readings, pointed_face
from v3recon.evaluation.openings import HEADER, opening_rows, response
from v3recon.evaluation.options import ExpressionOptions
from v3recon.evaluation.report import Report, Table, number, percent
from v3recon.io.arrays import read_npz
from v3recon.io.celebamask import read_classes
from v3recon.io.messages import one_line


def read_synthetic(options: ExpressionOptions) -> list[Face]:
    """Edited pictures of a folder of `v3recon synthesize expressions`, and the unedited ones.

    Raises:
        ValueError: if the folder is not such a folder.
    """
    folder = options.synthetic
    assert folder is not None
    try:
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no readable manifest.jsonl ({one_line(error)})") from None
    records = [one for one in records if one.get("status") == "written" and one["kind"] != "poses"]
    if options.split != "all":
        records = [one for one in records if one["split"] == options.split]
    if not records:
        raise ValueError(f"{folder} holds no synthetic expressions ({options.split})")
    befores, edited = {}, []
    for record in records[: options.limit or None]:
        try:
            arrays = read_npz(folder / record["labels"], ("landmarks_68", "landmarks_68_before"))
            after = torch.from_numpy(arrays["landmarks_68"])
            before = torch.from_numpy(arrays["landmarks_68_before"])
            name, unedited = record["file"], record["before"]
            mask = None
            if record["mask_from"] == "hand":
                mask = partial(read_classes, folder / record["parts"])
            if unedited not in befores:
                befores[unedited] = pointed_face(unedited, "before", folder / unedited, before)
            edited.append(
                pointed_face(
                    *(name, record["kind"], folder / name, after), mask=mask, before=unedited
                )
            )
        except (KeyError, OSError) as error:
            raise ValueError(
                f"{folder}: labels of {record.get('file')} are not usable ({one_line(error)}); "
                "run v3recon synthesize expressions again"
            ) from None
    return [*befores.values(), *edited]


def summarize_synthetic(report: Report, readings: Readings) -> None:
    """Tables and figures of the synthetic pictures."""
    number_of = {face.name: i for i, face in enumerate(readings.faces) if face.group == "before"}
    edited = [i for i, face in enumerate(readings.faces) if face.group != "before"]
    everything = Chosen.of(readings, edited)
    unedited = Chosen.of(readings, list(number_of.values()))
    rows = opening_rows(everything.openings.lines(), "") + opening_rows(
        unedited.openings.lines(), ", unedited"
    )
    report.tables.append(Table("synthetic pictures", HEADER, rows))
    figures: dict[str, Any] = {
        "edited": everything.openings.lines(),
        "unedited": unedited.openings.lines(),
        "kinds": {},
    }
    kinds = []
    for kind in ("all", *sorted({readings.faces[i].group for i in edited})):
        chosen = [i for i in edited if kind in ("all", readings.faces[i].group)]
        paired = [i for i in chosen if readings.faces[i].before in number_of]
        after = Chosen.of(readings, paired)
        before = Chosen.of(readings, [number_of[readings.faces[i].before] for i in paired])
        after, before = after.openings, before.openings
        true, read = after.true - before.true, after.read - before.read
        values = Chosen.of(readings, chosen)
        one = {
            "pictures": len(chosen),
            "eye_error": float(
                (values.openings.read - values.openings.true)[:, :2].abs().nanmean()
            ),
            "lip_error": float((values.openings.read - values.openings.true)[:, 2].abs().nanmean()),
            "eye_response": response(true[:, :2].flatten(), read[:, :2].flatten()),
            "lip_response": response(true[:, 2], read[:, 2]),
            "iou": {part: values.iou(part) for part in ("eyes", "upper lip", "lower lip")},
        }
        figures["kinds"][kind] = one
        kinds.append(
            (
                *(kind, str(len(chosen))),
                *(percent(one["eye_error"], 1), percent(one["lip_error"], 1)),
                *(number(one["eye_response"]), number(one["lip_response"])),
                *map(percent, one["iou"].values()),
            )
        )
    header = (
        *("kind", "pictures", "eye error %", "lip error %", "eye response", "lip response"),
        *("IoU % eyes", "upper lip", "lower lip"),
    )
    report.tables.append(Table("synthetic pictures by kind", header, kinds))
    report.figures["synthetic"] = figures
    report.notes.append(
        "response: read change over true change between the unedited picture and the edited one "
        "(1: all of it); IoU: of pictures whose photo has a hand-made mask, parts they show"
    )
