import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jhand import nn
from jhand.nn import selective_scan_associative, selective_scan_chunked, selective_scan_sequential

FORMS = [jax.jit(f) for f in (selective_scan_sequential, selective_scan_associative, selective_scan_chunked)]
CHANNELS, SIZE = 3, 2
# compiled once a shape
selective_scan, selective_scan_along, selective_scan_step = map(
    jax.jit, (nn.selective_scan, nn.selective_scan_along, nn.selective_scan_step)
)
ssd, ssd_step = jax.jit(nn.ssd), jax.jit(nn.ssd_step)
NAMES = ("sequential", "associative", "chunked")
OVER_TIME = ("x", "dt", "B", "C")


def operands(batch, length, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=(*batch, *shape)).astype(np.float32)  # noqa: E731
    return {
        "x": draw(length, CHANNELS),
        "dt": np.exp(draw(length, CHANNELS) - 1),
        "A": -np.exp(rng.normal(size=(CHANNELS, SIZE))).astype(np.float32),
        "B": draw(length, SIZE),
        "C": draw(length, SIZE),
        "D": rng.normal(size=CHANNELS).astype(np.float32),
        "state": draw(CHANNELS, SIZE),
    }


def slow_scan(x, dt, A, B, C, D, state):
    """The definition, in float64, one sequence."""
    x, dt, A, B, C, D, h = (np.asarray(v, np.float64) for v in (x, dt, A, B, C, D, state))
    y = np.zeros(x.shape)
    for t in range(len(x)):
        h = np.exp(dt[t][:, None] * A) * h + (dt[t] * x[t])[:, None] * B[t]
        y[t] = h @ C[t] + D * x[t]
    return y, h


@pytest.mark.parametrize("length", [1, 7, 67])
@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_forms_are_the_definition(form, length):
    given = operands((), length)
    y, state = form(**given)
    expected_y, expected_state = slow_scan(**given)
    np.testing.assert_allclose(y, expected_y, atol=1e-5)
    np.testing.assert_allclose(state, expected_state, atol=1e-5)


@pytest.mark.parametrize("batch", [(1,), (2, 1, 3)])
@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_batches_are_sequences_one_by_one(form, batch):
    given = operands(batch, 5)
    y, state = form(**given)
    assert y.shape == (*batch, 5, CHANNELS)
    assert state.shape == (*batch, CHANNELS, SIZE)
    for where in np.ndindex(*batch):
        one = {name: v if name in ("A", "D") else v[where] for name, v in given.items()}
        expected_y, expected_state = slow_scan(**one)
        np.testing.assert_allclose(y[where], expected_y, atol=1e-5)
        np.testing.assert_allclose(state[where], expected_state, atol=1e-5)


def test_rates_of_several_scans_at_once():
    """A and D with a leading axis are as many scans with parameters of their own."""
    given = operands((2, 3), 5)
    rng = np.random.default_rng(1)
    given["A"] = -np.exp(rng.normal(size=(3, CHANNELS, SIZE))).astype(np.float32)
    given["D"] = rng.normal(size=(3, CHANNELS)).astype(np.float32)
    for form in FORMS:
        y, state = form(**given)
        for b, k in np.ndindex(2, 3):
            one = {name: v[k] if name in ("A", "D") else v[b, k] for name, v in given.items()}
            expected_y, expected_state = slow_scan(**one)
            np.testing.assert_allclose(y[b, k], expected_y, atol=1e-5)
            np.testing.assert_allclose(state[b, k], expected_state, atol=1e-5)


def weighted(form, names, weights, values, given):
    """A number that depends on all that a scan returns."""
    y, state = form(**given | dict(zip(names, values, strict=True)))
    return jnp.sum(weights[0] * y) + jnp.sum(weights[1] * state)


