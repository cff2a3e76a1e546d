"""Results hold what was fitted, and come back from disk as they went."""

import csv
import json
from dataclasses import fields

import numpy as np
import pytest

from jhand.hand.kinematics import forward
from jhand.results import (
    Result,
    ResultFileError,
    load_result,
    save_errors,
    save_for_smplx,
    save_result,
    upright,
    vertices_of,
)
from tests.fitted import SCALE, fitted, study_of


def test_result_is_the_fit(right):
    study = study_of(right)
    result = fitted(right)
    np.testing.assert_array_equal(result.hand_pose, study.fit.params.hand_pose)
    np.testing.assert_allclose(vertices_of(right, result), forward(right, study.fit.params).vertices, atol=1e-6)
    counted = study.errors[study.seen]
    assert result.scores["mean"] == pytest.approx(counted.mean())
    assert result.scores["p95"] == pytest.approx(np.percentile(counted, 95))
    assert result.scores["max_beta"] == pytest.approx(float(np.abs(study.fit.params.betas).max()))
    assert 150 < result.hand_length < 230  # millimetres
    assert result.errors[2].max() == 0 and not result.seen[2].any()


def test_pixels_are_lifted_to_the_depth_of_the_fit(right):
    study = study_of(right, dims=2)
    result = fitted(right, dims=2)
    seen = result.seen
    np.testing.assert_allclose(SCALE * result.measured[seen][:, :2], study.recording.keypoints2d[seen], rtol=1e-4)
    np.testing.assert_array_equal(result.measured[seen][:, 2], result.landmarks[seen][:, 2])
    apart = SCALE * np.linalg.norm(result.measured - result.landmarks, axis=-1)
    np.testing.assert_allclose(apart[seen], result.errors[seen], rtol=1e-3, atol=1e-3)
    assert result.unit == "px" and 0 < result.scores["percent"] < 5


def test_round_trip(right, tmp_path):
    result = fitted(right)
    save_result(result, tmp_path / "params.npz")
    again = load_result(tmp_path / "params.npz")
    for f in fields(Result):
        a, b = getattr(result, f.name), getattr(again, f.name)
        assert type(a) is type(b), f.name
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["params.npz"]


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("x")
    np.savez(tmp_path / "other.npz", betas=np.zeros(10))
    for name, message in (("gone", "No such file"), ("text", "not an .npz file"), ("other", "lacks name, side")):
        with pytest.raises(ResultFileError, match=message) as error:
            load_result(tmp_path / f"{name}.npz")
        assert f"{name}.npz" in str(error.value)


def test_smplx_arguments(left, tmp_path):
    result = fitted(left)
    save_for_smplx(result, tmp_path)
    about = json.loads((tmp_path / "smplx.json").read_text())
    assert about["create"] == {
        "model_type": "mano",
        "is_rhand": False,
        "use_pca": False,
        "flat_hand_mean": True,
        "num_betas": 10,
        "batch_size": 7,
    }
    with np.load(tmp_path / "smplx.npz") as z:
        assert {k: z[k].shape for k in z.files} == {
            "global_orient": (7, 3),
            "hand_pose": (7, 45),
            "betas": (7, 10),
            "transl": (7, 3),
        }
        np.testing.assert_array_equal(z["hand_pose"].reshape(7, 15, 3), result.hand_pose)
        np.testing.assert_array_equal(z["betas"], np.tile(result.betas, (7, 1)))


def test_error_table(right, tmp_path):
    result = fitted(right)
    save_errors(result, tmp_path / "errors.csv")
    with (tmp_path / "errors.csv").open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0][:3] == ["frame", "seconds", "wrist [mm]"] and len(rows) == 8 and len(rows[0]) == 23
    assert rows[2][6] == "" and set(rows[3][2:]) == {""}
    assert float(rows[4][1]) == pytest.approx(3 / 25)
    np.testing.assert_allclose([float(x) for x in rows[1][2:]], result.errors[0], rtol=1e-3)


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.3, -2.0, 0.5)])
def test_upright_is_a_rotation_that_lifts_up(up):
    R = upright(up)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    np.testing.assert_allclose(R @ np.array(up) / np.linalg.norm(up), [0, 1, 0], atol=1e-12)
    if up[0] == 0:
        np.testing.assert_allclose(R @ [1, 0, 0], [1, 0, 0])
