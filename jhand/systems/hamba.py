"""Hamba: a hand's mesh from one picture by a graph-guided scan over joint tokens (Dong et al., NeurIPS 2024).

A backbone makes a map of features. A first regression (the joints regressor) gives a hand, whose 21 joints, projected
into the picture, say where the map is sampled: 21 joint tokens and their global mean instead of all patches. Graph
convolutions along the skeleton and selective scans along the tokens, in both directions, refine them; what they say,
the first joints and the means of features are joined, and linear heads add to the mean hand.

Equations and numbers not in the paper are those of the released code and of HaMeR, on which it builds. Stage one trains
the backbone and the first regression; stage two everything, with discriminators of poses. Not in the paper and chosen
here: at the tiny size the crop is square and the backbone a small residual network; and where HaMeR's weights, from
which the paper begins, cannot be had, `pretraining` makes some as theirs came about: heat maps (ViTPose), then hands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jhand.geometry.rotations import so3_exp, so3_log
from jhand.hand import HandModel, HandParams, pose_hand_by_matrices, posed_keypoints
from jhand.hand.model import rest_joints
from jhand.nn import (
    MLP,
    Decoder,
    HandEstimate,
    HandHead,
    NodewiseGraphConv,
    PoseDiscriminator,
    ResNet,
    ViT,
    VSSBlock,
    lsgan_discriminator_loss,
    lsgan_generator_loss,
    mean_estimate,
    pixels_from_normalised,
    sample_bilinear,
    translation_from_estimate,
)
from jhand.train import LossAux, Stage, Update, adamw

Branch = Literal["scanned", "joints", "global", "sampled"]
BRANCHES: tuple[Branch, ...] = ("scanned", "joints", "global", "sampled")
BEFORE = ("network/backbone", "network/narrow", "network/first")
"""The parameters of the first regression and of what comes before it."""
FOCAL = 5000 / 256
"""Focal length over the side of the crop, HaMeR's: nearly orthographic."""


