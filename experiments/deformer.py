"""Deformer: a hand in the middle of a few frames, fused from all of them by learned motions.

Claims  fusion by motions and confidences against the middle frame of the same network alone, where most of the hand is
        hidden and where nothing is; confidences against an even average; single steps trained, too; errors weighted by
        themselves against plain squares, on fingertips; the discriminator; Fu et al., ICCV 2023, tables 2, 4 and 5
Shows   PA-MPJPE of the middle frame by how much of it is hidden; errors about the wrist, of fingertips and of the worst
        joint; how confidences go with what is hidden
Cost    cpu: about 2 minutes of one core a variant and seed; gpu: not run yet
Command python -m experiments.deformer claims --preset cpu --seeds 3
Expect  8 to 15 % lower where more than half is hidden, the same where nothing is
"""

import jax
import jax.numpy as jnp

from jhand import metrics
from jhand.claims import Claim
from jhand.data.hidden_hands import HiddenScene, hidden_hand
from jhand.data.made import Made
from jhand.data.world import single_hand
from jhand.experiment import Batch, Experiment, Metric, Pooled, Preset, main, mean_hand
from jhand.hand import HandModel, HandParams
from jhand.systems import deformer

TIPS = jnp.array([4, 8, 12, 16, 20])
VARIANTS = {
    "full": {},
    "middle": {"fusion": "middle"},
    "even": {"fusion": "even"},
    "no_steps": {"steps_supervised": False},
    "squares": {"error": "mean"},
    "no_judge": {"adversarial": 0.0},
}


def truth(batch: Batch) -> jax.Array:
    """Keypoints of the middle frame, (B, 21, 3) metres in the axes of the camera, about the wrist."""
    middle = batch["keypoints3d"].shape[1] // 2
    points = batch["keypoints3d"][:, middle]
    return jnp.einsum("bij,bkj->bki", batch["R_cam_world"][:, middle], points - points[:, :1], precision="highest")


def pa_mpjpe(outputs: deformer.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return metrics.pa_mpjpe(outputs.keypoints, truth(batch))


def mpjpe(outputs: deformer.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """About the wrist."""
    return metrics.mpjpe(outputs.keypoints, truth(batch))


def tips(outputs: deformer.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    return metrics.mpjpe(outputs.keypoints[:, TIPS], truth(batch)[:, TIPS])


def worst(outputs: deformer.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """Of the joint that is furthest off."""
    return jnp.max(jnp.linalg.norm(outputs.keypoints - truth(batch), axis=-1), -1)


def known(of: Metric) -> Metric:
    """A metric of windows whose middle frame is known."""
    return lambda outputs, batch, hand: jnp.where(batch["counts"], of(outputs, batch, hand), jnp.nan)


def where(low: float, high: float, of: Metric) -> Metric:
    """A metric of hands of whose middle frame more than `low` and at most `high` is hidden."""

    def metric(outputs: deformer.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
        hidden = jnp.mean(batch["hidden"][:, batch["hidden"].shape[1] // 2], -1)
        return jnp.where((hidden > low) & (hidden <= high), of(outputs, batch, hand), jnp.nan)

    return metric


def weights_and_hidden(outputs: deformer.Outputs, batch: Batch, hand: HandModel) -> jax.Array:
    """Of each frame its weight, over an even one, and the share that is hidden: (B, T, 2)."""
    return jnp.stack([outputs.weights * outputs.weights.shape[-1], jnp.mean(batch["hidden"], -1)], -1)


def correlation(both: jax.Array) -> jax.Array:
    """Of the two; 0 where one of them does not vary."""
    x, y = jnp.moveaxis(both.reshape(-1, 2) - jnp.mean(both.reshape(-1, 2), 0), -1, 0)
    scale = jnp.sqrt(jnp.mean(x**2) * jnp.mean(y**2))
    return jnp.where(scale > 1e-9, jnp.mean(x * y) / jnp.maximum(scale, 1e-9), 0)


def average_hand(sample: Batch, hand: HandModel):
    """The trivial answer: the mean hand of the middle frames."""
    points = truth(sample)
    answer = mean_hand(
        {"keypoints3d": points, "keypoints3d_valid": jnp.broadcast_to(sample["counts"][:, None], points.shape[:2])},
        hand,
    )

    def outputs(batch: Batch) -> deformer.Outputs:
        number, t = batch["hidden"].shape[:2]
        constant = answer({"keypoints3d": jnp.zeros((number, 21, 3))}).keypoints
        constant = constant - constant[:, :1]
        even = jnp.full((number, t), 1 / t)
        return deformer.Outputs(HandParams.zeros((number,)), constant, even, jnp.zeros((number, t, 21, 2)))

    return outputs


def claim(name: str, statement: str, ablation: str, metric: str, **more) -> Claim:
    return Claim(name, statement, metric, {s: VARIANTS[s] for s in ("full", ablation)}, ("full", ablation), **more)


METRICS = {
    "pa_mpjpe": known(pa_mpjpe),
    "pa_none": where(-1.0, 0.0, known(pa_mpjpe)),
    "pa_quarter": where(0.0, 0.25, known(pa_mpjpe)),
    "pa_half": where(0.25, 0.5, known(pa_mpjpe)),
    "pa_most": where(0.5, 0.75, known(pa_mpjpe)),
    "pa_all": where(0.75, 1.0, known(pa_mpjpe)),
    "pa_heavy": where(0.5, 1.0, known(pa_mpjpe)),
    "mpjpe": known(mpjpe),
    "tips": known(tips),
    "worst": known(worst),
    "weights_hidden": Pooled(weights_and_hidden, correlation),
}
experiment = Experiment(
    system=deformer,
    presets={
        "cpu": Preset(
            deformer.Config.tiny(),
            Made(hidden_hand, HiddenScene()),
            steps=9000,
            batch=32,
            clips=20_000,
            held_out=1024,
            evaluate_every=9000,
        ),
        "gpu": Preset(
            deformer.Config.small(),
            single_hand(size=224, frames=7, fps=6.0, occluders=2, occluded=0.5),
            steps=40_000,
            batch=32,
            clips=20_000,
            evaluate_every=10_000,
        ),
        "paper": Preset(
            deformer.Config.paper(),
            single_hand(size=512, frames=7, fps=6.0, occluders=2, occluded=0.5),
            steps=500_000,
            batch=8,
            clips=100_000,
            evaluate_every=50_000,
        ),
    },
    metrics=METRICS,
    units=dict.fromkeys(METRICS, ("mm", 1000.0)) | {"weights_hidden": ("", 1.0)},
    baseline=average_hand,
    claims=[
        claim(
            "fusion",
            "frames carried to the middle help where most of the hand is hidden",
            "middle",
            "pa_heavy",
            expected=(0.08, 0.15),
            primary=True,
        ),
        claim("nothing_hidden", "and cost nothing where nothing is", "middle", "pa_none", expected=(-0.03, 0.05)),
        claim("confidence", "frames are to count as they are sure", "even", "pa_heavy", expected=(0.0, 0.15)),
        claim("steps", "single steps are to be trained", "no_steps", "pa_heavy"),
        claim("max_mse", "errors weighted by themselves serve fingertips", "squares", "tips", expected=(0.03, 0.08)),
        claim("max_mse_worst", "and the joint that is furthest off", "squares", "worst"),
        claim("judge", "motions are to look like motions", "no_judge", "pa_heavy"),
    ],
    stand_ins=(
        "cpu: what a detector says of keypoints, for pictures",
        "a backbone that has seen nothing before, for ImageNet's",
    ),
)

if __name__ == "__main__":
    main(experiment)
