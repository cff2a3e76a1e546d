"""State space scans: Mamba's selective scan (S6) in three exact forms, and Mamba-2's (SSD), with steps for streams.

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,    y_t = C_t h_t + D x_t

Gu and Dao 2023 (arXiv 2312.00752, eq. 2 with the discretisation of their algorithm 2): each of D channels has a state
of N numbers; dt, B and C depend on the token. All forms compute in float32 at least, and differ by rounding alone.

A token with dt = 0 leaves the state as it is, which is how padding is masked: multiply dt by the mask. The output of
such a token is C_t h_{t-1} + D x_t and means nothing.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PyTree

_CHUNK = 32  # tokens between the states that are kept for the gradient
_SSD_CHUNK = 32


def selective_scan(
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
    state: ArrayLike | None = None,
) -> tuple[Float[Array, "*b l d"], Float[Array, "*b d n"]]:
    """The selective scan in the form that suits the backend and the length, both known when a program is traced:

    - on a CPU `selective_scan_sequential`, the fastest at every length measured (benchmarks/results/scan.md);
    - elsewhere up to 64 tokens `selective_scan_associative`, which takes log2(L) rounds;
    - and beyond `selective_scan_chunked`, whose memory is that of the tokens and not of all their states.

    What is chosen off the CPU follows from counting rounds and memory, and has not been measured.

    Args:
        x: tokens (..., L, D).
        dt: steps (..., L, D), at least 0; 0 leaves the state as it is.
        A: rates (..., D, N), negative. Leading axes broadcast: (K, D, N) are K scans, for tokens (..., K, L, D).
        B: how tokens enter (..., L, N).
        C: how states are read (..., L, N).
        D: (..., D) what of a token passes by the state; None is nothing.
        state: (..., D, N) before the first token; None is zero.

    Returns:
        y (..., L, D) in the dtype of x; the state (..., D, N) after the last token, float32.

    Raises:
        ValueError: shapes that do not fit.
    """
    if jax.default_backend() == "cpu":
        form = selective_scan_sequential
    else:
        form = selective_scan_associative if jnp.shape(x)[-2] <= 64 else selective_scan_chunked
    return form(x, dt, A, B, C, D, state)


def selective_scan_sequential(
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
    state: ArrayLike | None = None,
) -> tuple[Float[Array, "*b l d"], Float[Array, "*b d n"]]:
    """`selective_scan` token by token, with L steps.

    The gradient keeps one state in 32 and computes the others again; memory is that of L / 32 + 32 states.

    Args:
        x: (..., L, D); this and the others as `selective_scan` has them.
        dt: (..., L, D).
        A: (..., D, N).
        B: (..., L, N).
        C: (..., L, N).
        D: (..., D).
        state: (..., D, N).

    Returns:
        y (..., L, D) and the last state (..., D, N).
    """
    scan = _lay_out(x, dt, A, B, C, D, state)
    chunks = _in_chunks(scan.tokens, _CHUNK)
    step = _step_of(scan.A)
    last, y = lax.scan(jax.checkpoint(lambda h, chunk: lax.scan(step, h, chunk)), scan.start, chunks)
    return scan.finish(y.reshape(-1, *y.shape[2:]), last)


def selective_scan_associative(
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
    state: ArrayLike | None = None,
) -> tuple[Float[Array, "*b l d"], Float[Array, "*b d n"]]:
    """`selective_scan` as a prefix sum (Blelloch 1990): log2(L) rounds over all states at once, which memory must hold.

    Args:
        x: (..., L, D); this and the others as `selective_scan` has them.
        dt: (..., L, D).
        A: (..., D, N).
        B: (..., L, N).
        C: (..., L, N).
        D: (..., D).
        state: (..., D, N).

    Returns:
        y (..., L, D) and the last state (..., D, N).
    """
    scan = _lay_out(x, dt, A, B, C, D, state)
    decay, entering = _transition(scan.A, *scan.tokens[:3])
    decay, states = lax.associative_scan(_compose, (decay, entering))
    states = states + decay * scan.start
    return scan.finish(_read(states, scan.tokens[3]), states[-1])


def selective_scan_chunked(
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
    state: ArrayLike | None = None,
) -> tuple[Float[Array, "*b l d"], Float[Array, "*b d n"]]:
    """`selective_scan` with about sqrt(L) chunks side by side, in about 3 sqrt(L) steps.

    Every chunk runs from zero to find what it adds to a state, the states are handed from chunk to chunk, and every
    chunk runs again from where it truly starts. The second run costs less than correcting the outputs of the first,
    for which all states would have to be written down.

    Args:
        x: (..., L, D); this and the others as `selective_scan` has them.
        dt: (..., L, D).
        A: (..., D, N).
        B: (..., L, N).
        C: (..., L, N).
        D: (..., D).
        state: (..., D, N).

    Returns:
        y (..., L, D) and the last state (..., D, N).
    """
    scan = _lay_out(x, dt, A, B, C, D, state)
    chunks = _in_chunks(scan.tokens, math.isqrt(len(scan.tokens[0]) - 1) + 1)
    side_by_side = jax.tree.map(lambda v: jnp.swapaxes(v, 0, 1), chunks)  # (tokens of a chunk, chunks, ...)
    step = _step_of(scan.A)
    nothing = jnp.zeros((chunks[0].shape[0], *scan.start.shape), scan.start.dtype)
    added, _ = lax.scan(lambda h, token: (step(h, token)[0], None), nothing, side_by_side)
    decay = jnp.exp(jnp.sum(chunks[1], 1)[..., None, :] * scan.A)
    last, starts = lax.scan(lambda h, chunk: (chunk[0] * h + chunk[1], h), scan.start, (decay, added))
    _, y = lax.scan(step, starts, side_by_side)
    y = jnp.swapaxes(y, 0, 1)
    return scan.finish(y.reshape(-1, *y.shape[2:]), last)


def selective_scan_step(
    state: ArrayLike,
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
) -> tuple[Float[Array, "*b d"], Float[Array, "*b d n"]]:
    """One more token of a stream: steps from the state that any `selective_scan` returned continue its sequence.

    Args:
        state: (..., D, N) after the token before; zeros at the start.
        x: the token (..., D).
        dt: (..., D).
        A: (..., D, N).
        B: (..., N).
        C: (..., N).
        D: (..., D).

    Returns:
        y (..., D) in the dtype of x, and the state (..., D, N) after it.
    """
    one = [jnp.asarray(v)[..., None, :] for v in (x, dt, B, C)]
    y, state = selective_scan_sequential(one[0], one[1], A, one[2], one[3], D, state)
    return y[..., 0, :], state


def selective_scan_along(
    order: ArrayLike,
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
) -> Float[Array, "*b l d"]:
    """`selective_scan` over nodes in any order, such as that of a graph; what comes out lies where its node lies.

    Args:
        order: (L,) a permutation: which node is visited first, second, ...; reversed, the scan runs the other way.
        x: (..., L, D) by node; this and the others as `selective_scan` has them.
        dt: (..., L, D).
        A: (..., D, N).
        B: (..., L, N).
        C: (..., L, N).
        D: (..., D).

    Returns:
        y (..., L, D) by node.
    """
    order = jnp.asarray(order)
    x, dt, B, C = (jnp.asarray(v).at[..., order, :].get(unique_indices=True) for v in (x, dt, B, C))
    y, _ = selective_scan(x, dt, A, B, C, D)
    return y.at[..., jnp.argsort(order), :].get(unique_indices=True)


def ssd(
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
    state: ArrayLike | None = None,
) -> tuple[Float[Array, "*b l h p"], Float[Array, "*b h p n"]]:
    """Mamba-2's scan by matrix products (Dao and Gu 2024, arXiv 2405.21060, section 6): one decay per head.

    Within a chunk of 32 tokens, y = (C B^T * decay) dt x as in attention; states go from chunk to chunk. Up to 32
    tokens there is one chunk and no state to hand on. Products have the precision that JAX is set to.

    Args:
        x: tokens (..., L, H, P): H heads of P channels.
        dt: steps (..., L, H), at least 0; 0 leaves the state as it is.
        A: rates (H,), negative.
        B: how tokens enter (..., L, G, N): G groups, of H / G heads each, share one.
        C: how states are read (..., L, G, N).
        D: (H,) what of a token passes by the state; None is nothing.
        state: (..., H, P, N) before the first token; None is zero.

    Returns:
        y (..., L, H, P) in the dtype of x; the state (..., H, P, N) after the last token, float32.

    Raises:
        ValueError: shapes that do not fit.
    """
    x, dt, A, B, C = (jnp.asarray(v) for v in (x, dt, A, B, C))
    (*batch, length, heads, width), (groups, size) = x.shape, B.shape[-2:]
    if (
        not length
        or heads % groups
        or B.shape != (*batch, length, groups, size)
        or C.shape != B.shape
        or dt.shape != x.shape[:-1]
    ):
        raise ValueError(
            "ssd takes x (..., L, H, P) with L at least 1, dt (..., L, H), B and C (..., L, G, N), G a divisor of H, "
            f"got {x.shape}, {dt.shape}, {B.shape}, {C.shape}"
        )
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def by_group(v: Array) -> Array:
        """(..., L, G or H, ...) to (batch of groups, L, heads of a group, ...): groups have nothing to do together."""
        v = v.reshape(-1, length, groups, v.shape[len(batch) + 1] // groups, *v.shape[len(batch) + 2 :])
        return jnp.moveaxis(v, 2, 1).reshape(-1, length, *v.shape[3:])

    dt = dt.astype(dtype)
    entering = by_group(x.astype(dtype) * dt[..., None])
    tokens = (
        by_group(dt * A.astype(dtype)),
        entering,
        by_group(B.astype(dtype))[:, :, 0],
        by_group(C.astype(dtype))[:, :, 0],
    )
    shape = (len(entering), heads // groups, width, size)
    start = jnp.zeros(shape, dtype) if state is None else jnp.asarray(state, dtype).reshape(shape)
    if length <= _SSD_CHUNK:
        y, total, added = _within_chunk(*tokens)
        if state is not None:
            y = y + _from_start(start, total, tokens[3])
        last = _handed_on(start, total, added)
    else:
        y, last = _between_chunks(tokens, start)
    y = jnp.moveaxis(y.reshape(-1, groups, *y.shape[1:]), 1, 2).reshape(x.shape)
    if D is not None:
        y = y + jnp.asarray(D, dtype)[:, None] * x
    return y.astype(x.dtype), last.reshape(*batch, heads, width, size)


def ssd_step(
    state: ArrayLike,
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
) -> tuple[Float[Array, "*b h p"], Float[Array, "*b h p n"]]:
    """One more token of a stream: steps from the state that `ssd` returned continue its sequence.

    Args:
        state: (..., H, P, N) after the token before; zeros at the start.
        x: the token (..., H, P).
        dt: (..., H).
        A: (H,).
        B: (..., G, N).
        C: (..., G, N).
        D: (H,).

    Returns:
        y (..., H, P) in the dtype of x, and the state (..., H, P, N) after it.
    """
    x = jnp.asarray(x)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    dt, B, C = (jnp.asarray(v, dtype) for v in (dt, B, C))
    heads = x.shape[-2] // B.shape[-2]
    B, C = (jnp.repeat(v, heads, -2)[..., None, :] for v in (B, C))  # (..., H, 1, N)
    decay = jnp.exp(dt * jnp.asarray(A))[..., None, None]
    state = decay * jnp.asarray(state) + (dt[..., None] * x)[..., None] * B
    y = jnp.sum(state * C, -1)
    if D is not None:
        y = y + jnp.asarray(D)[:, None] * x
    return y.astype(x.dtype), state


class _Layout(NamedTuple):
    """A scan's operands, tokens first and channels last, without batch axes of size 1.

    XLA's CPU loops over a body with such an axis eight times slower.
    """

    tokens: tuple[Array, Array, Array, Array]  # x and dt (L, *b, D), B and C (L, *b, N)
    A: Array  # (*b, N, D), or fewer leading axes
    start: Array  # (*b, N, D)
    finish: Callable[[Array, Array], tuple[Array, Array]]  # from y (at least L, *b, D) and the last state (*b, N, D)


def _lay_out(
    x: ArrayLike,
    dt: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    state: ArrayLike | None,
) -> _Layout:
    x, dt, A, B, C = (jnp.asarray(v) for v in (x, dt, A, B, C))
    if x.ndim < 2 or A.ndim < 2:
        raise ValueError(f"x is (..., L, D) and A (..., D, N), got {x.shape} and {A.shape}")
    length, channels, size = *x.shape[-2:], A.shape[-1]
    expected = {"dt": (dt, (length, channels)), "A": (A, (channels, size))}
    expected |= {"B": (B, (length, size)), "C": (C, (length, size))}
    for name, (value, shape) in expected.items():
        if value.shape[-2:] != shape or length == 0:
            raise ValueError(f"{name} ends in {shape} beside x {x.shape} of at least one token, got {value.shape}")
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    state = jnp.zeros((channels, size)) if state is None else jnp.asarray(state)
    batch = jnp.broadcast_shapes(*(v.shape[:-2] for v in (x, dt, A, B, C, state)))
    kept = tuple(n for n in batch if n != 1)

    def squeezed(v: Array) -> Array:
        v = v.astype(dtype)
        v = v.reshape(*(1 for _ in range(len(batch) + 2 - v.ndim)), *v.shape)
        return v.reshape(*(n for n, whole in zip(v.shape, batch, strict=False) if whole != 1), *v.shape[-2:])

    def tokens_first(v: Array) -> Array:
        v = squeezed(v)
        return jnp.moveaxis(jnp.broadcast_to(v, (*kept, *v.shape[-2:])), -2, 0)

    def finish(y: Array, last: Array) -> tuple[Array, Array]:
        y = jnp.moveaxis(y[:length], 0, -2).reshape(*batch, length, channels)
        if D is not None:
            y = y + jnp.asarray(D, dtype)[..., None, :] * x
        return y.astype(x.dtype), jnp.swapaxes(last, -1, -2).reshape(*batch, channels, size)

    return _Layout(
        (tokens_first(x), tokens_first(dt), tokens_first(B), tokens_first(C)),
        jnp.swapaxes(squeezed(A), -1, -2),
        jnp.swapaxes(jnp.broadcast_to(squeezed(state), (*kept, channels, size)), -1, -2),
        finish,
    )


def _transition(A: Array, x: Array, dt: Array, B: Array) -> tuple[Array, Array]:
    """What a token does to a state (..., N, D): what it is multiplied by, and what is added."""
    return jnp.exp(dt[..., None, :] * A), B[..., :, None] * (dt * x)[..., None, :]


def _read(state: Array, C: Array) -> Array:
    """y (..., D) of states (..., N, D)."""
    return jnp.sum(C[..., :, None] * state, -2)


def _step_of(A: Array) -> Callable[[Array, tuple[Array, ...]], tuple[Array, Array]]:
    """The body of a loop over tokens. For the gradient it keeps the state alone: to compute exp and the products again
    is cheaper than to fetch them.
    """

    def step(state: Array, token: tuple[Array, ...]) -> tuple[Array, Array]:
        x, dt, B, C = token
        decay, entering = _transition(A, x, dt, B)
        state = decay * state + entering
        return state, _read(state, C)

    return jax.checkpoint(step)


def _compose(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Two transitions h -> a h + b, one after the other."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def _in_chunks(tokens: PyTree, at_most: int) -> PyTree:
    """Tokens (L, ...) as (chunks, tokens of a chunk, ...), filled up with zeros, which leave a state as it is."""
    length = len(jax.tree.leaves(tokens)[0])
    number = -(-length // at_most)
    each = -(-length // number)

    def cut(v: Array) -> Array:
        filled = jnp.pad(v, ((0, number * each - length), *((0, 0) for _ in v.shape[1:])))
        return filled.reshape(number, each, *v.shape[1:])

    return jax.tree.map(cut, tokens)


# Axes of the SSD form: b batch, q and k tokens of a chunk, h heads, p channels, s state.


def _within_chunk(rates: Array, entering: Array, B: Array, C: Array) -> tuple[Array, Array, Array]:
    """Chunks, each from a state of zero: y (b, q, h, p); the log of the decay up to each token, itself included,
    (b, q, h); the state (b, h, p, s) at the end. Of dt A (b, q, h), dt x (b, q, h, p), B and C (b, q, s).
    """
    total = jnp.cumsum(rates, 1)
    earlier = jnp.tri(rates.shape[1], dtype=bool)[..., None]
    # masked before exp: what comes later would overflow, and its gradient with it
    decay = jnp.exp(jnp.where(earlier, total[:, :, None] - total[:, None], -jnp.inf))
    y = jnp.einsum("bqkh,bkhp->bqhp", jnp.einsum("bqs,bks->bqk", C, B)[..., None] * decay, entering)
    left = jnp.exp(total[:, -1:] - total)
    return y, total, jnp.einsum("bkhp,bks->bhps", entering * left[..., None], B)


def _from_start(start: Array, total: Array, C: Array) -> Array:
    """What a state (b, h, p, s) before a chunk gives to the y (b, q, h, p) of its tokens."""
    return jnp.einsum("bqs,bhps->bqhp", C, start) * jnp.exp(total)[..., None]


def _handed_on(start: Array, total: Array, added: Array) -> Array:
    """The state (b, h, p, s) after a chunk."""
    return jnp.exp(total[:, -1])[..., None, None] * start + added


def _between_chunks(tokens: tuple[Array, ...], start: Array) -> tuple[Array, Array]:
    """y (b, L, h, p) and the last state of more tokens (b, L, ...) than a chunk has."""
    batch, length = tokens[0].shape[:2]
    chunks = jax.vmap(lambda one: _in_chunks(one, _SSD_CHUNK))(tokens)  # (b, chunks, q, ...)
    number = chunks[0].shape[1]
    merged = tuple(v.reshape(-1, *v.shape[2:]) for v in chunks)
    y, total, added = _within_chunk(*merged)
    by_chunk = tuple(jnp.swapaxes(v.reshape(batch, number, *v.shape[1:]), 0, 1) for v in (total, added))
    last, starts = lax.scan(lambda h, chunk: (_handed_on(h, *chunk), h), start, by_chunk)
    y = y + _from_start(jnp.swapaxes(starts, 0, 1).reshape(added.shape), total, merged[3])
    return y.reshape(batch, -1, *y.shape[2:])[:, :length], last
