from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from v3recon.data.samples import collate
from v3recon.data.shards import PreparedSet
from v3recon.face_models.load import load_face_model
from v3recon.networks.checkpoints import load_checkpoint
from v3recon.training import run
from v3recon.training.checkpoint import load_state
from v3recon.training.config import TermWeights, TrainConfig

ROOT = Path(__file__).resolve().parents[2]


def tiny(prepared: Path, out: Path, **changes: object) -> TrainConfig:
    config = TrainConfig(
        prepared=prepared,
        out=out,
        input_size=64,
        steps=4,
        batch_size=12,
        micro_batch=6,
        warmup=1,
        workers=0,
        log_every=1,
        checkpoint_every=2,
        validate_every=4,
        weights=TermWeights(parts=1e-2, photometric=1.0),
        device="cpu",
    )
    return replace(config, **changes)


def test_a_run_writes_weights_that_load(prepared, tmp_path):
    assert run.train(tiny(prepared, tmp_path)) == 0
    loaded = load_checkpoint(tmp_path / run.WEIGHTS_FILE, load_face_model("photoface"))
    assert loaded.description.crop_rule["name"] == "box"
    assert loaded.description.training["step"] == 4
    assert loaded.regressor.input_size == 64
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 4
    groups = {json.loads(line)["group"] for line in (tmp_path / "log.jsonl").open()}
    assert groups == {"train", "validation"}


def test_resuming_repeats_the_next_step_exactly(prepared, tmp_path):
    # A killed run: its third step ran, but the last checkpoint is that of step 2.
    original = run.train_step
    seen = []

    def recorded(network, regressor, batch, *rest):
        if len(seen) == 3:
            raise OSError("killed")
        values = original(network, regressor, batch, *rest)
        gradient = torch.cat([p.grad.flatten() for p in regressor.parameters()])
        seen.append((batch, values, gradient))
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train_step", recorded)
        with pytest.raises(OSError, match="killed"):
            run.train(tiny(prepared, tmp_path))
        third = seen[2]
        assert load_state(tmp_path / run.STATE_FILE).step == 2
        seen.clear()
        assert run.train(tiny(prepared, tmp_path)) == 0
    again = seen[0]
    assert len(seen) == 2
    for field, value in vars(third[0]).items():
        assert torch.equal(value, getattr(again[0], field)), field
    assert again[1] == pytest.approx(third[1], rel=1e-6)
    assert (again[2] - third[2]).norm() < 1e-4 * third[2].norm()
    # Later steps are not compared bit by bit: sums on several threads round differently and
    # Adam turns the sign of a gradient that is nearly zero into a whole step.


