import json
import resource

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand.train import CheckpointError, CheckpointMismatch, load_newest
from jhand.train.checkpoints import Checkpoints


def state_at(step):
    key = jax.random.key(step)
    return {
        "w": jax.random.normal(key, (40, 30)),
        "half": jnp.full(7, step, jnp.bfloat16),
        "flags": jnp.arange(5) % 2 == 0,
        "count": jnp.asarray(step, jnp.int32),
        "key": key,
        "none": {},
        "empty": jnp.zeros((0, 3)),
        "nested": ({"a/b": jnp.ones(2)}, jnp.zeros(())),
    }


def like(_):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_at(0))


@pytest.fixture
def three(tmp_path):
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state_at(step), {"note": f"step {step}"})
    return tmp_path / "c"


def data_files(folder, step):
    return sorted(path for path in (folder / str(step) / "state").rglob("d/*") if path.is_file())


def test_what_is_saved_comes_back(three):
    with Checkpoints(three) as checkpoints:
        assert checkpoints.steps() == [3, 2, 1]
        step, state, about = checkpoints.restore_newest(like)
    assert (step, about["note"]) == (3, "step 3")
    as_bits = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    chex.assert_trees_all_equal(jax.tree.map(as_bits, state), jax.tree.map(as_bits, state_at(3)))
    chex.assert_trees_all_equal_shapes_and_dtypes(state["w"], state_at(3)["w"])


def test_the_oldest_goes_when_a_newer_one_is_complete(three):
    with Checkpoints(three, keep=2) as checkpoints:
        checkpoints.save(4, state_at(4), {})
        checkpoints.save(4, state_at(5), {})  # exists: left as it is
        checkpoints.wait()
        assert checkpoints.steps() == [4, 3]
        assert int(checkpoints.restore_newest(like)[1]["count"]) == 4


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    grow = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(200_000)
    with Checkpoints(tmp_path, keep=99) as checkpoints:
        for step in range(5):
            checkpoints.save(step, {"x": x}, {})
            x = grow(grow(x))
    shape = {"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)}
    for step in (4, 3, 2, 1, 0):
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.steps()[0] == step
            np.testing.assert_array_equal(
                checkpoints.restore_newest(lambda _: shape)[1]["x"], np.full(200_000, 2 * step)
            )
        (tmp_path / str(step)).rename(tmp_path / f"{step}.away")


def truncate(folder):
    for path in data_files(folder, 3):
        path.write_bytes(path.read_bytes()[:-20])


def flip_a_bit_of_the_numbers(folder):
    """Of a kind that Orbax reads without complaint: the checksum has to find it."""
    path = max(data_files(folder, 3), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def remove_the_numbers(folder):
    for path in data_files(folder, 3):
        path.unlink()


def garble_about(folder):
    (folder / "3" / "about" / "metadata").write_text('{"note": "st')


# Of several reads that fail at once, Orbax waits for the first; the others find its event loop closed.
READS_THAT_FAIL = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@READS_THAT_FAIL
@pytest.mark.parametrize("damage", [truncate, flip_a_bit_of_the_numbers, remove_the_numbers, garble_about])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(three, damage, caplog):
    damage(three)
    with Checkpoints(three) as checkpoints:
        step, state, about = checkpoints.restore_newest(like)
        assert (step, about["note"], int(state["count"])) == (2, "step 2", 2)
        np.testing.assert_array_equal(state["w"], state_at(2)["w"])
        assert checkpoints.steps() == [2, 1]
    assert "the checkpoint at step 3 is damaged and passed over" in caplog.text
    assert (three / "3.damaged").is_dir()


def test_where_all_are_damaged_nothing_begins_anew(three):
    for step in (1, 2, 3):
        (three / str(step) / "about" / "metadata").unlink()
    for _ in range(2):  # and the second time it still says so
        with (
            Checkpoints(three) as checkpoints,
            pytest.raises(CheckpointError, match=r"1\.damaged, 2\.damaged, 3\.damaged"),
        ):
            checkpoints.restore_newest(like)


def test_another_structure_is_no_damage(three):
    other = {**like(None), "w": jax.ShapeDtypeStruct((40, 31), jnp.float32), "new": jax.ShapeDtypeStruct((), jnp.int32)}
    del other["half"]
    with Checkpoints(three) as checkpoints, pytest.raises(CheckpointMismatch) as error:
        checkpoints.restore_newest(lambda _: other)
    text = str(error.value)
    assert "w: saved float32[40, 30], expected float32[40, 31]" in text
    assert "half: saved bfloat16[7], expected nothing" in text and "new: saved nothing, expected int32[]" in text
    assert not list(three.glob("*.damaged"))


def test_a_write_that_was_cut_off_is_cleaned_up(three):
    unfinished = three / "4.orbax-checkpoint-tmp"
    (unfinished / "state").mkdir(parents=True)
    with Checkpoints(three) as checkpoints:
        assert checkpoints.steps() == [3, 2, 1]
        checkpoints.save(4, state_at(4), {})
    assert not unfinished.exists() and (three / "4").is_dir()


@pytest.fixture
def small_files():
    """Files may grow to 100 kB: to a program, a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_says_what_is_left(three, small_files):
    noise = jax.random.normal(jax.random.key(0), (300_000,))  # noise does not compress
    with Checkpoints(three) as checkpoints:
        checkpoints.save(7, {"x": noise}, {})
        with pytest.raises(CheckpointError, match=r"File too large\. The ones at steps \[3, 2, 1\] are complete"):
            checkpoints.wait()
        assert checkpoints.restore_newest(like)[0] == 3


def test_the_error_reaches_who_only_leaves_the_folder(tmp_path, small_files):
    noise = jax.random.normal(jax.random.key(0), (300_000,))
    with pytest.raises(CheckpointError, match="There is no complete one yet"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, {"x": noise}, {})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/c"):
        Checkpoints(tmp_path / "file" / "c")


@READS_THAT_FAIL
def test_damage_again_to_the_same_step(three):
    for aside in ("3.damaged", "3.damaged1"):
        truncate(three)
        with Checkpoints(three) as checkpoints:
            assert checkpoints.restore_newest(like)[0] == 2
            assert (three / aside).is_dir()
            checkpoints.save(3, state_at(3), {})


def test_what_is_wrong_with_the_question_is_no_damage(three):
    def fail(about):
        raise ValueError("no such system")

    with Checkpoints(three) as checkpoints:
        with pytest.raises(ValueError, match="no such system"):
            checkpoints.restore_newest(fail)
        assert checkpoints.steps() == [3, 2, 1]


@READS_THAT_FAIL
def test_who_only_reads_changes_nothing(three):
    """Beside a run that is writing its next checkpoint."""
    truncate(three)
    (three / "4.orbax-checkpoint-tmp").mkdir()
    before = sorted(three.rglob("*"))
    assert load_newest(three, state_at(0))[0] == 2
    assert sorted(three.rglob("*")) == before


def test_load_newest(three, tmp_path):
    step, state, about = load_newest(three, state_at(0))
    assert (step, int(state["count"]), about["note"]) == (3, 3, "step 3")
    assert json.dumps(about)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_newest(tmp_path / "nowhere", state_at(0))
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint in it"):
        load_newest(tmp_path / "bare", state_at(0))
