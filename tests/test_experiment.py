"""Experiments on a system of one matrix, from clips on disk to verdicts."""

import json
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jhand import metrics
from jhand.claims import Claim, read_results
from jhand.data import write_clips
from jhand.data.made import Made
from jhand.data.world import single_hand
from jhand.experiment import (
    Experiment,
    Options,
    Pooled,
    Preset,
    baseline_scores,
    fit,
    held_out_batches,
    main,
    mean_hand,
    run_claim,
    run_of,
    run_table,
    training_sample,
)
from jhand.judging import budget
from jhand.train import LossAux, Stage, Update, load_weights, read_card, read_log
from tests.data.clips import make_clip

SIDES = {"full": {}, "none": {"bias": False}}


@dataclass(frozen=True)
class Config:
    bias: bool = True
    rate: float = 0.003


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    keypoints: jax.Array


def seen(image):
    """A picture as eight numbers."""
    return image[:, ::24, ::16].reshape(len(image), -1)[:, :8].astype(jnp.float32) / 255


def predict(variables, inputs, config, hand, *, key=None):
    params = variables["params"]
    points = inputs @ params["matrix"] + config.bias * params["bias"]
    return Outputs(points.reshape(-1, 21, 3))


def loss(variables, batch, config, hand, *, key):
    error = predict(variables, seen(batch["image"]), config, hand).keypoints - batch["keypoints3d"]
    return jnp.mean(error**2), LossAux()


def stages(config, hand, steps):
    update = Update("fit", lambda v, b, *, key: loss(v, b, config, hand, key=key), optax.adam(config.rate))
    return (Stage("only", steps, (update,)),)


def prepare(clip, config):
    hand = clip["hands"]["right"]
    found = {name: hand[name][0] for name in ("keypoints3d", "keypoints3d_valid")}
    return {"image": clip["image"][0, 0], **found}