def test_two_processes_equal_one(prepared, tmp_path):
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from test_run import tiny; from v3recon.training import run;"
        "sys.exit(run.train(tiny(Path(sys.argv[2]), Path(sys.argv[3]), threads=1)))"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [str(script), str(Path(__file__).parent), str(prepared)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    torchrun += ["--master_port", "29517"]
    for command, name in (([sys.executable], "one"), (torchrun, "two")):
        done = subprocess.run(
            [*command, *arguments, str(tmp_path / name)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    logs = []
    for name in ("one", "two"):
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").open()]
        logs.append([line for line in lines if line["group"] == "train"])
    for step, (one, two) in enumerate(zip(*logs, strict=True)):
        for term in ("total", "points", "depth", "landmarks", "parts", "photometric"):
            # The same numbers up to rounding; Adam amplifies that a little with every step.
            assert two[term] == pytest.approx(one[term], rel=1e-5 if step == 0 else 0.02), term


def test_a_term_that_is_not_finite_stops_the_run(prepared, tmp_path, caplog):
    assert run.train(tiny(prepared, tmp_path, steps=2)) == 0
    before = (tmp_path / run.STATE_FILE).read_bytes()
    original = run.training_loss

    def broken(*args, **kwargs):
        loss, terms = original(*args, **kwargs)
        return loss, {**terms, "depth": terms["depth"] * torch.nan}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "training_loss", broken)
        assert run.train(tiny(prepared, tmp_path, steps=4)) == 1
    assert "'depth' is nan" in caplog.text
    assert (tmp_path / run.STATE_FILE).read_bytes() == before


def test_the_loss_falls(prepared, tmp_path):
    config = tiny(prepared, tmp_path, steps=30, checkpoint_every=30, validate_every=30)
    assert run.train(replace(config, profiled=0.0, learning_rate=3e-3)) == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").open()]
    points = [line["points"] for line in lines if line["group"] == "train"]
    assert sum(points[-5:]) < 0.7 * sum(points[:5])


def test_program_reports_problems_in_one_line(tmp_path, caplog):
    status = run.main(["vertices", "--prepared", str(tmp_path), "--out", str(tmp_path / "run")])
    assert status == 2
    assert "no prepared 'train' photos" in caplog.text


def test_learning_rate_warms_up_stays_and_falls(tmp_path):
    config = TrainConfig(prepared=tmp_path, steps=100, warmup=10, decay=0.5, learning_rate=1.0)
    rates = [run.learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1 and rates[49] == 1
    assert rates[75] == pytest.approx(0.5) and rates[99] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[49:]))


def test_bad_configurations_are_refused(tmp_path):
    for changes in (
        {"micro_batch": 48},
        {"decay": 1.5},
        {"trunk_rate": -0.1},
        {"precision": "int8"},
    ):
        with pytest.raises(ValueError):
            TrainConfig(prepared=tmp_path, **changes)


def test_hand_made_share(prepared):
    records = PreparedSet(prepared, "train")
    repeats = run.record_repeats(records, 0.8)
    assert set(repeats[::2]) == {4} and set(repeats[1::2]) == {1}
    assert set(run.record_repeats(records, 0.0)) == {1}


def test_slices_of_a_batch(prepared, generator):
    from v3recon.data.augment import AugmentSettings
    from v3recon.data.samples import TrainingDataset

    dataset = TrainingDataset(PreparedSet(prepared, "train"), AugmentSettings(size=32))
    batch = collate([dataset[i] for i in range(4)])
    part = run.slice_batch(batch, slice(2, None), 2)
    assert torch.equal(part.index, batch.index[2:]) and len(part) == 2


def test_synthetic_pictures_take_their_share():
    plain = np.array([1, 3, 1])
    many = run.joined_repeats(plain, 10, 0.25)  # 10 are a quarter of 40: the others come 6 times
    assert many[3:].tolist() == [1] * 10 and many[:3].tolist() == [6, 18, 6]
    few = run.joined_repeats(plain, 1, 0.5)
    assert few.tolist() == [1, 3, 1, 5]
    assert run.joined_repeats(plain, 4, 0.0)[3:].sum() == 0
    assert run.joined_repeats(plain, 4, 1.0)[:3].sum() == 0


def test_a_run_draws_from_both_sets_and_widens_older_weights(prepared, tmp_path):
    first = tiny(prepared, tmp_path / "narrow")
    assert run.train(first) == 0
    second = tiny(
        prepared,
        tmp_path / "wide",
        synthetic=prepared,
        synthetic_share=0.5,
        pooling="spatial",
        init_from=tmp_path / "narrow" / run.WEIGHTS_FILE,
    )
    assert len(run.training_records(second)[0]) == 2 * len(run.training_records(first)[0])
    assert run.train(second) == 0
    assert load_checkpoint(second.out / run.WEIGHTS_FILE).description.pooling == "spatial"
    back = replace(
        second, pooling="mean", out=tmp_path / "x", init_from=second.out / "regressor.pth"
    )
    with pytest.raises(ValueError, match="--pooling spatial"):
        run.train(back)


def test_corrections_alone_are_trained_on_top_of_older_weights(prepared, tmp_path):
    old = tmp_path / "old"
    assert run.train(tiny(prepared, old, steps=2, validate_every=2)) == 0
    before = load_checkpoint(old / run.WEIGHTS_FILE).regressor.state_dict()
    changes = dict(init_from=old / run.WEIGHTS_FILE, corrections=1, train_only="corrections")
    assert run.train(tiny(prepared, tmp_path / "new", **changes)) == 0
    loaded = load_checkpoint(tmp_path / "new" / run.WEIGHTS_FILE)
    after = loaded.regressor.state_dict()
    for key, value in before.items():  # weights and batch norms' statistics
        assert torch.equal(after[key], value), key
    assert after["aligned.steps.0.2.weight"].abs().max() > 0
    assert loaded.description.corrections == 1
    model = load_face_model("photoface")
    expected = model.shape_basis_at(model.landmarks_106)[1]
    assert torch.equal(after["aligned.basis"], expected), "not averaged, not decayed"
    # The same weights go on with everything trained, and resume.
    changes = dict(init_from=tmp_path / "new" / run.WEIGHTS_FILE, corrections=1)
    assert run.train(tiny(prepared, tmp_path / "all", **changes)) == 0
    moved = load_checkpoint(tmp_path / "all" / run.WEIGHTS_FILE).regressor.state_dict()
    assert not torch.equal(moved["final_layers.0.weight"], after["final_layers.0.weight"])
    # Close-ups are added and learn with the corrections, alone.
    changes |= dict(closeups=2, train_only="corrections")
    assert run.train(tiny(prepared, tmp_path / "near", **changes)) == 0
    loaded = load_checkpoint(tmp_path / "near" / run.WEIGHTS_FILE)
    assert loaded.description.closeups == 2
    near = loaded.regressor.state_dict()
    assert near["near.step.2.weight"].abs().max() > 0
    assert torch.equal(near["final_layers.0.weight"], after["final_layers.0.weight"])


def test_a_fine_map_learns_alone_and_then_with_its_close_ups(prepared, tmp_path):
    shape = dict(corrections=1, closeups=1, fine_closeups=1)
    names = TermWeights(
        *(0.0 for _ in vars(TermWeights())),
    )
    alone = tiny(
        prepared,
        tmp_path / "map",
        train_only="fine-map",
        weights=replace(names, named=1.0, parsed=0.5),
        **shape,
    )
    before = run.start_regressor(alone, load_face_model("photoface")).state_dict()
    assert run.train(alone) == 0
    after = load_checkpoint(alone.out / run.WEIGHTS_FILE).regressor.state_dict()
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"fine_map"}
    both = tiny(
        prepared,
        tmp_path / "both",
        train_only="corrections",
        init_from=alone.out / run.WEIGHTS_FILE,
        weights=TermWeights(named=1.0),
        **shape,
    )
    assert run.train(both) == 0
    last = load_checkpoint(both.out / run.WEIGHTS_FILE).regressor.state_dict()
    assert last["nearest.step.2.weight"].abs().max() > 0
    moved = {key.split(".")[0] for key in before if not torch.equal(last[key], after[key])}
    assert moved >= {"fine_map", "nearest"} and "backbone" not in moved
    with pytest.raises(ValueError, match="--fine-closeups N"):
        run.train(tiny(prepared, tmp_path, train_only="fine-map", corrections=1, closeups=1))


