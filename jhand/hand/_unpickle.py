"""Reads the arrays of a pickled hand model without unpickling it.

A pickle is a program for a small stack machine, and Python's own machine calls what the program names. This one calls
nothing: it builds dictionaries, lists and tuples, and where the program says "call" or "make an object" it notes down
what was said. The few notes that stand for arrays (numpy's, scipy's sparse matrices, chumpy's variables) are then
turned into arrays by functions of our own. So neither numpy's nor scipy's nor chumpy's pickle code runs, and a name
outside the table below ends the reading.
"""

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

_NAMES = {
    ("chumpy.ch", "Ch"): "Ch",
    ("chumpy.reordering", "Select"): "Select",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("scipy.sparse.csc", "csc_matrix"): "csc",
    ("scipy.sparse._csc", "csc_matrix"): "csc",
    ("scipy.sparse.csr", "csr_matrix"): "csr",
    ("scipy.sparse._csr", "csr_matrix"): "csr",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("__builtin__", "set"): "set",
    ("builtins", "set"): "set",
}
"""What a hand model's pickle may name, exactly, and what we call it."""

_CALLED = {"dtype", "reconstruct", "frombuffer", "encode", "bytes", "set"}
_INSTANTIATED = {"Ch", "Select", "csc", "csr"}
_DTYPES = {"b1", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8"}
_MAX_DENSE = 50_000_000  # entries of a sparse matrix written out; MANO's has 12448, SMPL-X's 576125

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(slots=True, eq=False)
class _Name:
    """A name from the table, in place of what it names."""

    kind: str


@dataclass(slots=True, eq=False)
class _Note:
    """What the pickle says of an object: what makes it, from which arguments, and its state."""

    kind: str
    args: tuple
    state: Any = None


def read_pickle(data: bytes) -> dict:
    """The dictionary a pickle of protocol 0 to 5 describes; nothing in it is executed.

    Args:
        data: the bytes of the file.

    Returns:
        Its entries: strings, numbers, containers, and notes that `to_array` turns into arrays.

    Raises:
        ValueError: the bytes are no whole pickle, name something that is no part of a hand model, or are no dictionary.
    """
    try:
        result = _run(data)
    except (IndexError, KeyError):  # the stack ran empty, or a memo that was never set was asked for
        raise ValueError("the pickle is damaged") from None
    if type(result) is not dict:
        raise ValueError(f"expected a dictionary of arrays, found {_describe(result)}")
    return result


def _run(data: bytes) -> object:
    stack: list = []
    marks: list[int] = []
    memo: dict = {}

    def pop(count: int) -> list:
        return [stack.pop() for _ in range(count)][::-1]

    def pop_to_mark() -> list:
        height = marks.pop()
        items = stack[height:]
        del stack[height:]
        return items

    def top(kind: type) -> Any:
        if type(stack[-1]) is not kind:
            raise ValueError(f"byte {position}: {op.name} acts on {_describe(stack[-1])}")
        return stack[-1]

    def set_items(target: dict, items: list) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise ValueError(f"byte {position}: expected a string as key, found {_describe(key)}")
            target[key] = value

    for op, arg, position in pickletools.genops(data):
        match op.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case name if name in _LITERALS:
                stack.append(arg)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case name if name in _TUPLES:
                stack.append(tuple(pop(_TUPLES[name])))
            case "EMPTY_LIST" | "EMPTY_SET":  # the sets of a model hold nothing we read
                stack.append([])
            case "LIST":
                stack.append(pop_to_mark())
            case "APPEND":
                items = pop(1)
                top(list).extend(items)
            case "APPENDS" | "ADDITEMS":
                items = pop_to_mark()
                top(list).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = pop_to_mark()
                stack.append({})
                set_items(top(dict), items)
            case "SETITEM":
                items = pop(2)
                set_items(top(dict), items)
            case "SETITEMS":
                items = pop_to_mark()
                set_items(top(dict), items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_name(*str(arg).split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_name(*pop(2)))
            case "REDUCE" | "NEWOBJ":
                maker, args = pop(2)
                allowed = _CALLED if op.name == "REDUCE" else _INSTANTIATED
                if type(maker) is not _Name or maker.kind not in allowed or type(args) is not tuple:
                    raise ValueError(f"byte {position}: {op.name} of {_describe(maker)} is no part of a hand model")
                stack.append(_Note(maker.kind, args))
            case "BUILD":
                (state,) = pop(1)
                top(_Note).state = state
            case name:
                what = f"{name} {arg[:100]!r}" if type(arg) is str else name
                raise ValueError(f"byte {position}: {what} is no part of a hand model's pickle; nothing was executed")
    return stack.pop()


def _name(module: object, name: object) -> _Name:
    """The exact pair, or an error: nothing is imported or looked up."""
    if type(module) is not str or type(name) is not str:
        raise ValueError(f"expected two strings as a name, found {_describe(module)} and {_describe(name)}")
    if (module, name) not in _NAMES:
        raise ValueError(
            f"refused: the pickle names {f'{module}.{name}'[:200]!r}, which is no part of a hand model; "
            "nothing was executed. If you trust the file, load it with the software that wrote it and save its arrays "
            "with numpy.savez"
        )
    return _Name(_NAMES[module, name])


def to_array(value: object) -> np.ndarray | str:
    """The array that an entry of `read_pickle` stands for; a string is returned as it is.

    Sparse matrices come out dense, chumpy variables with the value they had when written.

    Raises:
        ValueError: the entry is something else, or what it says of an array contradicts itself.
    """
    match value:
        case str():
            return value
        case _Note(kind="reconstruct" | "frombuffer"):
            return _dense(value)
        case _Note(kind="Ch"):
            return _dense(_entry(value, "x"))
        case _Note(kind="Select"):
            return _select(value)
        case _Note(kind="csc" | "csr"):
            return _sparse(value)
    raise ValueError(f"expected an array, found {_describe(value)}")


def _dense(note: object) -> np.ndarray:
    """What `numpy.ndarray` would read from its pickled state."""
    match note:
        case _Note("reconstruct", (_Name("ndarray"), *_), (_, shape, dtype, fortran, raw)):
            order = "F" if fortran else "C"
        case _Note("frombuffer", (raw, dtype, shape, order)) if order in ("C", "F"):
            pass
        case _:
            raise ValueError(f"expected an array, found {_describe(note)}")
    shape, dtype, raw = _shape(shape), _dtype(dtype), _bytes(raw)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and type {dtype} comes with {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _dtype(note: object) -> np.dtype:
    match note:
        case _Note("dtype", (str(name), *_), (_, "<" | ">" | "|" | "=" as endian, *_)) if name in _DTYPES:
            return np.dtype(endian + name)
        case _Note("dtype", (str(name), *_)):
            raise ValueError(f"expected an array of numbers, found numpy type {name[:20]!r}")
    raise ValueError(f"expected an array's type, found {_describe(note)}")


def _shape(value: Any) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > 8 or not all(type(n) is int and 0 <= n < 2**40 for n in value):
        raise ValueError(f"expected the shape of an array, found {_describe(value)}")
    return value


def _bytes(value: object) -> bytes:
    """Raw data: bytes, a string of Python 2 (read as latin-1), or Python 3's spelling of bytes in protocols 0 to 2."""
    match value:
        case bytes() | bytearray():
            return bytes(value)
        case str() | _Note("encode", (str(), "latin1")):
            return (value if isinstance(value, str) else value.args[0]).encode("latin1")
        case _Note("bytes", ()):
            return b""
    raise ValueError(f"expected an array's data, found {_describe(value)}")


def _entry(note: _Note, key: str) -> object:
    """One attribute of an object's pickled state."""
    if type(note.state) is not dict or key not in note.state:
        raise ValueError(f"expected the attribute {key!r} in {_describe(note)}")
    return note.state[key]


def _select(note: _Note) -> np.ndarray:
    """chumpy.reordering.Select: entries `idxs` of the flattened variable `a`, reshaped."""
    variable = _entry(note, "a")
    if type(variable) is not _Note or variable.kind != "Ch":
        raise ValueError(f"expected a chumpy Ch in {_describe(note)}, found {_describe(variable)}")
    source = _dense(_entry(variable, "x")).ravel()
    indices = _indices(_entry(note, "idxs"), source.size)
    shape = _shape(_entry(note, "preferred_shape"))
    if math.prod(shape) != indices.size:
        raise ValueError(f"a chumpy Select of shape {shape} comes with {indices.size} indices")
    return source[indices].reshape(shape)


def _sparse(note: _Note) -> np.ndarray:
    """scipy.sparse.csc_matrix or csr_matrix, written out."""
    shape = _shape(_entry(note, "_shape"))
    if len(shape) != 2 or math.prod(shape) > _MAX_DENSE:
        raise ValueError(f"expected a sparse matrix of at most {_MAX_DENSE} entries, found shape {shape}")
    outer, inner = shape if note.kind == "csr" else shape[::-1]
    data = _dense(_entry(note, "data"))
    start = _indices(_entry(note, "indptr"), data.size + 1)
    index = _indices(_entry(note, "indices"), inner)
    counts = np.diff(start)
    sizes_fit = start.size == outer + 1 and data.shape == index.shape
    if not sizes_fit or start[0] != 0 or start[-1] != data.size or (counts < 0).any():
        raise ValueError(f"the parts of a sparse matrix of shape {shape} do not fit together")
    dense = np.zeros((outer, inner))
    np.add.at(dense, (np.repeat(np.arange(outer), counts), index), data)
    return dense if note.kind == "csr" else dense.T


def _indices(value: object, size: int) -> np.ndarray:
    """A flat array of indices below `size`."""
    indices = _dense(value)
    flat = indices.ndim == 1 and indices.dtype.kind in "iu"
    if not flat or (indices.size and not 0 <= indices.min() <= indices.max() < size):
        raise ValueError(f"expected indices from 0 to {size - 1}, found {indices.dtype} of shape {indices.shape}")
    return indices.astype(np.int64)


def _describe(value: object) -> str:
    """What a value is, in words; never its contents, which may be endless."""
    if isinstance(value, _Name | _Note):
        return f"a pickled {value.kind}"
    return f"a {type(value).__name__}"
