"""Cameras that several tests look through."""

import jax.numpy as jnp
import numpy as np

from jhand.geometry import Camera


def ring_of_cameras(num: int, *, distance: float = 0.7, focal: float = 600.0, distortion=None) -> Camera:
    """Cameras (num,) around the origin, looking at it from a little above."""
    poses = []
    for angle in np.linspace(0, 1.6 * np.pi, num, endpoint=False):
        eye = distance * np.array([np.cos(angle), -0.3, np.sin(angle)])
        z = -eye / np.linalg.norm(eye)
        x = np.cross([0.0, 1.0, 0.0], z)
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, -R @ eye
        poses.append(T)
    K = np.array([[focal, 0, 320], [0, focal, 240], [0, 0, 1.0]])
    lens = np.zeros(8) if distortion is None else distortion
    return Camera(
        jnp.asarray(np.tile(K, (num, 1, 1)), jnp.float32),
        jnp.asarray(np.stack(poses), jnp.float32),
        jnp.asarray(np.tile(lens, (num, 1)), jnp.float32),
    )
