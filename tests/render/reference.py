"""A slow renderer in float64: every ray against every triangle (Moeller and Trumbore 1997)."""

import numpy as np


def cast_rays(vertices, faces, K, T_cam_world, size, near=0.01):
    """Depth (H, W), infinite where nothing is hit; triangle (H, W); barycentric coordinates (H, W, 3)."""
    T, K = np.asarray(T_cam_world, float), np.asarray(K, float)
    v = np.asarray(vertices, float) @ T[:3, :3].T + T[:3, 3]
    a, b, c = (v[np.asarray(faces)[:, k]] for k in range(3))
    e1, e2 = b - a, c - a
    height, width = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ np.linalg.inv(K).T  # of depth one
    depth, face, bary = [], [], []
    boxed = (v[:, 2] > near).all()  # then a ray outside the box of all projections hits nothing
    low, high = (f(v[:, :2] / v[:, 2:], axis=0) if boxed else s * np.inf for f, s in ((np.min, -1), (np.max, 1)))
    for d in rays:
        if (d[:2] < low).any() or (d[:2] > high).any():
            depth.append(np.inf)
            face.append(-1)
            bary.append([0, 0, 0])
            continue
        p = np.cross(d, e2)
        det = np.einsum("fc,fc->f", e1, p)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = np.einsum("fc,fc->f", -a, p) / det
            q = np.cross(-a, e1)
            w = np.einsum("c,fc->f", d, q) / det
            t = np.einsum("fc,fc->f", e2, q) / det
        hit = (u >= 0) & (w >= 0) & (u + w <= 1) & (t > near)
        t = np.where(hit, t, np.inf)
        f = int(np.argmin(t)) if len(t) else -1
        depth.append(t[f] if len(t) else np.inf)
        face.append(f if np.isfinite(depth[-1]) else -1)
        bary.append([1 - u[f] - w[f], u[f], w[f]] if face[-1] >= 0 else [0, 0, 0])
    shape = (height, width)
    return np.array(depth).reshape(shape), np.array(face).reshape(shape), np.array(bary).reshape(*shape, 3)