def test_gradients_of_the_forms_are_equal_and_those_of_differences():
    length = 37
    given = operands((2,), length)
    names = tuple(given)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(2, length, CHANNELS)), rng.normal(size=(2, CHANNELS, SIZE))
    weights = tuple(w.astype(np.float32) for w in weights)
    values = tuple(given.values())
    gradients = [jax.jit(jax.grad(functools.partial(weighted, f, names, weights)))(values, {}) for f in FORMS]
    for others in gradients[1:]:
        for name, first, other in zip(names, gradients[0], others, strict=True):
            scale = np.abs(first).max()
            np.testing.assert_allclose(other / scale, first / scale, atol=1e-5, err_msg=name)

    def exact(values):
        total = 0.0
        for b in range(2):
            one = [v if name in ("A", "D") else v[b] for name, v in zip(names, values, strict=True)]
            y, state = slow_scan(*one)
            total += np.sum(weights[0][b] * y) + np.sum(weights[1][b] * state)
        return total

    for i, name in enumerate(names):
        direction = rng.normal(size=values[i].shape)
        up, down = ([*values[:i], values[i] + s * 1e-6 * direction, *values[i + 1 :]] for s in (1, -1))
        slope = (exact(up) - exact(down)) / 2e-6
        np.testing.assert_allclose(np.sum(gradients[0][i] * direction), slope, rtol=1e-4, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_a_sequence_can_be_cut(form):
    """Whole, it is what a part, single steps and another part give, each from the state of the one before."""
    given = operands((2,), 14)
    part = lambda where: {n: v[:, where] if n in OVER_TIME else v for n, v in given.items()}  # noqa: E731
    whole, last = form(**given)
    first, state = form(**part(slice(0, 5)))
    y = [first]
    for t in range(5, 9):
        one, state = selective_scan_step(**part(t) | {"state": state})
        y.append(one[:, None])
    rest, state = form(**part(slice(9, 14)) | {"state": state})
    np.testing.assert_allclose(np.concatenate([*y, rest], 1), whole, atol=1e-5)
    np.testing.assert_allclose(state, last, atol=1e-5)


def test_tokens_without_a_step_leave_the_state():
    given = operands((2,), 14)
    short = {n: v[:, :8] if n in OVER_TIME else v for n, v in given.items()}
    given["dt"][:, 8:] = 0
    for form in FORMS:
        y, state = form(**given)
        expected_y, expected_state = form(**short)
        np.testing.assert_allclose(y[:, :8], expected_y, atol=1e-6)
        np.testing.assert_allclose(state, expected_state, atol=1e-6)


def test_any_order_of_nodes():
    given = operands((2,), 14)
    del given["state"]
    order = np.random.default_rng(3).permutation(14)
    y = selective_scan_along(order, **given)
    visited = {n: v[:, order] if n in OVER_TIME else v for n, v in given.items()}
    np.testing.assert_allclose(y[:, order], selective_scan(**visited)[0], atol=1e-6)
    # the other way round
    back = {n: v[:, ::-1] if n in OVER_TIME else v for n, v in given.items()}
    y = selective_scan_along(np.arange(14)[::-1], **given)
    np.testing.assert_allclose(y, selective_scan(**back)[0][:, ::-1], atol=1e-6)


@pytest.mark.parametrize(("backend", "length", "chosen"), [("cpu", 75, 0), ("gpu", 14, 1), ("tpu", 75, 2)])
def test_the_plain_name_chooses_a_form(monkeypatch, backend, length, chosen):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    given = operands((2,), length)
    shape = lambda f: str(jax.make_jaxpr(lambda v: f(**v))(given))  # noqa: E731
    forms = (selective_scan_sequential, selective_scan_associative, selective_scan_chunked)
    assert [shape(nn.selective_scan) == shape(form) for form in forms] == [i == chosen for i in range(3)]


def test_half_precision_is_scanned_in_single():
    given = operands((2,), 14)
    halves = {n: v.astype(jnp.bfloat16) for n, v in given.items()}
    y, state = selective_scan(**halves)
    assert y.dtype == jnp.bfloat16
    assert state.dtype == jnp.float32
    expected, _ = selective_scan(**{n: np.asarray(v, np.float32) for n, v in halves.items()})
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=1e-2, atol=1e-2)


