"""Masks of the eight facial parts: how much of each is seen, and a picture of them.

python examples/03_parts.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import v3recon

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
model = v3recon.FaceReconstructor.from_pretrained()
(face, *_) = model(Path(__file__).parent / "astronaut.jpg")

parts = face.parts()  # labels [H, W] of what is seen; masks [8, H, W], seen or not
for number, name in enumerate(v3recon.PART_NAMES):
    seen = int((parts.labels == number + 1).sum())
    print(f"{name:15s}{seen:6d} pixels seen of {int(parts.masks[number].sum()):6d}")

colors = np.random.default_rng(0).integers(60, 255, (9, 3))
colors[0] = 0
picture = (0.5 * face.image + 0.5 * colors[parts.labels]).astype(np.uint8)
folder.mkdir(parents=True, exist_ok=True)
Image.fromarray(picture).save(folder / "parts.png")
print(folder / "parts.png")
