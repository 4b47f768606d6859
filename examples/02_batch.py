"""Many photos at once, from any source; faces travel to other processes as small pickles.

python examples/02_batch.py
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import v3recon

path = Path(__file__).parent / "astronaut.jpg"
array = np.asarray(Image.open(path).convert("RGB"))
tensor = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255  # [3, H, W] in 0…1

model = v3recon.FaceReconstructor.from_pretrained(batch_size=8, max_faces=2)
for faces in model([path, Image.open(path), array[:, ::-1], tensor]):
    yaw = faces.angle_degrees[:, 1].tolist()
    print(f"{faces}: yaw {[round(value) for value in yaw]}, {len(pickle.dumps(faces))} bytes")
