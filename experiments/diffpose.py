"""DiffPose: hypotheses of hands from heat maps, each conditioned on points that it draws from them itself.

Claims  points drawn from heat maps against their peaks alone, on hands with five or more ambiguous joints and on the
        others; tokens and a transformer against the points as they are; the parts one by one; steps of the diffusion;
        Holmquist & Wandt, ICCV 2023, tables 1, 5 and 6
Shows   best-of-N PA-MPJPE on simulated heat maps of a detector that errs no more than it says
        (jhand.data.ambiguous_hands); mean, median, worst and single answers, calibration, and the best of a Gaussian of
        the same total variance
Cost    cpu: about 8 minutes of one core a variant and seed; gpu: not run yet
Command python -m experiments.diffpose claims --preset cpu --seeds 3
Expect  12 to 25 % lower than peaks alone where joints are ambiguous, within 5 % elsewhere; 1 to 6 % for each part
"""

import jax
import jax.numpy as jnp

from jhand import metrics
from jhand.claims import Claim
from jhand.data.ambiguous_hands import AmbiguousScene, ambiguous_hand
from jhand.data.made import Made
from jhand.data.world.cameras import facing
from jhand.experiment import Batch, Experiment, Metric, Pooled, Preset, main, mean_hand
from jhand.hand import HandModel
from jhand.systems import diffpose

HARD = 5
"""Ambiguous joints of a hand that is hard."""
GUESSES = 50
"""Hands of the trivial answer."""
VARIANTS = {
    "full": {},
    "peaks": {"samples": 1},
    "concatenated": {"condition": "concatenated"},
    "no_transformer": {"transformer": False},
    "no_likelihood": {"likelihood": False},
    "no_peak": {"argmax": False},
    "no_joint_dropout": {"joint_dropout": 0.0},
    "steps_10": {"steps": 10},
    "steps_100": {"steps": 100},
    "steps_1000": {"steps": 1000},
    "scale_10": {"scale": 10.0},
}


def pa_mpjpe(outputs: diffpose.Outputs, batch: Batch) -> jax.Array:
    """Of each hypothesis, (B, N)."""
    return metrics.pa_mpjpe(outputs.hypotheses, batch["keypoints3d"][:, None], batch["keypoints3d_valid"][:, None])


def mpjpe(outputs: diffpose.Outputs, batch: Batch) -> jax.Array:
    """Of each hypothesis, (B, N), wrist on wrist."""
    truth, valid = batch["keypoints3d"][:, None], batch["keypoints3d_valid"][:, None]
    return metrics.root_aligned_mpjpe(outputs.hypotheses, truth, valid)


