"""Picture to face coefficients: a first estimate, and one refiner applied N times.

The encoder (`networks.encoder`) gives pooled features, a fine map and what each place shows; two
layers give the first estimate, the refiner (`networks.refiner`) corrects shape, rotation and place
where the mesh lies. A file of weights holds its whole configuration as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from v3recon.face_models.linear_face_model import LinearFaceModel
from v3recon.geometry.rotation import matrix_to_euler, rotation_6d_to_matrix
from v3recon.io.messages import one_line
from v3recon.io.tensors import read_tensor_file, write_tensor_file
from v3recon.networks.encoder import Encoder
from v3recon.networks.refiner import ROTATION_SIZE, Refiner, split_state
from v3recon.types import SH_SIZE, TRANS_SIZE, FaceCoeffs

FORMAT = "v3recon-face-regressor"
FORMAT_VERSION = 2
IDENTITY_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
MAX_REFINEMENTS = 16
_MAX_NUMBER = 10_000
"""No setting is larger: a guard for memory."""
_FULL = ("refiner.mean", "refiner.basis", "unit", "running_var")
_BYTES_FROM = 100_000
_BYTE_RANGE = 127
_SCALE = ".scale"


@dataclass(frozen=True)
class FaceRegressorConfig:
    """Everything that a network is built from; stored whole in its file of weights.

    Attributes:
        backbone: a name of `networks.encoder.TIMM_NAMES` or of timm.
        sizes: numbers of identity, expression and albedo coefficients.
        input_size: side of the crop it takes, pixels; it covers the 224-pixel camera frame.
        pyramid_width: channels of the feature pyramid.
        map_width: channels of its finest map.
        cells: channels of the coarsest map that are read place by place.
        grid: side of that reading, cells.
        hidden: width between pooled features and the first estimate.
        points: points of the mesh that the refiner looks at.
        refiner_hidden: width between what they saw and the change.
        refinements: how often the refiner is applied; may be changed at inference.
    """

    backbone: str = "lite0"
    sizes: tuple[int, int, int] = (80, 64, 80)
    input_size: int = 160
    pyramid_width: int = 48
    map_width: int = 24
    cells: int = 40
    grid: int = 5
    hidden: int = 256
    points: int = 128
    refiner_hidden: int = 256
    refinements: int = 3

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: for a number that is not positive or beyond all reason.
        """
        for setting in fields(self):
            value = getattr(self, setting.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if setting.name == "backbone":
                continue
            least = 0 if setting.name == "refinements" else 1
            if not all(isinstance(n, int) and least <= n <= _MAX_NUMBER for n in numbers):
                raise ValueError(f"{setting.name} must be {least}…{_MAX_NUMBER}, got {value!r}")
        if len(self.sizes) != 3 or self.refinements > MAX_REFINEMENTS:
            raise ValueError(f"three sizes and at most {MAX_REFINEMENTS} refinements, got {self}")


@dataclass(frozen=True)
class Estimate:
    """Coefficients of B faces and the matrix of their rotation.

    Attributes:
        coeffs: id in standard deviations, exp in the face model's unit.
        rotation: [B, 3, 3], acts on row vectors; has a useful gradient at every pose.
        aims: [B, P, 2] where the refiner saw its points, crop pixels; None of a first estimate.
    """

    coeffs: FaceCoeffs
    rotation: Tensor
    aims: Tensor | None = None


class FaceRegressor(nn.Module):
    """Coefficients of the face in a crop.

    Attributes:
        config: what it was built from.
        input_size: side of the crop it takes, pixels; training changes it.
        unit: [Kid + Kexp] value of each coefficient per unit inside the network.
        bounds: [Kexp, 2] between which `forward` keeps expression coefficients.
    """

    unit: Tensor
    bounds: Tensor

    def __init__(self, config: FaceRegressorConfig) -> None:
        """Build with random weights; `set_face_model` before training."""
        super().__init__()
        self.config = config
        self.input_size = config.input_size
        self.refinements = config.refinements
        id_size, exp_size, alb_size = config.sizes
        shape_size = id_size + exp_size
        self.encoder = Encoder(
            config.backbone, config.pyramid_width, config.map_width, config.cells, config.grid
        )
        state = shape_size + ROTATION_SIZE + TRANS_SIZE
        self.first = nn.Sequential(
            nn.Linear(self.encoder.pooled_width, config.hidden),
            nn.Hardswish(),
            nn.Linear(config.hidden, state + alb_size + SH_SIZE),
        )
        last = self.first[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, 0, 1e-3)
        with torch.no_grad():
            last.bias.zero_()
            last.bias[shape_size : shape_size + ROTATION_SIZE] = torch.tensor(IDENTITY_6D)
        self.refiner = Refiner(config.map_width, shape_size, config.points, config.refiner_hidden)
        self.register_buffer("unit", torch.ones(shape_size))
        self.register_buffer("bounds", torch.tensor([-torch.inf, torch.inf]).repeat(exp_size, 1))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of identity, expression and albedo coefficients."""
        return self.config.sizes

    def estimates(
        self, image: Tensor, precision: torch.dtype = torch.float32
    ) -> tuple[list[Estimate], Tensor]:
        """Every estimate, the first one and after each refinement, and what each place shows.

        Args:
            image: [B, 3, S, S] RGB in 0…1, not normalized; S = `input_size`.
            precision: of the encoder; half a pixel is 1/400 of an axis, so that what leaves it is
                read in float32.

        Returns:
            refinements + 1 estimates, and logits [B, 12, S / 2, S / 2] (`encoder.SEEN_NAMES`).

        Raises:
            ValueError: if the crops have another size.
        """
        size = self.input_size
        if image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"expected crops [B, 3, {size}, {size}], got {tuple(image.shape)}")
        lower = precision != torch.float32
        with torch.autocast(image.device.type, precision, enabled=lower):
            pooled, fine, seen = self.encoder(image)
        with torch.autocast(image.device.type, enabled=False):
            pooled, fine, seen = pooled.to(image.dtype), fine.to(image.dtype), seen.to(image.dtype)
            alb_size = self.sizes[2]
            first = self.first(pooled)
            state, alb, sh = first.split(
                [first.shape[1] - alb_size - SH_SIZE, alb_size, SH_SIZE], 1
            )
            result = [self._estimate(state, alb, sh)]
            for _ in range(self.refinements):
                state, aims = self.refiner(fine, state)
                result.append(self._estimate(state, alb, sh, aims))
        return result, seen

    def forward(self, image: Tensor) -> FaceCoeffs:
        """Coefficients of the faces, expression inside its bounds.

        Args:
            image: [B, 3, S, S] RGB in 0…1, not normalized; S = `input_size`.
        """
        return self.coeffs_and_seen(image)[0]

    def coeffs_and_seen(self, image: Tensor) -> tuple[FaceCoeffs, Tensor]:
        """What `forward` gives, and logits [B, 12, S / 2, S / 2] of what each place shows."""
        estimates, seen = self.estimates(image)
        found = estimates[-1].coeffs
        exp = found.exp.clamp(self.bounds[:, 0], self.bounds[:, 1])
        angle = matrix_to_euler(estimates[-1].rotation)
        return FaceCoeffs(found.id, exp, found.alb, angle, found.sh, found.trans), seen

    def seen(self, image: Tensor) -> Tensor:
        """Logits [B, 12, S / 2, S / 2] of what each place of the crops shows."""
        return self.encoder(image)[2]

    def _estimate(
        self, state: Tensor, alb: Tensor, sh: Tensor, aims: Tensor | None = None
    ) -> Estimate:
        shape, six, trans = split_state(state)
        id_coeffs, exp = (shape * self.unit).split(self.sizes[:2], 1)
        rotation = rotation_6d_to_matrix(six)
        angle = torch.zeros_like(trans)  # a matrix is read, see `Estimate`
        return Estimate(FaceCoeffs(id_coeffs, exp, alb, angle, sh, trans), rotation, aims)

    @torch.no_grad()
    def set_face_model(self, model: LinearFaceModel, looking: Tensor | None = None) -> None:
        """Take units, bounds and looking points from a face model; once, before training.

        Args:
            model: the face model.
            looking: [P] vertices at which to look, see `Refiner.set_points`.

        Raises:
            ValueError: if the network is for another number of coefficients.
        """
        if model.sizes != self.sizes:
            raise ValueError(
                f"the network gives {self.sizes} coefficients, the face model {model.name!r} takes "
                f"{model.sizes}"
            )
        if model.exp_sigma is not None:
            self.unit[model.sizes[0] :] = model.exp_sigma
        if model.exp_bounds is not None:
            self.bounds.copy_(model.exp_bounds)
        self.refiner.set_points(model, self.unit, looking)


@dataclass(frozen=True)
class FaceRegressorDescription:
    """What a file of weights says of itself.

    Attributes:
        config: of the network.
        face_model: name of the model whose coefficients come out.
        face_model_hash: its `content_hash`.
        crop_rule: {"name": "box", …}, see `detection.crop`.
        training: recipe, progress and figures; JSON values.
    """

    config: FaceRegressorConfig
    face_model: str
    face_model_hash: str
    crop_rule: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.config.backbone


def save_face_regressor(
    path: str | Path,
    regressor: FaceRegressor,
    *,
    face_model: LinearFaceModel,
    crop_rule: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write weights in half precision, large matrices in 8 bits, as one file, whole or not at all.

    Raises:
        ValueError: if the description is no JSON or weights are not finite.
        OSError: if the file cannot be written; an old file stays untouched.
    """
    description = {
        "format_version": FORMAT_VERSION,
        "config": asdict(regressor.config) | {"input_size": regressor.input_size},
        "face_model": face_model.name,
        "face_model_hash": face_model.content_hash,
        "crop_rule": dict(crop_rule),
        "training": dict(training or {}),
    }
    try:
        text = json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the description must hold JSON values only: {error}") from None
    weights: dict[str, Tensor] = {}
    for key, value in regressor.state_dict().items():
        weights |= _stored(key, value.detach().cpu())
    write_tensor_file(path, {"format": FORMAT, "description": text, "weights": weights})


def load_face_regressor(path: str | Path) -> tuple[FaceRegressor, FaceRegressorDescription]:
    """Read a file of weights: the network, in evaluation mode, and what the file says of it.

    Raises:
        ValueError: if the file is missing, damaged or not of this kind.
    """
    try:
        return face_regressor_of(read_tensor_file(Path(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def face_regressor_of(
    content: Mapping[str, Any],
) -> tuple[FaceRegressor, FaceRegressorDescription]:
    """`load_face_regressor` of a file's contents."""
    if content.get("format") != FORMAT:
        raise ValueError("not a face regressor of v3recon")
    try:
        said = json.loads(content["description"])
        version = int(said.pop("format_version"))
        if version > FORMAT_VERSION:
            raise ValueError(f"format {version} is newer than this version of v3recon; update it")
        if version < FORMAT_VERSION:
            raise ValueError(f"format {version} is of an older version of v3recon; train it anew")
        said["config"]["sizes"] = tuple(said["config"]["sizes"])
        said["config"] = FaceRegressorConfig(**said["config"])
        description = FaceRegressorDescription(**said)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"its description is malformed ({one_line(error)})") from None
    weights = _from_bytes(content.get("weights"))
    with torch.device("meta"):  # a file that claims to be huge takes no memory
        expected = FaceRegressor(description.config).state_dict()
    if weights.keys() != expected.keys():
        example = sorted(weights.keys() ^ expected.keys())[0]
        raise ValueError(f"its weights are not those of its configuration, e.g. {example!r}")
    for key, value in expected.items():
        found = weights[key]
        if not isinstance(found, Tensor) or found.shape != value.shape:
            shape = tuple(getattr(found, "shape", ()))
            raise ValueError(f"weight {key!r} is {shape}, expected {tuple(value.shape)}")
        if key != "bounds" and not found.isfinite().all():
            raise ValueError(f"weight {key!r} has values that are not finite")
    regressor = FaceRegressor(description.config)
    regressor.load_state_dict(weights)
    return regressor.eval(), description


def _stored(key: str, value: Tensor) -> dict[str, Tensor]:
    """A parameter as it is written: half precision, large matrices in 8 bits with row scales."""
    if key != "bounds" and not value.isfinite().all():
        raise ValueError(f"weights {key!r} are not finite")
    if not value.is_floating_point() or key.endswith(_FULL[2:]) or key == "bounds":
        return {key: value}
    if key in _FULL:
        return {key: value.half()}
    if value.ndim == 2 and value.numel() >= _BYTES_FROM:
        scale = (value.abs().amax(1, keepdim=True) / _BYTE_RANGE).clamp(min=1e-6).half()
        rounded = (value / scale.float()).round().clamp(-_BYTE_RANGE, _BYTE_RANGE)
        return {key: rounded.to(torch.int8), f"{key}{_SCALE}": scale}
    half = value.half()
    if not half.isfinite().all():
        raise ValueError(f"weights {key!r} are too large for half precision")
    return {key: half}


def _from_bytes(weights: Any) -> dict[str, Tensor]:
    """Stored weights as they were."""
    if not isinstance(weights, dict):
        raise ValueError("has no weights")
    result: dict[str, Tensor] = {}
    for key, value in weights.items():
        base = weights.get(str(key).removesuffix(_SCALE)) if str(key).endswith(_SCALE) else None
        if isinstance(base, Tensor) and base.dtype == torch.int8:
            continue
        result[key] = value
        if isinstance(value, Tensor) and value.dtype == torch.int8:
            scale = weights.get(f"{key}{_SCALE}")
            if not isinstance(scale, Tensor) or scale.shape != (len(value), 1):
                raise ValueError(f"the scale of weight {key!r} is missing or damaged")
            result[key] = value.float() * scale.float()
        elif isinstance(value, Tensor) and value.dtype == torch.float16:
            result[key] = value.float()
    return result