def test_the_trunk_may_learn_slowly_and_keep_its_statistics(prepared, tmp_path):
    config = tiny(
        prepared,
        tmp_path / "run",
        corrections=1,
        closeups=1,
        trunk_rate=0.0,
        freeze_norms=True,
        weights=TermWeights(),
    )
    before = run.start_regressor(config, load_face_model("photoface")).state_dict()
    assert run.train(config) == 0
    after = load_checkpoint(config.out / run.WEIGHTS_FILE).regressor.state_dict()
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"aligned", "near"}


def test_first_blocks_can_stay_as_they_are(prepared, tmp_path):
    config = tiny(prepared, tmp_path / "run", frozen_blocks=2, steps=1, validate_every=9)
    regressor = run.start_regressor(config, load_face_model("photoface"))
    trained = [name for name, p in regressor.named_parameters() if p.requires_grad]
    assert not any(
        name.startswith(("backbone.features.0.", "backbone.features.1.")) for name in trained
    )
    assert any(name.startswith("backbone.features.2.") for name in trained)
    for count in (99, -1):
        with pytest.raises(ValueError, match=f"--frozen-blocks {count}"):
            run.start_regressor(replace(config, frozen_blocks=count), load_face_model("photoface"))
    with pytest.raises(ValueError, match="not so many blocks in a row in resnet50"):
        run.start_regressor(replace(config, backbone="resnet50"), load_face_model("photoface"))


def test_training_corrections_that_are_not_there_is_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match="--corrections N"):
        run.train(tiny(prepared, tmp_path, train_only="corrections"))
    with pytest.raises(ValueError, match="train_only"):
        tiny(prepared, tmp_path, train_only="heads")
