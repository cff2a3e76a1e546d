import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jhand.hand.files import TIPS, HandFileError, correct_left_shapedirs, load_hand, save_hand, with_tips
from jhand.hand.model import HandModel
from tests.hand.mano_files import (
    MIRROR,
    hand_arrays,
    noise_arrays,
    write_clean,
    write_distributed,
    write_npz,
)

SMALL_TIPS = (0, 1, 2, 3, 4)
WRITERS = [write_distributed, write_clean, write_npz]
FIELDS = ["v_template", "shapedirs", "posedirs", "weights", "J_regressor", "f", "kintree_table", "hands_mean"]
FIELDS += ["hands_components"]


def small_arrays(seed: int = 0, side: str = "right") -> dict[str, Any]:
    return hand_arrays(seed, side, vertices=25, faces=30)


def error_of(path: Path, tips: Any = SMALL_TIPS, **arguments: Any) -> str:
    """The message of the HandFileError that loading must raise; it names the file."""
    with pytest.raises(HandFileError) as caught:
        load_hand(path, tips=tips, **arguments)
    assert str(path) in str(caught.value)
    return str(caught.value)


def assert_same(hand: HandModel, other: HandModel) -> None:
    for field in fields(HandModel):
        a, b = getattr(hand, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("write", WRITERS)
def test_keeps_the_arrays_of_the_file(write: Callable, side: str, tmp_path: Path) -> None:
    arrays = hand_arrays(3, side)
    hand = load_hand(write(tmp_path / f"MANO_{side.upper()}.pkl", arrays))
    for name in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "hands_mean", "hands_components"):
        np.testing.assert_array_equal(getattr(hand, name), arrays[name].astype(np.float32), strict=True, err_msg=name)
    np.testing.assert_array_equal(hand.faces, arrays["f"])
    np.testing.assert_allclose(hand.hands_sd, arrays["hands_coeffs"].std(0), rtol=1e-6)
    np.testing.assert_allclose(hand.joint_basis[0], arrays["J_regressor"] @ arrays["v_template"], atol=1e-7)
    assert (hand.side, hand.name, hand.tips) == (side, f"MANO_{side.upper()}", TIPS["smplx"])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_clean_pickles_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    arrays = small_arrays()
    expected = load_hand(write_distributed(tmp_path / "MANO_RIGHT.pkl", arrays), tips=SMALL_TIPS)
    assert_same(expected, load_hand(write_clean(tmp_path / "MANO_RIGHT.pkl", arrays, protocol), tips=SMALL_TIPS))


def test_root_of_the_tree_may_be_minus_one(tmp_path: Path) -> None:
    arrays = small_arrays()
    arrays["kintree_table"][0, 0] = -1
    assert load_hand(write_clean(tmp_path / "right.pkl", arrays), tips=SMALL_TIPS).num_vertices == 25


@pytest.mark.parametrize("level", ["default", "fine"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_built_in_hands(side: str, level: str) -> None:
    hand = load_hand(side=side, level=level)
    assert hand.side == side
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(hand))
    if level == "default":
        assert (hand.num_vertices, hand.tips) == (778, TIPS["smplx"])
        assert_same(hand, load_hand(side=side, tips="smplx"))
    if side == "right":
        assert_same(hand, load_hand(level=level))


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_saved_hands_come_back(side: str, suffix: str, tmp_path: Path) -> None:
    hand = load_hand(write_clean(tmp_path / f"MANO_{side.upper()}.pkl", small_arrays(side=side)), tips=SMALL_TIPS)
    save_hand(hand, tmp_path / f"copy{suffix}")
    copy = load_hand(tmp_path / f"copy{suffix}")
    if suffix == ".pkl":  # whose joints are regressed anew, from rounded numbers
        np.testing.assert_allclose(copy.joint_basis, hand.joint_basis, atol=1e-8)
        np.testing.assert_allclose(copy.axes, hand.axes, atol=1e-6)
        copy = replace(copy, joint_basis=hand.joint_basis, axes=hand.axes)
    assert_same(hand, copy)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"MANO_{side.upper()}.pkl", f"copy{suffix}"])


@pytest.mark.parametrize("side", ["right", "left"])
def test_saved_built_in_hands_come_back(side: str, tmp_path: Path) -> None:
    """Also as MANO-layout pickles, whose joints come from the regressor alone."""
    hand = load_hand(side=side)
    save_hand(hand, tmp_path / "hand.npz")
    assert_same(hand, load_hand(tmp_path / "hand.npz"))
    save_hand(hand, tmp_path / "hand.pkl")
    copy = load_hand(tmp_path / "hand.pkl")
    np.testing.assert_array_equal(copy.basis, hand.basis)
    np.testing.assert_allclose(copy.joint_basis, hand.joint_basis, atol=1e-6)
    np.testing.assert_allclose(copy.J_regressor.sum(1), hand.J_regressor.sum(1), atol=1e-5)