def on(hard: bool, of: Metric) -> Metric:
    """A metric of the hard hands, or of the others: NaN for those that it is not of."""

    def metric(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
        values = of(outputs, batch, hand)
        chosen = (jnp.sum(batch["ambiguous"], -1) >= HARD) == hard
        return jnp.where(chosen.reshape(-1, *(1,) * (values.ndim - 1)), values, jnp.nan)

    return metric


def best(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return jnp.min(pa_mpjpe(outputs, batch), -1)


def best_about_wrist(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return jnp.min(mpjpe(outputs, batch), -1)


def average(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return jnp.mean(pa_mpjpe(outputs, batch), -1)


def median(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return jnp.median(pa_mpjpe(outputs, batch), -1)


def worst(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return jnp.max(pa_mpjpe(outputs, batch), -1)


def single(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """Of z0, the reverse process without noise."""
    return metrics.pa_mpjpe(outputs.keypoints, batch["keypoints3d"], batch["keypoints3d_valid"])


def best_gaussian(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """The best of as many draws of a Gaussian with the mean and the total variance of the hypotheses."""
    drawn = metrics.matched_gaussian(jax.random.key(0), outputs.hypotheses)
    return best(diffpose.Outputs(drawn, outputs.keypoints), batch, hand)


def pck(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """At 15 mm, as 150 mm are of a body, of the best hypothesis, wrist on wrist."""
    nearest = jnp.argmin(mpjpe(outputs, batch), -1)
    found = jnp.take_along_axis(outputs.hypotheses, nearest[:, None, None, None], 1)[:, 0]
    truth = batch["keypoints3d"]
    limit = jnp.array([0.015])
    return metrics.pck(found - found[:, :1], truth - truth[:, :1], batch["keypoints3d_valid"], limit)[..., 0]


def cps(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return metrics.correct_pose_score(outputs.hypotheses, batch["keypoints3d"], batch["keypoints3d_valid"])


def ranks(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """Of true joints among the hypotheses, (B, 21), all hands about their own mean."""
    truth = batch["keypoints3d"] - jnp.mean(batch["keypoints3d"], 1, keepdims=True)
    return metrics.truth_rank(outputs.hypotheses, truth, batch["keypoints3d_valid"])


def spreads(outputs: diffpose.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """Of hypotheses across the picture and of heat maps, (B, 21, 2): standard deviations of joints. Depth is left out,
    since maps say nothing of it. Of maps, of the pixels that are drawn, each weighted by what the map says there, as
    tokens are: else faint clutter far away would be most of it.
    """
    maps = jnp.square(batch["heatmaps"].astype(jnp.float32))
    maps = maps / jnp.maximum(jnp.sum(maps, (-1, -2), keepdims=True), 1e-6)
    pixels = jnp.arange(maps.shape[-1])
    marginals = jnp.stack([jnp.sum(maps, -2), jnp.sum(maps, -1)])  # of square maps: columns, rows
    mean = jnp.sum(marginals * pixels, -1, keepdims=True)
    wide = jnp.sqrt(jnp.sum(marginals * jnp.square(pixels - mean), (0, -1)))
    return jnp.stack([metrics.hypothesis_spread(outputs.hypotheses[..., :2]), wide], -1)


def wider_where_maps_are(both: jax.Array) -> jax.Array:
    return metrics.rank_correlation(*jnp.moveaxis(both.reshape(-1, 2), -1, 0))


def random_hands(sample: Batch, hand: HandModel):
    """The trivial answer: hands of the training set, whatever is seen; its single one is their mean."""
    middle = mean_hand(sample, hand)
    points = jnp.asarray(sample["keypoints3d"])[:GUESSES]
    points = points - jnp.mean(points, -2, keepdims=True)

    def answer(batch: Batch) -> diffpose.Outputs:
        number = len(batch["keypoints3d"])
        return diffpose.Outputs(jnp.broadcast_to(points, (number, *points.shape)), middle(batch).keypoints)

    return answer


def claim(name: str, statement: str, ablation: str, expected: tuple[float, float], metric: str = "best_hard", **more):
    sides = {side: VARIANTS[side] for side in ("full", ablation)}
    return Claim(name, statement, metric, sides, ("full", ablation), expected=expected, **more)


experiment = Experiment(
    system=diffpose,
    presets={
        "cpu": Preset(
            diffpose.Config.tiny(),
            Made(ambiguous_hand, AmbiguousScene(size=32, camera=facing)),
            steps=10_000,
            batch=64,
            clips=20_000,
            held_out=256,
            evaluate_every=10_000,
        ),
        "gpu": Preset(
            diffpose.Config.small(),
            Made(ambiguous_hand, AmbiguousScene()),
            steps=100_000,
            batch=256,
            clips=None,
            evaluate_every=50_000,
        ),
        "paper": Preset(
            diffpose.Config.paper(),
            Made(ambiguous_hand, AmbiguousScene()),
            steps=700_000,
            batch=64,
            clips=None,
            evaluate_every=100_000,
        ),
    },
    metrics={
        "best_hard": on(True, best),
        "best_easy": on(False, best),
        "best_about_wrist_hard": on(True, best_about_wrist),
        "best_about_wrist_easy": on(False, best_about_wrist),
        "mean_hard": on(True, average),
        "median_hard": on(True, median),
        "worst_hard": on(True, worst),
        "single_hard": on(True, single),
        "single_easy": on(False, single),
        "gaussian_hard": on(True, best_gaussian),
        "gaussian_easy": on(False, best_gaussian),
        "pck_hard": on(True, pck),
        "cps_hard": on(True, cps),
        "cps_easy": on(False, cps),
        "ece_hard": Pooled(on(True, ranks), metrics.expected_calibration_error),
        "ece_easy": Pooled(on(False, ranks), metrics.expected_calibration_error),
        "spread_correlation": Pooled(spreads, wider_where_maps_are),
    },
    units={
        **dict.fromkeys(
            (
                f"{what}_{split}"
                for what in ("best", "best_about_wrist", "single", "gaussian")
                for split in ("hard", "easy")
            ),
            ("mm", 1000.0),
        ),
        **dict.fromkeys(("mean_hard", "median_hard", "worst_hard"), ("mm", 1000.0)),
        **dict.fromkeys(("pck_hard", "cps_hard", "cps_easy"), ("%", 100.0)),
        **dict.fromkeys(("ece_hard", "ece_easy", "spread_correlation"), ("", 1.0)),
    },
    baseline=random_hands,
    claims=[
        claim(
            "samples",
            "points drawn from heat maps bring hypotheses nearer to ambiguous hands than peaks do",
            "peaks",
            (0.12, 0.25),
            primary=True,
        ),
        claim(
            "easy",
            "drawn points do no worse than peaks where few joints are ambiguous",
            "peaks",
            (0.0, 0.05),
            "best_easy",
        ),
        claim(
            "embedding",
            "tokens and a transformer make more of the points than a list of them",
            "concatenated",
            (0.0, 0.25),
        ),
        claim("transformer", "the joints' tokens are to agree", "no_transformer", (0.01, 0.06)),
        claim("likelihood", "points are to be scaled by what the map says of them", "no_likelihood", (0.01, 0.06)),
        claim("peak", "the peak is to be among the points", "no_peak", (0.01, 0.06)),
        claim("joint_dropout", "joints are to be hidden in training", "no_joint_dropout", (0.01, 0.06)),
        claim("more_than_10", "25 steps do better than 10", "steps_10", (0.0, 0.06)),
        claim("no_more_than_25", "25 steps do as well as 100", "steps_100", (-0.03, 0.03)),
        claim("no_more_than_100", "25 steps do as well as 1000", "steps_1000", (-0.03, 0.03), presets=("gpu", "paper")),
        claim("scale", "hands are to be scaled as bodies are, by their own size", "scale_10", (0.0, 0.5)),
    ],
    stand_ins=("simulated heat maps, of a detector that errs no more than it says, for HRNet's",),
)

if __name__ == "__main__":
    main(experiment)
