"""The painter against what geometry says, and figures that show what they should."""

import matplotlib.image
import numpy as np
import pytest

from jhand.geometry import vertex_normals
from jhand.results import vertices_of
from jhand.viz import draw_mesh, draw_skeleton, plot_errors, plot_fit, plot_overview, shade
from tests.fitted import fitted

RED, BLUE = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
SQUARE = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
FACING = np.array([[0, 2, 1], [0, 3, 2]])  # counter-clockwise for a camera that looks along +z, y down


def painted(picture: np.ndarray) -> np.ndarray:
    return (picture < 0.999).any(-1)


def test_a_square_covers_its_area():
    picture = shade(0.25 * SQUARE, FACING, size=(80, 120), scale=100.0)
    rows, columns = np.nonzero(painted(picture))
    assert picture.shape == (80, 120, 3)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 64, 35, 84)
    assert painted(picture).sum() == 50 * 50


def test_the_nearer_surface_hides_the_other():
    """Two squares cross: each is nearer on one side, and shading tells them apart by how they are turned."""
    tilt = np.array([[0, 0, -1.0], [0, 0, 1], [0, 0, 1], [0, 0, -1]])
    a, b = SQUARE + tilt, SQUARE - tilt
    faces = np.concatenate([FACING, FACING + 4])
    both = shade(np.concatenate([a, b]), faces, size=(40, 40), scale=18.0)
    alone = [shade(x, FACING, size=(40, 40), scale=18.0) for x in (a, b)]
    np.testing.assert_allclose(both[5:35, 4:18], alone[0][5:35, 4:18], atol=1e-9)  # a is nearer on the left
    np.testing.assert_allclose(both[5:35, 22:36], alone[1][5:35, 22:36], atol=1e-9)
    assert np.abs(alone[0][20, 10] - alone[1][20, 10]).max() > 0.05


def test_the_back_is_dark():
    front = shade(SQUARE, FACING, size=(20, 20), scale=8.0)[10, 10]
    back = shade(SQUARE, FACING[:, ::-1], size=(20, 20), scale=8.0)[10, 10]
    assert back.sum() < 0.5 * front.sum()


def test_what_lies_outside_is_not_painted():
    assert not painted(shade(SQUARE + np.array([10.0, 0, 0]), FACING, size=(20, 20), scale=8.0)).any()


def test_normals_point_outwards(right):
    v = np.asarray(right.v_template)
    n = vertex_normals(v, np.asarray(right.faces))
    np.testing.assert_allclose(np.linalg.norm(n, axis=1), 1, atol=1e-6)
    fingers = np.asarray(right.weights)[:, 1:].max(1) > 0.9
    bone = np.asarray(right.joint_basis[0])[np.asarray(right.weights).argmax(1)]
    assert np.mean(np.einsum("vc,vc->v", n, v - bone)[fingers] > 0) > 0.9


@pytest.mark.parametrize("dims", [2, 3])
def test_figures(right, tmp_path, dims):
    result = fitted(right, dims=dims)
    plot_fit(right, result, tmp_path / "fit.png", num_frames=2)
    plot_errors(result, tmp_path / "errors.png")
    plot_overview({"right": right}, [result, result], tmp_path / "overview.png")
    for name in ("fit", "errors", "overview"):
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3]
        assert 0.02 < painted(picture).mean() < 0.9, name
    assert vertices_of(right, result).shape == (7, 778, 3)


def test_figures_of_a_single_frame(right, tmp_path):
    result = fitted(right, 1)
    plot_fit(right, result, tmp_path / "fit.png")
    plot_errors(result, tmp_path / "errors.png")
    assert (tmp_path / "fit.png").stat().st_size > 5000


def test_a_skeleton_on_a_picture():
    image = np.full((60, 80, 3), 200, np.uint8)
    uv = np.stack([np.linspace(10, 70, 21), np.full(21, 30.0)], -1)
    uv[20] = np.nan
    visible = np.ones(21, bool)
    drawn = draw_skeleton(image, uv, visible)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    row, column = np.nonzero((drawn != 200).any(-1))
    assert abs(row.mean() - 30) < 0.3 and column.min() <= 10 and 66 <= column.max() < 71
    assert np.array_equal(draw_skeleton(image, np.full((21, 2), np.nan)), image)
    with pytest.raises(ValueError, match="of uint8"):
        draw_skeleton(image / 255, uv)
    with pytest.raises(ValueError, match=r"expected shape \(21, 2\)"):
        draw_skeleton(image, uv[:5])


def test_a_mesh_on_a_picture(right):
    from jhand.geometry import make_camera, project

    image = np.full((60, 80, 3), 255, np.uint8)
    camera = make_camera(focal=100.0, principal=np.array([39.5, 29.5]))
    v = np.asarray(right.v_template)
    v = v - v.mean(0) + [0.03, 0, 0.5]
    drawn = draw_mesh(image, v, np.asarray(right.faces), camera)
    row, column = np.nonzero((drawn != 255).any(-1))
    uv = np.asarray(project(camera, v.astype(np.float32)))
    np.testing.assert_allclose([column.min(), row.min()], uv.min(0), atol=1.0)
    np.testing.assert_allclose([column.max(), row.max()], uv.max(0), atol=1.0)
    assert drawn[row, column].mean(0)[0] > drawn[row, column].mean(0)[2]  # skin, not blue