def test_pickles_have_the_joints_of_the_hand(tmp_path: Path) -> None:
    """Where the regressor gives others: the hand as smplx would pose it is the one that was saved."""
    hand = load_hand(write_clean(tmp_path / "MANO_RIGHT.pkl", hand_arrays(0)))
    moved = hand.joint_basis + np.random.default_rng(0).normal(0, 1e-3, hand.joint_basis.shape)
    hand = replace(hand, joint_basis=moved)
    save_hand(hand, tmp_path / "MANO_RIGHT.pkl")
    copy = load_hand(tmp_path / "MANO_RIGHT.pkl")
    np.testing.assert_allclose(copy.joint_basis, hand.joint_basis, atol=1e-7)
    np.testing.assert_allclose(copy.J_regressor.sum(1), hand.J_regressor.sum(1), atol=1e-5)
    assert np.abs(copy.J_regressor - hand.J_regressor).max() > 1e-3


def test_pickles_are_plain(tmp_path: Path) -> None:
    """Numpy alone reads them, of version 1 or 2, and finds MANO's types."""
    arrays = small_arrays()
    save_hand(load_hand(write_clean(tmp_path / "right.pkl", arrays), tips=SMALL_TIPS), tmp_path / "MANO_RIGHT.pkl")
    data = (tmp_path / "MANO_RIGHT.pkl").read_bytes()
    names = {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    plain = pickle.loads(data, encoding="latin1")
    for key in FIELDS:
        assert plain[key].dtype == arrays[key].dtype
        np.testing.assert_allclose(plain[key], arrays[key], rtol=1e-6, atol=1e-9)
    assert plain["bs_type"] == "lrotmin"


def test_saving_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = load_hand(write_clean(tmp_path / "right.pkl", small_arrays()), tips=SMALL_TIPS)
    before = (tmp_path / "right.pkl").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_hand(hand, tmp_path / "right.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["right.pkl"]
    assert (tmp_path / "right.pkl").read_bytes() == before


def test_saving_under_another_suffix_is_an_error(tmp_path: Path) -> None:
    hand = load_hand(write_clean(tmp_path / "right.pkl", small_arrays()), tips=SMALL_TIPS)
    with pytest.raises(ValueError, match=r"hand\.obj: expected a name that ends in \.npz or \.pkl"):
        save_hand(hand, tmp_path / "hand.obj")


# --- fingertips


def test_tips_by_name_and_number(tmp_path: Path) -> None:
    path = write_clean(tmp_path / "MANO_RIGHT.pkl", hand_arrays(0))
    hand = load_hand(path)
    assert hand.tips == (744, 320, 443, 554, 671)
    assert load_hand(path, tips="manopth").tips == (745, 317, 444, 556, 673)
    chosen = load_hand(path, tips=[700, 300, 400, 500, 600])
    assert chosen.tips == (700, 300, 400, 500, 600)
    np.testing.assert_array_equal(with_tips(hand, np.array([700, 300, 400, 500, 600])).axes, chosen.axes)
    assert np.abs(chosen.axes - hand.axes).max() > 0.01
    assert_same(with_tips(chosen, "smplx"), hand)


@pytest.mark.parametrize("tips", ["thumbs", (1, 2, 3, 4), (0, 1, 2, 3, 778), (-1, 1, 2, 3, 4)])
def test_wrong_tips(tips: Any, tmp_path: Path) -> None:
    path = write_clean(tmp_path / "MANO_RIGHT.pkl", hand_arrays(0))
    with pytest.raises(ValueError, match="tips: expected"):
        load_hand(path, tips=tips)
    with pytest.raises(ValueError, match="tips: expected"):
        with_tips(load_hand(path), tips)


def test_named_tips_need_mano_numbering(tmp_path: Path) -> None:
    path = write_clean(tmp_path / "MANO_RIGHT.pkl", small_arrays())
    with pytest.raises(ValueError, match="this mesh has 25: pass five vertices"):
        load_hand(path)
    with pytest.raises(ValueError, match="built-in hand has"):
        load_hand(tips="manopth")


def test_a_saved_hand_keeps_its_tips(tmp_path: Path) -> None:
    hand = load_hand(write_clean(tmp_path / "MANO_RIGHT.pkl", hand_arrays(0)), tips="manopth")
    save_hand(hand, tmp_path / "hand.npz")
    assert load_hand(tmp_path / "hand.npz").tips == TIPS["manopth"]
    assert load_hand(tmp_path / "hand.npz", tips="smplx").tips == TIPS["smplx"]


# --- sides


@pytest.mark.parametrize(
    ("name", "side"),
    [("MANO_RIGHT", "right"), ("mano_left", "left"), ("LeftHand", "left"), ("right-clean", "right"), ("2left", "left")],
)
def test_side_from_the_name(name: str, side: str, tmp_path: Path) -> None:
    path = write_clean(tmp_path / f"{name}.pkl", small_arrays(side=side))
    assert load_hand(path, tips=SMALL_TIPS).side == side
    assert load_hand(path, side=side, tips=SMALL_TIPS).side == side
    other = "left" if side == "right" else "right"
    assert f"expected the {other} hand asked for, found a {side} one" in error_of(path, side=other)


@pytest.mark.parametrize("name", ["hand", "bright", "left_to_right"])
def test_side_must_be_known(name: str, tmp_path: Path) -> None:
    path = write_clean(tmp_path / f"{name}.pkl", small_arrays(side="left"))
    assert 'pass side="right" or side="left"' in error_of(path)
    assert load_hand(path, side="left", tips=SMALL_TIPS).side == "left"


@pytest.mark.parametrize("side", ["right", "left"])
def test_mixed_up_files(side: str, tmp_path: Path) -> None:
    """A file of one hand under the other's name, or asked for as the other."""
    other = "left" if side == "right" else "right"
    for name, arguments in ((f"MANO_{other.upper()}", {}), ("hand", {"side": other})):
        message = error_of(write_distributed(tmp_path / f"{name}.pkl", hand_arrays(0, side)), **arguments)
        assert f"v_template: expected a {other} hand" in message
        assert "mixed-up" in message


def test_side_in_the_file(tmp_path: Path) -> None:
    hand = load_hand(write_clean(tmp_path / "MANO_RIGHT.pkl", hand_arrays(0)))
    save_hand(hand, tmp_path / "hand.npz")
    assert load_hand(tmp_path / "hand.npz").side == "right"
    assert "expected the left hand asked for, found a right one" in error_of(tmp_path / "hand.npz", side="left")
    with np.load(tmp_path / "hand.npz") as saved:
        arrays = dict(saved)
    assert "side: expected" in error_of(write_npz(tmp_path / "hand.npz", arrays | {"side": "both"}))
    assert "mixed-up" in error_of(write_npz(tmp_path / "hand.npz", arrays | {"side": "left"}))


def test_noise_has_no_side(tmp_path: Path) -> None:
    for seed in range(30):
        path = write_clean(tmp_path / "hand.pkl", noise_arrays(seed, vertices=40, faces=4))
        for side in ("right", "left"):
            assert load_hand(path, side=side, tips=SMALL_TIPS).side == side


# --- the sign defect of MANO_LEFT


def test_left_shapedirs_of_a_right_hand_are_noticed_kept_and_corrected(tmp_path: Path) -> None:
    good = hand_arrays(0, "left")
    bad = good | {"shapedirs": good["shapedirs"] * MIRROR[:, None]}
    path = write_distributed(tmp_path / "MANO_LEFT.pkl", bad)
    with pytest.warns(UserWarning, match=r"MANO_LEFT\.pkl: .* length and breadth correlate -0\.9"):
        hand = load_hand(path)
    np.testing.assert_array_equal(hand.shapedirs, bad["shapedirs"].astype(np.float32))
    assert_same(correct_left_shapedirs(hand), load_hand(write_distributed(path, good)))


@pytest.mark.parametrize("level", ["default", "fine"])
def test_the_built_in_left_hand_needs_no_correction(level: str) -> None:
    hand = load_hand(side="left", level=level)  # a warning would be an error
    with pytest.raises(ValueError, match=r"nothing to correct, length and breadth correlate \+0\."):
        correct_left_shapedirs(hand)


def test_right_hands_are_not_corrected(tmp_path: Path) -> None:
    hand = load_hand(write_clean(tmp_path / "MANO_RIGHT.pkl", small_arrays()), tips=SMALL_TIPS)
    with pytest.raises(ValueError, match="expected a left hand"):
        correct_left_shapedirs(hand)


def test_noise_is_no_defect(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(30):
            path = write_clean(tmp_path / "left.pkl", noise_arrays(seed, vertices=200, faces=4))
            load_hand(path, tips=SMALL_TIPS)


# --- files that are not what they should be


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("key", FIELDS)
def test_missing_entry(key: str, write: Callable, tmp_path: Path) -> None:
    arrays = small_arrays()
    del arrays[key]
    assert f": {key}: missing" in error_of(write(tmp_path / "MANO_RIGHT.pkl", arrays))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("key", [key for key in (*FIELDS, "hands_coeffs") if key not in ("f", "kintree_table")])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_entries_that_are_not_finite(key: str, bad: float, write: Callable, tmp_path: Path) -> None:
    arrays = small_arrays()
    arrays[key] = arrays[key].copy()
    arrays[key].flat[7] = bad
    first = tuple(int(i) for i in np.unravel_index(7, arrays[key].shape))
    message = error_of(write(tmp_path / "MANO_RIGHT.pkl", arrays))
    assert f": {key}: expected finite numbers, found 1 that are not in float32, the first at {first}" in message


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("key", [*FIELDS, "hands_coeffs"])
def test_entries_of_another_shape(key: str, write: Callable, tmp_path: Path) -> None:
    arrays = small_arrays()
    value = arrays[key]
    fits = {"shapedirs": [(25, 3, 9)], "hands_coeffs": [(60, 45)], "hands_mean": [(45,)]}
    for wrong in (value[..., :-1], value[:0], value.ravel(), value[None]):
        if wrong.shape in fits.get(key, []) or (key == "J_regressor" and wrong.ndim != 2 and write is not write_npz):
            continue  # another number of shape directions is none too many; there are only sparse matrices
        message = error_of(write(tmp_path / "MANO_RIGHT.pkl", arrays | {key: wrong}))
        assert f": {key}: expected" in message
        assert "found" in message


def test_arrays_must_agree_on_the_number_of_vertices(tmp_path: Path) -> None:
    arrays = small_arrays()
    message = error_of(write_clean(tmp_path / "MANO_RIGHT.pkl", arrays | {"weights": arrays["weights"][:24]}))
    assert ": weights: expected shape (vertices, 16), vertices = 25, found (24, 16)" in message


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (
            "weights",
            lambda w: w * 1.01,
            "weights of at least 0 that sum to 1 at each vertex, found a least weight of 0",
        ),
        (
            "weights",
            lambda w: w + 0.1 * np.eye(16)[0] - 0.1 * np.eye(16)[1],
            "found a least weight of -0.1 and sums from 1",
        ),
        ("f", lambda f: f + 24, "expected vertices 0 to 24, found 2"),
        ("f", lambda f: f.astype(np.int32) - 25, "expected vertices 0 to 24, found -2"),
        ("f", lambda f: f.astype(float), "expected integers, found float64"),
        ("v_template", lambda v: v > 0, "expected numbers, found bool"),
        ("kintree_table", lambda k: k[::-1], r"expected MANO's parents (-1, 0, 1, 2, 0, 4"),
        ("kintree_table", lambda k: np.where(np.arange(16) == 13, 1, k), "10, 11, 1, 13, 14)"),
        ("hands_coeffs", lambda c: c * 0, "expected coefficients that vary, found a standard deviation of 0"),
        ("J_regressor", lambda r: r[[0] * 16], "expected a skeleton, found joints or fingertips that coincide"),
    ],
)
def test_entries_that_make_no_hand(key: str, change: Callable, message: str, write: Callable, tmp_path: Path) -> None:
    arrays = small_arrays()
    found = error_of(write(tmp_path / "MANO_RIGHT.pkl", arrays | {key: change(arrays[key])}))
    assert f": {key}: expected" in found
    assert message in found


@pytest.mark.parametrize("value", ["lrotmin", [1.0, 2.0], None, 3.0, {"x": 1}])
def test_entries_that_are_no_arrays(value: object, tmp_path: Path) -> None:
    message = error_of(write_clean(tmp_path / "MANO_RIGHT.pkl", small_arrays() | {"weights": value}))
    assert "weights: expected" in message


@pytest.mark.parametrize(
    ("joints", "name"), [(24, "SMPL body"), (52, "SMPL-H"), (55, "SMPL-X"), (5, "FLAME"), (21, "21")]
)
@pytest.mark.parametrize("key", ["kintree_table", "weights"])
def test_other_body_models_are_named(joints: int, name: str, key: str, tmp_path: Path) -> None:
    arrays = {
        "v_template": np.zeros((9, 3)),
        "shapedirs": np.zeros((9, 3, 10)),
        "posedirs": np.zeros((9, 3, 9 * (joints - 1))),
        "weights": np.full((9, joints), 1 / joints),
        "J_regressor": np.zeros((joints, 9)),
        "kintree_table": np.zeros((2, joints), np.int64),
        "f": np.zeros((4, 3), np.uint32),
    }
    del arrays[{"kintree_table": "weights", "weights": "kintree_table"}[key]]
    for write in WRITERS:
        message = error_of(write(tmp_path / "model.npz", arrays), side="right")
        assert f"{key}: expected MANO's 16 joints, found {joints}" in message
        assert name in message


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x03\x04 and nothing", b"\x93NUMPY\x01\0", b"\x89PNG\r\n\x1a\n", b"\0" * 99]
)
def test_files_of_another_kind(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(content)
    assert f"cannot be read as {'npz' if content[:2] == b'PK' else 'pickle'} ({len(content)} bytes" in error_of(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="MANO_RIGHT"):
        load_hand(tmp_path / "MANO_RIGHT.pkl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "Right"}, "side: expected"),
        ({"level": "coarse"}, "level: expected"),
        ({"tips": (1, 2)}, "tips: expected"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_hand(**arguments)


def test_a_file_has_no_level(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fine' is a built-in hand"):
        load_hand(tmp_path / "MANO_RIGHT.pkl", level="fine")


@pytest.mark.parametrize("write", WRITERS)
def test_truncated_files(write: Callable, tmp_path: Path) -> None:
    path = write(tmp_path / "MANO_RIGHT.pkl", small_arrays())
    data = path.read_bytes()
    for size in [*range(0, 200, 7), *range(200, len(data), len(data) // 100), len(data) - 1]:
        path.write_bytes(data[:size])
        error_of(path)


# --- npz in particular


def own_npz(path: Path) -> dict[str, Any]:
    save_hand(load_hand(write_clean(path.with_suffix(".pkl"), small_arrays()), tips=SMALL_TIPS), path)
    with np.load(path) as saved:
        return dict(saved)


def test_entries_of_our_own_files(tmp_path: Path) -> None:
    path = tmp_path / "right.npz"
    arrays = own_npz(path)
    for key in ("joints", "joint_shapedirs", "tip_ids", "weights", "side"):
        assert f": {key}: missing" in error_of(write_npz(path, {k: v for k, v in arrays.items() if k != key}))
    assert "tip_ids: tips: expected five vertices" in error_of(
        write_npz(path, arrays | {"tip_ids": np.arange(21, 26)}), tips=None
    )
    assert "hands_sd: expected coefficients that vary" in error_of(write_npz(path, arrays | {"hands_sd": np.zeros(45)}))
    assert "joints: expected finite numbers" in error_of(write_npz(path, arrays | {"joints": np.full((16, 3), np.nan)}))
    del arrays["hands_sd"]
    np.testing.assert_array_equal(load_hand(write_npz(path, arrays)).hands_sd, np.full(45, 0.5, np.float32))


def test_npz_may_hold_more(tmp_path: Path) -> None:
    """Entries that are no part of a hand are not even read."""
    more = {"joints": np.zeros((21, 3)), "faces": np.zeros(1), "licence": "none", "pickled": np.array([object()])}
    arrays = small_arrays()
    hand = load_hand(write_npz(tmp_path / "MANO_RIGHT.npz", arrays | more), tips=SMALL_TIPS)
    assert_same(hand, load_hand(write_npz(tmp_path / "MANO_RIGHT.npz", arrays), tips=SMALL_TIPS))


def test_pickles_within_npz_are_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "canary",)

    arrays = small_arrays() | {"weights": np.array([Hostile()])}
    path = write_npz(tmp_path / "MANO_RIGHT.npz", arrays)
    assert "weights: Object arrays cannot be loaded" in error_of(path)
    assert not (tmp_path / "canary").exists()
    with np.load(path, allow_pickle=True) as saved:
        _ = saved["weights"]
    assert (tmp_path / "canary").exists()


def test_promises_of_an_npz_are_not_believed(tmp_path: Path) -> None:
    """Zeros that would unpack to a gigabyte, and a header that speaks of more than there is."""
    path = tmp_path / "MANO_RIGHT.npz"
    zeros = io.BytesIO()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("weights.npy", "w") as member:
        for _ in range(257):
            member.write(bytes(2**20))
    assert "weights: expected at most 268435456 bytes, found 269484032" in error_of(path)
    np.lib.format.write_array_header_1_0(zeros, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", zeros.getvalue())
    assert "weights: " in error_of(path)


def test_changed_bytes_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "right.npz"
    own_npz(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        changed = data.copy()
        changed[rng.integers(len(data), size=3)] = rng.integers(256, size=3)
        path.write_bytes(changed.tobytes())
        try:
            load_hand(path)
        except HandFileError:
            refused += 1
    assert refused > 150
