"""A clip made by hand: points of a hand seen by two cameras with lenses, a dot where each of them is."""

import numpy as np
from scipy.spatial.transform import Rotation

from jhand.geometry import make_camera, project


def cameras(K, T, distortion):
    import jax.numpy as jnp

    from jhand.geometry import Camera

    return Camera(jnp.asarray(K), jnp.asarray(T), jnp.asarray(distortion))


def make_clip(seed=0, frames=2, views=2, size=(48, 64)):
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4, dtype=np.float32), (frames, views, 1, 1))
    T[..., :3, :3] = Rotation.random(frames * views, random_state=seed).as_matrix().reshape(frames, views, 3, 3)
    T[..., :3, 3] = [0, 0, 0.5]
    distortion = rng.normal(0, 0.03, (frames, views, 8)).astype(np.float32) * np.array([1, 1, 0.3, 0.3, 1, 0, 0, 0])
    camera = make_camera(
        focal=np.array([70.0, 74.0], np.float32) * np.ones((frames, views, 2)),
        principal=np.array([30.0, 25.0]) * np.ones((frames, views, 2)),
        T_cam_world=T,
        distortion=distortion.astype(np.float32),
    )
    points = rng.normal(0, 0.05, (frames, 21, 3)).astype(np.float32)
    uv = np.asarray(project(camera, np.broadcast_to(points[:, None], (frames, views, 21, 3))))
    inside = np.all((uv > -0.5) & (uv < np.array(size[::-1]) - 0.5), -1).astype(np.float32)
    hand = {
        "present": np.ones(frames, bool),
        "keypoints3d": points,
        "keypoints3d_valid": np.ones((frames, 21), bool),
        "keypoints2d": uv,
        "visible": inside,
        "confidence": np.ones((frames, views, 21), np.float32),
        "model": "jhand",
        "params": {
            "global_orient": rng.normal(0, 1, (frames, 3)).astype(np.float32),
            "hand_pose": rng.normal(0, 0.3, (frames, 15, 3)).astype(np.float32),
            "betas": rng.normal(0, 1, (frames, 10)).astype(np.float32),
            "transl": rng.normal(0, 0.1, (frames, 3)).astype(np.float32),
        },
    }
    return {
        "image": rng.integers(0, 256, (frames, views, *size, 3), dtype=np.uint8),
        "depth": rng.uniform(0.2, 0.8, (frames, views, *size)).astype(np.float32),
        "segmentation": rng.integers(0, 3, (frames, views, *size), dtype=np.uint8),
        "camera": {
            "K": np.array(camera.K),
            "T_cam_world": np.array(camera.T_cam_world),
            "distortion": np.array(camera.distortion),
        },
        "hands": {"right": hand},
        "text": "a hand",
        "meta": {
            "dataset": "made", "sequence": str(seed), "fps": 30.0, "world": "any", "licence": "none",
            "segments": ["background", "right hand", "left hand"],
        },
    }  # fmt: skip


def reprojected(clip, side):
    camera, hand = clip["camera"], clip["hands"][side]
    shape = hand["keypoints2d"].shape
    points = np.broadcast_to(hand["keypoints3d"][:, None], (*shape[:3], 3))
    return np.asarray(project(cameras(camera["K"], camera["T_cam_world"], camera["distortion"]), points))


def params_of(hand):
    import jax.numpy as jnp

    from jhand.hand import HandParams

    return HandParams(**{name: jnp.asarray(value, jnp.float32) for name, value in hand["params"].items()})