@dataclass(frozen=True)
class Config:
    """Sizes, and what the ablations take away."""

    size: int = 256
    """Side of the square crop, pixels."""
    columns: int = 192
    """Of the crop's middle: what the backbone sees."""
    backbone: Literal["vit_paper", "vit_small", "resnet_tiny"] = "vit_paper"
    channels: int = 512
    """Of all tokens."""
    first_blocks: int = 2
    """Scanning blocks over the map before the first regression."""
    blocks: int = 4
    """Graph-guided state space blocks."""
    expand: float = 2.0
    """Inner channels of the scans over C."""
    state_size: int = 16
    mlp_ratio: float = 4.0
    """Hidden channels of the blocks' MLPs over C: an ablation that has fewer parameters elsewhere has them here."""
    directions: int = 4
    """Of the token scan: 4 are two forward and two backward, each with parameters of its own; 1 goes forward."""
    graph: bool = True
    scan: bool = True
    sampler: bool = True
    """Whether tokens are sampled at the first joints; else always at those of the mean hand."""
    branches: tuple[Branch, ...] = BRANCHES
    """What the last heads see."""
    head: Literal["graph_scan", "attention"] = "graph_scan"
    """`attention`: HaMeR's, one token that looks at all patches, layer after layer."""
    peak: float = 1e-5
    """Learning rate."""
    adversarial: float = 5e-4
    """Weight of the discriminators' judgement; 0 trains without them."""

    @classmethod
    def tiny(cls, **changes: Any) -> "Config":
        """For pictures of 64 x 64 on a CPU."""
        sizes: dict[str, Any] = {"size": 64, "columns": 64, "channels": 64, "first_blocks": 1, "blocks": 2}
        sizes |= {"backbone": "resnet_tiny", "expand": 1.0, "state_size": 4, "peak": 1e-3}
        return cls(**(sizes | changes))

    @classmethod
    def small(cls, **changes: Any) -> "Config":
        """For pictures of 128 x 128 on one accelerator."""
        sizes: dict[str, Any] = {"size": 128, "columns": 96, "channels": 256, "blocks": 3}
        sizes |= {"backbone": "vit_small", "peak": 3e-4}
        return cls(**(sizes | changes))

    @classmethod
    def paper(cls, **changes: Any) -> "Config":
        """As published: ViT-H on crops of 256 x 192."""
        return cls(**changes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """What is seen."""

    image: Float[Array, "*b h w 3"]
    """A crop of a right hand, sRGB from 0 to 1."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Regression:
    """A hand as it is regressed, and where that puts its keypoints."""

    estimate: HandEstimate
    keypoints: Float[Array, "*b 21 3"]
    """Metres, the frame of a camera of focal length `FOCAL` crops before the crop's centre."""
    keypoints2d: Float[Array, "*b 21 2"]
    """From -0.5 to 0.5 across the crop."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outputs:
    """A hand, in the frame of a camera of focal length `FOCAL` crops before the crop's centre."""

    params: HandParams
    keypoints: Float[Array, "*b 21 3"]
    keypoints2d: Float[Array, "*b 21 2"]
    """From -0.5 to 0.5 across the crop."""
    first: Regression
    """Of the joints regressor."""
    last: Regression


needs = (
    "image",
    "camera.K",
    "camera.T_cam_world",
    "hands.right.keypoints3d",
    "hands.right.keypoints3d_valid",
    "hands.right.keypoints2d",
    "hands.right.confidence",
    "hands.right.params",
)


def prepare(clip: dict[str, Any], config: Config) -> dict[str, Any]:
    """The first frame and view of a clip whose pictures are crops of `config.size`, as arrays of a batch.

    Only picks entries, so that it serves numpy in a pipeline and traced arrays in a step alike. `params_valid` is taken
    for true where a dataset does not have it.
    """
    hand, camera = clip["hands"]["right"], clip["camera"]
    side = clip["image"].shape[2:4]
    if side != (config.size, config.size):
        raise ValueError(f"hamba: expected crops of {config.size} x {config.size} pixels, got {side}; crop_to_hand")
    valid = hand["keypoints3d_valid"][0]
    return {
        "image": clip["image"][0, 0],
        "T_cam_world": camera["T_cam_world"][0, 0],
        "keypoints3d": hand["keypoints3d"][0],
        "keypoints3d_valid": valid,
        "keypoints2d": hand["keypoints2d"][0, 0],
        "keypoints2d_valid": hand["confidence"][0, 0] > 0,
        "params_valid": hand["params_valid"][0] if "params_valid" in hand else valid[0] | True,
        **{name: hand["params"][name][0] for name in ("global_orient", "hand_pose", "betas")},
    }


def inputs_of(batch: dict[str, Array]) -> Inputs:
    """What is seen of a batch of `prepare`, whose leaves are (B, ...)."""
    return Inputs(batch["image"].astype(jnp.float32) / 255)


def _across_map(points: Array, config: Config) -> Array:
    """From -0.5 to 0.5 across the crop to 0 to 1 across what the backbone sees of it, the middle columns."""
    return points * jnp.array([config.size / config.columns, 1.0]) + 0.5


class JointsRegressor(nn.Module):
    """A first hand from the map: scanning blocks over the grid, their mean, three linear heads."""

    config: Config

    @nn.compact
    def __call__(self, features: Array, start: HandEstimate) -> HandEstimate:
        c = self.config
        for number in range(c.first_blocks):
            features = VSSBlock(expand=c.expand, state_size=c.state_size, name=f"block{number}")(features)
        return HandHead(name="heads")(jnp.mean(features, (1, 2)), start)


class TokenSampler(nn.Module):
    """Tokens (b, 21, C) of a map at joints (b, 21, 2), -0.5 to 0.5 across the crop, whose places have no gradient."""

    config: Config

    @nn.compact
    def __call__(self, features: Array, joints: Array, train: bool) -> Array:
        seen = jnp.clip(_across_map(jax.lax.stop_gradient(joints), self.config), 0, 1)
        at = pixels_from_normalised(seen, (features.shape[1], features.shape[2]))
        tokens = nn.Dense(self.config.channels)(sample_bilinear(features, at, outside="border"))
        tokens = nn.relu(nn.BatchNorm(not train, momentum=0.9)(tokens))
        return nn.Dense(self.config.channels)(tokens)


class GraphScanBlock(nn.Module):
    """A graph convolution of the joint tokens, past which the global token goes, then a scan of all of them."""

    config: Config

    @nn.compact
    def __call__(self, tokens: Array, train: bool) -> Array:
        c = self.config
        if c.graph:
            joints = NodewiseGraphConv(c.channels, name="graph")(tokens[:, :-1])
            joints = nn.relu(nn.BatchNorm(not train, momentum=0.9)(joints))
            tokens = jnp.concatenate([joints, tokens[:, -1:]], 1)
        if c.scan:
            block = VSSBlock(c.directions, c.expand, c.state_size, mlp_ratio=c.mlp_ratio, name="scan")
            return block(tokens[:, :, None])[:, :, 0]
        return tokens + MLP(int(c.mlp_ratio * c.channels), name="mlp")(nn.LayerNorm(epsilon=1e-6)(tokens))


class GraphScanHead(nn.Module):
    """Features and the first hand to a refined one."""

    config: Config

    @nn.compact
    def __call__(self, features: Array, joints: Array, start: Regression, train: bool) -> HandEstimate:
        c = self.config
        mean = jnp.mean(features, (1, 2))
        places = joints if c.sampler else start.keypoints2d
        sampled = TokenSampler(c, name="sampler")(features, places, train)
        tokens = jnp.concatenate([sampled, mean[:, None]], 1)
        for number in range(c.blocks):
            tokens = GraphScanBlock(c, name=f"block{number}")(tokens, train)
        branches = {
            "scanned": jnp.mean(tokens, 1),
            "joints": joints.reshape(joints.shape[0], -1),
            "global": mean,
            "sampled": jnp.mean(sampled, 1),
        }
        return HandHead(name="heads")(jnp.concatenate([branches[name] for name in c.branches], -1), start.estimate)


class AttentionHead(nn.Module):
    """HaMeR's: one token looks at all patches, layer after layer (Pavlakos et al., CVPR 2024)."""

    config: Config

    @nn.compact
    def __call__(self, features: Array, joints: Array, start: Regression, train: bool) -> HandEstimate:
        patches = features.reshape(features.shape[0], -1, self.config.channels)
        query = self.param("query", nn.initializers.normal(0.02), (1, 1, self.config.channels))
        token = jnp.broadcast_to(query, (features.shape[0], 1, self.config.channels))
        decoder = Decoder(self.config.blocks, max(1, self.config.channels // 64), self.config.mlp_ratio)
        token = decoder(token, patches)
        return HandHead(name="heads")(token[:, 0], start.estimate)


class Network(nn.Module):
    """Backbone, first regression, head."""

    config: Config

    def setup(self) -> None:
        c = self.config
        backbones = {
            "vit_paper": lambda: ViT.paper(image_size=(c.size, c.columns)),
            "vit_small": lambda: ViT.small(image_size=(c.size, c.columns)),
            "resnet_tiny": lambda: ResNet(blocks=(1, 2), width=32),
        }
        self.backbone = backbones[c.backbone]()
        self.narrow = nn.Dense(c.channels)
        self.first = JointsRegressor(c)
        self.head = {"graph_scan": GraphScanHead, "attention": AttentionHead}[c.head](c)

    def __call__(self, image: Array, hand: HandModel, train: bool) -> tuple[Regression, Regression]:
        first, features, start = self.begin(image, hand, train)
        last = self.head(features, first.keypoints2d, start, train)
        return first, _regression(last, hand, self.config)

    def begin(self, image: Array, hand: HandModel, train: bool) -> tuple[Regression, Array, Regression]:
        """The first regression, and what the head needs beside it."""
        c = self.config
        edge = (c.size - c.columns) // 2
        seen = (image[:, :, edge : edge + c.columns] - 0.45) / 0.23
        features = self.backbone(seen, deterministic=not train)
        features = self.narrow(features if isinstance(features, Array) else features[-1])
        start = jax.tree.map(lambda x: jnp.broadcast_to(x, (image.shape[0], *x.shape)), mean_estimate(hand))
        first = self.first(features, start)
        return _regression(first, hand, c), features, _regression(start, hand, c)


def _regression(estimate: HandEstimate, hand: HandModel, config: Config) -> Regression:
    """The hand of an estimate before its camera."""
    t = translation_from_estimate(estimate.camera, FOCAL * config.size, config.size)
    shaped = rest_joints(hand, estimate.betas)
    posed = pose_hand_by_matrices(shaped, estimate.rotations, -shaped[..., 0, :])
    keypoints = posed_keypoints(hand, estimate.betas, posed) + t[..., None, :]
    return Regression(estimate, keypoints, FOCAL * keypoints[..., :2] / keypoints[..., 2:])


def init(key: Array, config: Config, hand: HandModel) -> dict[str, Any]:
    """`{"params": {"network", "discriminator", "heat_maps"}, "stats"}`; the last of these serve `pretraining`."""
    keys = jax.random.split(key, 3)
    variables = Network(config).init(keys[0], jnp.zeros((1, config.size, config.size, 3)), hand, False)
    judge = PoseDiscriminator().init(keys[1], jnp.zeros((1, 15, 3, 3)), jnp.zeros((1, 10)))
    heat_maps = _heat_maps.init(keys[2], jnp.zeros((1, config.channels)))["params"]
    params = {"network": variables["params"], "discriminator": judge["params"], "heat_maps": heat_maps}
    return {"params": params, "stats": {"network": variables.get("batch_stats", {})}}


def apply(
    variables: dict[str, Any], inputs: Inputs, config: Config, hand: HandModel, *, key: Array | None = None
) -> Outputs:
    """The hands of pictures (b, H, W, 3), in test mode; `key` is not used."""
    first, last = _network(config)(_of_network(variables), inputs.image, hand, False)
    turns = so3_log(last.estimate.rotations)
    root = rest_joints(hand, last.estimate.betas)[..., 0, :]
    transl = translation_from_estimate(last.estimate.camera, FOCAL * config.size, config.size) - root
    params = HandParams(turns[..., 0, :], turns[..., 1:, :], last.estimate.betas, transl)
    return Outputs(params, last.keypoints, last.keypoints2d, first, last)


predict = apply


def loss_pretraining(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, *, key: Array
) -> tuple[Array, LossAux]:
    """Of `pretraining`: `loss_first`, and where keypoints are in the map of features, as cross-entropies over its
    cells; arguments as `loss_first` has them, batches of leaves (B, ...).
    """
    (first, features, _), changed = _begin(variables, batch, config, hand, key)
    heat: Any = _heat_maps.apply({"params": variables["params"]["heat_maps"]}, features)
    rows, columns = heat.shape[1:3]
    wanted = targets(batch, config)
    at = pixels_from_normalised(_across_map(wanted.keypoints2d, config), (rows, columns))
    cells = jnp.stack(jnp.meshgrid(jnp.arange(columns), jnp.arange(rows)), -1).reshape(-1, 1, 2)
    near = jax.nn.softmax(-jnp.sum(jnp.square(cells - at[:, None]), -1), 1)  # Gaussians of 0.7 cells
    unlikely = -jnp.sum(near * jax.nn.log_softmax(heat.reshape(near.shape), 1), 1)
    inside = wanted.keypoints2d_counts * jnp.all(jnp.abs(wanted.keypoints2d) < 0.5, -1)
    terms = regression_terms(first, wanted)
    terms["heat_maps"] = jnp.sum(unlikely * inside) / jnp.maximum(jnp.sum(inside), 1)
    return sum(terms.values(), jnp.zeros(())), LossAux(changed, terms, first)


def loss_first(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, *, key: Array
) -> tuple[Array, LossAux]:
    """Of stage one: the first regression alone.

    Args:
        variables: of `init`.
        batch: of `prepare`, leaves (B, ...).
        config: sizes.
        hand: right.
        key: of dropped branches.
    """
    (first, _, _), changed = _begin(variables, batch, config, hand, key)
    terms = regression_terms(first, targets(batch, config))
    return sum(terms.values(), jnp.zeros(())), LossAux(changed, terms, first)


def loss(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, *, key: Array
) -> tuple[Array, LossAux]:
    """Of stage two: both regressions, and what the discriminators think of the last one; arguments as `loss_first`,
    batches of leaves (B, ...).
    """
    (first, last), changed = _network(config)(
        _of_network(variables), inputs_of(batch).image, hand, True, mutable="batch_stats", rngs={"dropout": key}
    )
    wanted = targets(batch, config)
    terms = regression_terms(last, wanted)
    terms |= {f"first_{name}": value for name, value in regression_terms(first, wanted).items()}
    if config.adversarial:
        judge = jax.lax.stop_gradient(variables["params"]["discriminator"])
        scores = _judge({"params": judge}, last.estimate.rotations[:, 1:], last.estimate.betas)
        terms["adversarial"] = config.adversarial * jnp.mean(lsgan_generator_loss(scores))
    stats = {"network": changed.get("batch_stats", {})}
    return sum(terms.values(), jnp.zeros(())), LossAux(stats, terms, last)


def loss_discriminator(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, *, key: Array
) -> tuple[Array, LossAux]:
    """What is regressed is to be told from real poses, those of other hands of the batch; arguments as `loss_first`,
    batches of leaves (B, ...).
    """
    _, last = _network(config)(_of_network(variables), inputs_of(batch).image, hand, False)
    made = jax.lax.stop_gradient(last.estimate)
    judge = partial(_judge, {"params": variables["params"]["discriminator"]})
    real = jnp.roll(so3_exp(batch["hand_pose"]), 1, 0), jnp.roll(batch["betas"], 1, 0)
    counts = jnp.roll(batch["params_valid"], 1, 0).astype(jnp.float32)
    value = lsgan_discriminator_loss(judge(*real), judge(made.rotations[:, 1:], made.betas))
    return jnp.sum(counts * value) / jnp.maximum(jnp.sum(counts), 1), LossAux()


def pretraining(config: Config, hand: HandModel, steps: int) -> tuple[Stage, ...]:
    """What stands for HaMeR's weights: the backbone and the first regression, helped by heat maps."""
    loss = partial(loss_pretraining, config=config, hand=hand)
    update = Update("all", loss, adamw(2 * config.peak, steps), (*BEFORE, "heat_maps"))
    return (Stage("pretraining", steps, (update,)),)


def stages(config: Config, hand: HandModel, steps: int) -> tuple[Stage, ...]:
    """A quarter of the steps for the first regression, the rest for everything."""
    early = max(1, steps // 4)
    bound = dict(config=config, hand=hand)
    first = Update("first", partial(loss_first, **bound), adamw(config.peak, early), BEFORE)
    whole = Update("whole", partial(loss, **bound), adamw(config.peak, steps - early), ("network",))
    judge = Update("judge", partial(loss_discriminator, **bound), optax.adamw(config.peak), ("discriminator",))
    return (
        Stage("first", early, (first,)),
        Stage("whole", steps - early, (whole, judge) if config.adversarial else (whole,)),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Targets:
    """What a regression should be, and what of it counts."""

    keypoints2d: Float[Array, "*b 21 2"]
    keypoints2d_counts: Float[Array, "*b 21"]
    from_wrist: Float[Array, "*b 21 3"]
    """Metres, camera axes."""
    from_wrist_counts: Float[Array, "*b 21"]
    rotations: Float[Array, "*b 16 3 3"]
    betas: Float[Array, "*b 10"]
    params_count: Float[Array, "*b"]


def targets(batch: dict[str, Array], config: Config) -> Targets:
    """A batch of `prepare`, leaves (B, ...), in the camera's axes."""
    R = batch["T_cam_world"][:, :3, :3]
    points, valid = batch["keypoints3d"], batch["keypoints3d_valid"].astype(jnp.float32)
    from_wrist = jnp.einsum("bij,bkj->bki", R, points - points[:, :1], precision="highest")
    wrist = jnp.matmul(R, so3_exp(batch["global_orient"]), precision="highest")
    return Targets(
        keypoints2d=(batch["keypoints2d"] + 0.5) / config.size - 0.5,
        keypoints2d_counts=batch["keypoints2d_valid"].astype(jnp.float32),
        from_wrist=from_wrist,
        from_wrist_counts=valid * valid[:, :1],
        rotations=jnp.concatenate([wrist[:, None], so3_exp(batch["hand_pose"])], 1),
        betas=batch["betas"],
        params_count=batch["params_valid"].astype(jnp.float32),
    )


def regression_terms(found: Regression, wanted: Targets) -> dict[str, Array]:
    """HaMeR's losses (Pavlakos et al., CVPR 2024; weights of its code): L1 of keypoints, squares of parameters; sums
    over a hand, means over the batch.
    """
    error2d = jnp.sum(jnp.abs(found.keypoints2d - wanted.keypoints2d), -1) * wanted.keypoints2d_counts
    from_wrist = found.keypoints - found.keypoints[:, :1]
    error3d = jnp.sum(jnp.abs(from_wrist - wanted.from_wrist), -1) * wanted.from_wrist_counts
    turned = jnp.sum(jnp.square(found.estimate.rotations - wanted.rotations), (-1, -2))
    shape = jnp.sum(jnp.square(found.estimate.betas - wanted.betas), -1)
    return {
        "keypoints2d": 0.01 * jnp.mean(jnp.sum(error2d, -1)),
        "keypoints3d": 0.05 * jnp.mean(jnp.sum(error3d, -1)),
        "global_orient": 1e-3 * jnp.mean(turned[:, 0] * wanted.params_count),
        "hand_pose": 1e-3 * jnp.mean(jnp.sum(turned[:, 1:], -1) * wanted.params_count),
        "betas": 5e-4 * jnp.mean(shape * wanted.params_count),
    }


def tokens_of(config: Config) -> int:
    """How many tokens the head works on."""
    patches = {"vit_paper": 16, "vit_small": 16, "resnet_tiny": 8}[config.backbone]
    grid = (config.size // patches) * (config.columns // patches)
    return 22 if config.head == "graph_scan" else grid


def predicting(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a prediction needs: what is published."""
    return {"network": params["network"]}


def _network(config: Config) -> Callable[..., Any]:
    return Network(config).apply


def _begin(
    variables: dict[str, Any], batch: dict[str, Array], config: Config, hand: HandModel, key: Array
) -> tuple[tuple[Regression, Array, Regression], dict[str, Any]]:
    """`Network.begin` in train mode, and the averages that it changed."""
    collections, image = _of_network(variables), inputs_of(batch).image
    settings = dict(method="begin", mutable="batch_stats", rngs={"dropout": key})
    found, changed = _network(config)(collections, image, hand, True, **settings)
    return found, {"network": changed.get("batch_stats", {})}


_heat_maps = nn.Dense(21)
_judge: Callable[..., Any] = PoseDiscriminator().apply


def _of_network(variables: dict[str, Any]) -> dict[str, Any]:
    return {"params": variables["params"]["network"], "batch_stats": variables["stats"].get("network", {})}
