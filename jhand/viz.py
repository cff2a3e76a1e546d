"""Pictures of hands in plain numpy: a small z-buffer painter for reports and documentation (the differentiable renderer is another part)."""

import numpy as np

_SKIN = np.array([0.86, 0.66, 0.55])
_BACKGROUND = np.array([1.0, 1.0, 1.0])
_LIGHT = np.array([-0.35, -0.55, -0.76])  # from the upper left, behind the camera


def shade(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    size: tuple[int, int],
    scale: float,
    centre: tuple[float, float] = (0.0, 0.0),
    colour: np.ndarray = _SKIN,
) -> np.ndarray:
    """Paint a mesh in orthographic projection with smooth shading.

    Args:
        vertices: (V, 3) metres in camera axes: x right, y down, z forward.
        faces: (F, 3) triangles, counter-clockwise seen from outside.
        size: height and width of the picture, pixels.
        scale: pixels per metre.
        centre: (x, y) metres that appears in the middle of the picture.
        colour: (3,) of the surface, 0 to 1.

    Returns:
        (H, W, 3) float, 0 to 1; the back of the surface is darker.
    """
    supersample = 2
    height, width = (supersample * s for s in size)
    v = np.asarray(vertices, float)
    uv = (v[:, :2] - centre) * scale * supersample + np.array([width - 1, height - 1]) / 2
    normals = np.zeros_like(v)
    corners = v[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for k in range(3):
        np.add.at(normals, faces[:, k], face_normals)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12

    depth = np.full((height, width), np.inf)
    picture = np.tile(_BACKGROUND, (height, width, 1))
    for f, corner in zip(faces, uv[faces], strict=True):
        lo = np.maximum(np.ceil(corner.min(0)).astype(int), 0)
        hi = np.minimum(np.floor(corner.max(0)).astype(int), [width - 1, height - 1])
        (ax, ay), (bx, by), (cx, cy) = corner
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if (hi < lo).any() or abs(area) < 1e-9:
            continue
        x, y = np.meshgrid(np.arange(lo[0], hi[0] + 1), np.arange(lo[1], hi[1] + 1))
        wb = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
        wc = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
        weights = np.stack([1 - wb - wc, wb, wc], -1)
        z = weights @ v[f, 2]
        window = np.s_[lo[1] : hi[1] + 1, lo[0] : hi[0] + 1]
        nearer = (weights >= 0).all(-1) & (z < depth[window])
        normal = weights @ normals[f]
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
        lit = 0.35 + 0.65 * np.clip(normal @ _LIGHT, 0, 1)
        lit = np.where(
            normal[..., 2] > 0.05, 0.25, lit
        )  # seen from behind: the open wrist, or a face turned inside out
        depth[window] = np.where(nearer, z, depth[window])
        picture[window] = np.where(nearer[..., None], lit[..., None] * colour, picture[window])
    return picture.reshape(size[0], supersample, size[1], supersample, 3).mean((1, 3))
