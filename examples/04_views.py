"""The reconstructed face from other sides: coefficients changed, decoded and drawn.

python examples/04_views.py [FOLDER]
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

import v3recon

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
model = v3recon.FaceReconstructor.from_pretrained(device="cpu")
(face, *_) = model(Path(__file__).parent / "astronaut.jpg")

yaws = torch.tensor([-60.0, -30.0, 0.0, 30.0, 60.0])
angles = torch.zeros(5, 3)
angles[:, 1] = torch.deg2rad(yaws)
one = face.coeffs
coeffs = v3recon.FaceCoeffs(
    *(getattr(one, name).expand(5, -1) for name in ("id", "exp", "alb", "angle", "sh", "trans"))
)
coeffs = replace(coeffs, angle=angles, trans=torch.zeros(5, 3))
image, mask = v3recon.render(coeffs, face.model)  # [5, 3, 224, 224] and [5, 1, 224, 224]

row = torch.cat(list(image + (1 - mask)), 2).clamp(0, 1)
folder.mkdir(parents=True, exist_ok=True)
Image.fromarray((row.permute(1, 2, 0) * 255).byte().numpy()).save(folder / "views.png")
print(folder / "views.png")