def test_wrong_shapes_say_so():
    given = operands((), 5)
    with pytest.raises(ValueError, match=r"B ends in \(5, 2\)"):
        selective_scan(**given | {"B": given["B"][:, :1]})
    with pytest.raises(ValueError, match="x is"):
        selective_scan(**given | {"x": given["x"][0]})
    with pytest.raises(ValueError, match="a divisor of H"):
        ssd(np.zeros((4, 3, 2)), np.zeros((4, 3)), np.zeros(3), np.zeros((4, 2, 5)), np.zeros((4, 2, 5)))


def heads(batch, length, seed=0):
    """Operands of `ssd`: 4 heads of 3 channels in 2 groups, states of 2."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=(*batch, *shape)).astype(np.float32)  # noqa: E731
    return {
        "x": draw(length, 4, 3),
        "dt": np.exp(draw(length, 4) - 1),
        "A": -np.exp(rng.normal(size=4)).astype(np.float32),
        "B": draw(length, 2, 2),
        "C": draw(length, 2, 2),
        "D": rng.normal(size=4).astype(np.float32),
        "state": draw(4, 3, 2),
    }


@jax.jit
def as_selective_scans(given):
    """The same by the scan that is checked above: each head is one, and its channels share a rate."""
    width = given["x"].shape[-1]
    y, state = selective_scan_sequential(
        jnp.moveaxis(given["x"], -2, -3),
        jnp.repeat(jnp.moveaxis(given["dt"], -1, -2)[..., None], width, -1),
        jnp.broadcast_to(given["A"][:, None, None], (4, width, 2)),
        jnp.moveaxis(jnp.repeat(given["B"], 2, -2), -2, -3),
        jnp.moveaxis(jnp.repeat(given["C"], 2, -2), -2, -3),
        jnp.broadcast_to(given["D"][:, None], (4, width)),
        given["state"],
    )
    return jnp.moveaxis(y, -3, -2), state


@pytest.mark.parametrize("length", [1, 21, 75])
def test_ssd_is_a_selective_scan_with_one_rate_per_head(length):
    given = heads((2,), length)
    for found, expected in zip(ssd(**given), as_selective_scans(given), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)

    def number(f, given):
        y, state = f(given)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.sin(state))

    found = jax.jit(jax.grad(functools.partial(number, lambda v: ssd(**v))))(given)
    expected = jax.jit(jax.grad(functools.partial(number, as_selective_scans)))(given)
    for name in given:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name] / scale, expected[name] / scale, atol=5e-5, err_msg=name)


def test_ssd_has_no_batch_and_many_axes_too():
    given = heads((2, 1, 3), 5)
    y, state = ssd(**given)
    one = {n: v if n in ("A", "D") else v[1, 0, 2] for n, v in given.items()}
    expected_y, expected_state = ssd(**one)
    np.testing.assert_allclose(y[1, 0, 2], expected_y, atol=1e-6)
    np.testing.assert_allclose(state[1, 0, 2], expected_state, atol=1e-6)


def test_ssd_steps_continue_a_sequence():
    given = heads((2,), 9)
    whole, last = ssd(**given)
    state = given["state"]
    for t in range(9):
        now = {n: v[:, t] if n in OVER_TIME else v for n, v in given.items()}
        y, state = ssd_step(**now | {"state": state})
        np.testing.assert_allclose(y, whole[:, t], atol=1e-5)
    np.testing.assert_allclose(state, last, atol=1e-5)


def test_large_steps_forget_without_overflow():
    """Decays of e^-1000 within a chunk: nothing is divided by them."""
    given = heads((2,), 21)
    given["dt"] = 100 * given["dt"]
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(ssd(**v)[0])))(given)
    assert all(np.isfinite(g).all() for g in gradient.values())
    for found, expected in zip(ssd(**given), as_selective_scans(given), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
