"""Make the file that ships from a run: averaged weights in half precision, with their card.

python -m v3recon.training.release --run runs/mbnetv3 --out v3recon/networks/data/NAME.pth
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from v3recon.data.augment import BOX_FACTOR
from v3recon.face_models.load import load_face_model
from v3recon.networks.checkpoints import load_checkpoint, save_checkpoint
from v3recon.networks.regressor import Regressor
from v3recon.training.checkpoint import load_state
from v3recon.training.logging import LOGGER
from v3recon.training.run import STATE_FILE, WEIGHTS_FILE


@dataclass(frozen=True)
class ReleaseConfig:
    """Pack the averaged weights of a run for shipping."""

    run: Path
    """Folder of the run (its last.pt and, where it was validated, regressor.pth)."""
    out: Path
    """File to write."""
    face_model: str = "photoface"
    """The face model of the run; its hash goes into the file."""
    passes: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """How often a face is looked at: 2 = crop again from the first pass's landmarks."""


def release(config: ReleaseConfig) -> None:
    """Write the file.

    Raises:
        ValueError: if the run has no readable state or belongs to another face model.
    """
    state = load_state(config.run / STATE_FILE)
    model = load_face_model(config.face_model)
    recipe = dict(state.config)
    regressor = Regressor(
        recipe["backbone"],
        model.sizes,
        recipe["input_size"],
        rotation="6d",
        pooling=recipe.get("pooling", "mean"),
        corrections=recipe.get("corrections", 0),
        closeups=recipe.get("closeups", 0),
        fine_closeups=recipe.get("fine_closeups", 0),
    )
    regressor.load_state_dict(state.average)
    summary: dict[str, object] = {"step": state.step}
    # Paths of the training machine say nothing to others.
    private = ("prepared", "synthetic", "out", "init_from", "init_face_model", "face_model")
    summary["recipe"] = {name: value for name, value in recipe.items() if name not in private}
    if (config.run / WEIGHTS_FILE).is_file():
        validated = load_checkpoint(config.run / WEIGHTS_FILE, model).description.training
        if validated.get("step") == state.step:
            summary["validation"] = validated["validation"]
    save_checkpoint(
        config.out,
        regressor,
        face_model=model,
        crop_rule={"name": "box", "scale": BOX_FACTOR, "passes": config.passes},
        training=summary,
        half=True,
    )


def main(argv: list[str] | None = None) -> int:
    """Program: 0 on success, 2 for a run that cannot be packed."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(ReleaseConfig, args=argv)
    try:
        release(config)
    except (ValueError, OSError) as error:
        LOGGER.error("%s", error)
        return 2
    LOGGER.info("wrote %s (%.1f MB)", config.out, config.out.stat().st_size / 1e6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
