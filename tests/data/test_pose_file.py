import numpy as np
import pytest

from jhand.data.pose_file import PoseFileError, parse_pose
from tests.data.pose_bytes import pose_bytes

POINTS = {"BODY": ("NOSE", "NECK"), "RIGHT_HAND_LANDMARKS": tuple(f"P{i}" for i in range(21))}


def _body(dims=3, people=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, people, 23, dims)).astype(np.float32), rng.uniform(size=(4, people, 23)).astype(
        np.float32
    )


@pytest.mark.parametrize("version", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_version_reads_back(version, dims):
    coordinates, confidence = _body(dims)
    pose = parse_pose(pose_bytes(version, POINTS, coordinates, confidence))
    assert (pose.fps, pose.size) == (25, (640, 480))
    assert pose.points == POINTS
    assert pose.component("RIGHT_HAND_LANDMARKS") == slice(2, 23)
    np.testing.assert_array_equal(pose.coordinates, coordinates)
    np.testing.assert_array_equal(pose.confidence, confidence)


@pytest.mark.parametrize("version", [0.0, 0.1, 0.2])
def test_a_truncated_file_says_so_wherever_it_ends(version):
    data = pose_bytes(version, POINTS, *_body())
    for end in range(0, len(data) - 1, 37):
        with pytest.raises(PoseFileError):
            parse_pose(data[:end])


def test_a_header_that_promises_too_much():
    data = bytearray(pose_bytes(0.2, {"A": ("x",)}, np.zeros((1, 1, 1, 2)), np.zeros((1, 1, 1))))
    data[-12 - 6 : -12 - 2] = b"\xff\xff\xff\x7f"  # the number of frames
    with pytest.raises(PoseFileError, match="promises"):
        parse_pose(bytes(data))


def test_other_bytes_are_refused():
    with pytest.raises(PoseFileError, match="version"):
        parse_pose(b"PK\x03\x04" + bytes(100))
    with pytest.raises(PoseFileError, match="no components"):
        parse_pose(bytes(100))