@pytest.fixture(scope="module")
def experiment():
    system = ModuleType("linear")
    system.needs = ("image", "hands.right.keypoints3d", "hands.right.keypoints3d_valid")
    system.prepare, system.predict, system.stages = prepare, predict, stages
    system.inputs_of = lambda batch: seen(jnp.asarray(batch["image"]))
    system.predicting = lambda params: params
    system.init = lambda key, config, hand: {
        "params": {"matrix": 0.01 * jax.random.normal(key, (8, 63)), "bias": jnp.zeros(63)},
        "stats": {},
    }
    return Experiment(
        system=system,
        presets={"cpu": Preset(Config(), single_hand(32), steps=60, batch=4, clips=16, held_out=8, evaluate_every=20)},
        metrics={"mpjpe": lambda out, batch, hand: metrics.mpjpe(out.keypoints, batch["keypoints3d"])},
        units={"mpjpe": ("mm", 1000.0)},
        baseline=mean_hand,
        claims=[Claim("bias", "a bias helps", "mpjpe", SIDES, ("full", "none"), primary=True)],
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Hands that are the same but for noise, and pictures that say nothing."""
    path = tmp_path_factory.mktemp("clips") / "made.array_record"
    rng, clips = np.random.default_rng(0), []
    hand = rng.normal(0, 0.05, (1, 21, 3))
    for seed in range(16):
        clip = make_clip(seed, frames=1, views=1)
        clip["hands"]["right"]["keypoints3d"] = (hand + rng.normal(0, 0.002, (1, 21, 3))).astype(np.float32)
        clips.append(clip)
    write_clips(path, clips)
    return f"records:{path}"


@pytest.fixture
def options(tmp_path, data):
    return Options(data=data, held_out=data, folder=tmp_path / "runs", results=tmp_path / "results")


def test_a_run_is_trained_once_and_kept(experiment, options, right):
    run = run_of(experiment, options, "full", {}, 1)
    result = fit(experiment, run, right)
    assert result["parameters"] == 8 * 63 + 63 and result["steps"] == 60 and result["milliseconds"] > 0
    log = read_log(run.folder / "log.jsonl")
    scores = [row["mpjpe"] for row in log if "mpjpe" in row]
    assert len(scores) == 3 and scores[-1] < scores[0]
    np.testing.assert_allclose(scores[-1], result["mpjpe"], rtol=1e-6)
    about = json.loads((run.folder / "run.json").read_text())
    assert about["config"] == {"bias": True, "rate": 0.003} and about["jax"] == jax.__version__
    assert read_card(run.folder / "weights").system == "linear"
    (run.folder / "result.json").write_text('{"mpjpe": 1.0}')  # what is there is not done again
    assert fit(experiment, run, right) == {"mpjpe": 1.0}


def test_all_runs_begin_from_one_pretraining(experiment, options, right):
    """Where the paper begins from weights: some parameters are trained once, whatever the variant and the seed."""

    def pretraining(config, hand, steps):
        update = Update("before", partial(loss, config=config, hand=hand), optax.adam(0.003), ("matrix",))
        return (Stage("before", steps, (update,)),)

    system = ModuleType("linear")
    vars(system).update(vars(experiment.system), pretraining=pretraining)
    system.stages = lambda config, hand, steps: (replace(stages(config, hand, steps)[0], steps=1),)
    preset = replace(experiment.presets["cpu"], pretraining=5, steps=1)
    both = replace(experiment, system=system, presets={"cpu": preset})
    runs = [run_of(both, options, "full", {"rate": 1e-9}, 0), run_of(both, options, "none", {"bias": False}, 3)]
    assert runs[0].begin == runs[1].begin and runs[0].begin.folder not in (runs[0].folder, runs[1].folder)
    fit(both, runs[0], right)
    before = load_weights(runs[0].begin.folder / "weights")["params"]
    assert before.keys() == {"matrix"}
    after = load_weights(runs[0].folder / "weights")["params"]
    np.testing.assert_allclose(after["matrix"], before["matrix"], atol=1e-6)
    written = (runs[0].begin.folder / "weights" / "weights.safetensors").stat().st_mtime_ns
    fit(both, runs[1], right)
    assert (runs[0].begin.folder / "weights" / "weights.safetensors").stat().st_mtime_ns == written
    longer = replace(both, presets={"cpu": replace(preset, pretraining=6)})
    other = run_of(longer, options, "full", {"rate": 1e-9}, 0)
    assert other.begin.folder != runs[0].begin.folder and other.folder != runs[0].folder


def test_runs_are_known_by_all_that_they_depend_on(experiment, options):
    folders = {
        run_of(experiment, options, "full", {}, 0).folder,
        run_of(experiment, options, "full", {}, 1).folder,
        run_of(experiment, options, "full", {"rate": 0.1}, 0).folder,
        run_of(experiment, replace(options, smoke=True), "full", {}, 0).folder,
        run_of(experiment, replace(options, held_out="records:other"), "full", {}, 0).folder,
    }
    assert len(folders) == 5


def test_a_claim_compares_paired_seeds_and_is_written(experiment, options, capsys):
    result = run_claim(experiment, experiment.claims[0], options)
    (kept,) = read_results(options.results)
    assert kept.values == result.values and kept.seeds == [0, 1, 2]
    assert kept.unit == "mm" and 0 < kept.baseline < 100
    assert kept.variants["none"]["fields"] == {"bias": False}
    difference = np.subtract(kept.values["none"], kept.values["full"])
    np.testing.assert_allclose(kept.difference, difference.mean())
    assert kept.verdict in ("shown", "not_shown", "reversed", "not_trained")
    assert run_table(experiment, options).values["none"]["mpjpe"] == kept.values["none"]


def test_the_command_line(experiment, options, capsys):
    shared = ["--data", options.data, "--held-out", options.held_out, "--folder", str(options.folder)]
    main(experiment, ["train", "--seed", "2", *shared])
    trained = capsys.readouterr().out.splitlines()[-1]
    main(experiment, ["eval", "--seed", "2", *shared])
    assert capsys.readouterr().out.splitlines()[-1] == trained
    main(experiment, ["claims", "--smoke", "--results", str(options.results), *shared])
    assert "bias: " in capsys.readouterr().out
    assert not options.results.exists()  # a few steps say nothing


def test_wrong_options_are_refused(experiment, options):
    with pytest.raises(ValueError, match="preset"):
        run_of(experiment, replace(options, preset="tpu"), "full", {}, 0)
    with pytest.raises(ValueError, match="held-out"):
        run_of(experiment, replace(options, held_out=""), "full", {}, 0)
    shared = ["--folder", str(options.folder)]
    with pytest.raises(ValueError, match="variant"):
        main(experiment, ["train", "--variant", "other", *shared])
    with pytest.raises(ValueError, match="claim"):
        main(experiment, ["claims", "--claim", "other", *shared])


def test_the_mean_hand_is_the_best_single_answer(right):
    rng = np.random.default_rng(0)
    shape = rng.normal(0, 0.05, (21, 3))
    points = (shape + rng.normal(0, 0.005, (64, 21, 3))).astype(np.float32)
    sample = {"keypoints3d": points, "keypoints3d_valid": np.ones((64, 21), bool)}
    answer = mean_hand(sample, right)(sample).keypoints
    best = float(np.mean(metrics.pa_mpjpe(answer, points)))
    others = [float(np.mean(metrics.pa_mpjpe(jnp.broadcast_to(p, points.shape), points))) for p in points[:8]]
    assert best < min(others) and best < 0.009


def two_points(key, scene):
    """A picture of noise, and a hand that hardly changes."""
    points = jnp.sin(jnp.arange(63.0)).reshape(21, 3) / 20 + 0.002 * jax.random.normal(key, (21, 3))
    return {"image": jnp.zeros((96, 128, 3), jnp.uint8), "keypoints3d": points, "keypoints3d_valid": jnp.ones(21, bool)}


@pytest.mark.parametrize("clips", [12, None], ids=["in memory", "in the step"])
def test_examples_need_no_clips(experiment, tmp_path, right, clips):
    options = Options(folder=tmp_path / "runs", results=tmp_path / "results")
    preset = replace(experiment.presets["cpu"], world=Made(two_points), clips=clips, batch=4, held_out=8, steps=30)
    made = replace(experiment, presets={"cpu": preset})
    run = run_of(made, options, "full", {}, 1)
    assert fit(made, run, right)["mpjpe"] < 0.02  # 0.06 from the origin
    said = "A picture of noise, and a hand that hardly changes, "
    assert read_card(run.folder / "weights").data == f"{said}{clips or 'new'} examples in training"
    claimed = run_claim(made, made.claims[0], options)
    assert 2 < claimed.baseline < 5 and claimed.data.startswith(said)


def test_scores_may_be_of_another_world(experiment, tmp_path):
    """Held-out examples are its; a preset without one is known by what it was known by before there were any."""
    preset = replace(experiment.presets["cpu"], world=Made(two_points), clips=12, batch=4, held_out=8)
    known = [budget(each) for each in (preset, replace(preset, held_out_world=Made(no_points)))]
    assert "held_out_world" not in known[0] and "no_points" in str(known[1])
    other = replace(experiment, presets={"cpu": replace(preset, held_out_world=Made(no_points))})
    run = run_of(other, Options(folder=tmp_path), "full", {}, 0)
    assert not any(batch["keypoints3d"].any() for batch in held_out_batches(other, run))
    assert training_sample(other, run)["keypoints3d"].any()


def no_points(key, scene):
    """A picture of noise, and no hand."""
    return jax.tree.map(jnp.zeros_like, two_points(key, scene))


def test_metrics_may_be_of_all_examples_together(experiment, tmp_path, right):
    """The largest error, which is no mean of batches."""
    error = experiment.metrics["mpjpe"]
    pooled = {"mpjpe": error, "worst": Pooled(error, jnp.max)}
    preset = replace(experiment.presets["cpu"], world=Made(two_points), clips=12, batch=4, held_out=8, steps=4)
    units = dict(experiment.units) | {"worst": ("mm", 1000.0)}
    both = replace(experiment, presets={"cpu": preset}, metrics=pooled, units=units)
    options = Options(folder=tmp_path / "runs", results=tmp_path / "results")
    run = run_of(both, options, "full", {}, 0)
    scores = fit(both, run, right)
    truth = jnp.concatenate([batch["keypoints3d"] for batch in held_out_batches(both, run)])
    trivial = baseline_scores(both, run, right)
    assert scores["worst"] > scores["mpjpe"] and trivial["worst"] > trivial["mpjpe"]
    answer = both.baseline(training_sample(both, run), right)({"keypoints3d": truth})
    np.testing.assert_allclose(trivial["worst"], jnp.max(metrics.mpjpe(answer.keypoints, truth)), rtol=1e-5)
