"""Hostile and damaged pickles: each is refused, and nothing that it asks for happens."""

import contextlib
import copyreg
import pickle
import pickletools
import struct
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from jhand.hand import _unpickle
from jhand.hand._unpickle import read_pickle, to_array
from jhand.hand.files import HandFileError, load_hand
from tests.hand.mano_files import chumpy_select, csc_matrix, hand_arrays, python2_pickle, write_distributed

TIPS = (15, 3, 6, 12, 9)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    """`module.name(*args)` in protocol 2."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(args) + b"tR"


def nested(module: str, name: str, *args: bytes) -> bytes:
    """The same in protocol 4, where a name may have dots."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + b"".join(args) + b"tR"


def array_of(data: bytes, shape: bytes = b"K\x01\x85", dtype: bytes = b"X\x02\0\0\0f8") -> bytes:
    """An array in protocol 2 whose parts are given as pickles."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    state = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    return (
        reconstruct
        + b"(K\x01"
        + shape
        + b"cnumpy\ndtype\n("
        + dtype
        + b"K\x00K\x01tR"
        + state
        + b"b\x89"
        + data
        + b"tb"
    )


def entry(value: bytes, key: bytes = b"U\x0av_template") -> bytes:
    """A dictionary with one entry that a hand has."""
    return b"\x80\x02}" + key + value + b"s."


def assert_refused(payload: bytes, folder: Path) -> str:
    """Loading raises HandFileError and leaves no trace beside the file."""
    path = folder / "MANO_RIGHT.pkl"
    path.write_bytes(payload)
    with pytest.raises(HandFileError) as caught:
        load_hand(path, tips=TIPS)
    assert sorted(folder.iterdir()) == [path]
    assert str(path) in str(caught.value)
    return str(caught.value)


def effective(canary: Path) -> dict[str, bytes]:
    """Programs that make `canary` when given to pickle.loads."""
    path, touch = str(canary), text(f"touch '{canary}'")
    code = text(f"open({path!r}, 'w').close()")
    instance = f"(S'touch {path}'\nios\nsystem\n".encode()
    memmap = [text(path), text("uint8"), text("w+"), b"K\x00", b"K\x01\x85"]
    return {
        "os.system": call("os", "system", touch) + b".",
        "posix.system": call("posix", "system", touch) + b".",
        "__builtin__.eval": call("__builtin__", "eval", code) + b".",
        "builtins.exec": b"\x80\x03" + call("builtins", "exec", code) + b".",
        "subprocess.check_call": b"\x80\x03"
        + call("subprocess", "check_call", b"]" + text("touch") + b"a" + text(path) + b"a")
        + b".",
        "functools.partial": b"\x80\x03" + call("functools", "partial", b"cos\nsystem\n", touch) + b")R.",
        "getattr": b"\x80\x03"
        + call("builtins", "getattr", call("importlib", "import_module", text("os")), text("system"))
        + b"("
        + touch
        + b"tR.",
        "operator.attrgetter": b"\x80\x03"
        + call("operator", "attrgetter", text("system"))
        + call("importlib", "import_module", text("os"))
        + b"\x85R("
        + touch
        + b"tR.",
        "operator.methodcaller": b"\x80\x03"
        + call("operator", "methodcaller", text("system"), touch)
        + call("importlib", "import_module", text("os"))
        + b"\x85R.",
        "numpy.memmap": call("numpy", "memmap", *memmap) + b".",
        "numpy.savetxt": call("numpy", "savetxt", text(path), b"]K\x01a") + b".",
        "nested name": nested("shutil", "os.system", touch) + b".",
        "INST": instance + b".",
        "OBJ": f"(cos\nsystem\nS'touch {path}'\no.".encode(),
        "in a dictionary": b"\x80\x02}" + text("bs_style") + call("os", "system", touch) + b"s.",
        "in an array's data": entry(array_of(call("os", "system", touch))),
        "in an array's shape": entry(array_of(b"U\x08" + bytes(8), shape=call("os", "system", touch) + b"\x85")),
        "in a state": entry(b"cchumpy.ch\nCh\n)\x81}U\x01x" + call("os", "system", touch) + b"sb"),
        "in the arguments of an allowed call": call("_codecs", "encode", call("os", "system", touch)) + b".",
        "after the dictionary": entry(b"K\x01")[:-1] + call("os", "system", touch) + b".",
    }


EFFECTIVE = list(effective(Path("x")))


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes under chumpy's and old scipy's names, so that pickle itself can be the judge of what a pickle says."""
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select"), ("scipy.sparse.csc", "csc_matrix")):
        package = module.rsplit(".", 1)[0]
        if package == "chumpy":
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        stand_in = types.ModuleType(module)
        setattr(stand_in, name, type(name, (), {}))
        monkeypatch.setitem(sys.modules, module, stand_in)


@pytest.mark.parametrize("name", EFFECTIVE)
def test_what_pickle_would_execute_is_refused(name: str, tmp_path: Path, chumpy: None) -> None:
    folder, canary = tmp_path / "folder", tmp_path / "canary"
    folder.mkdir()
    payload = effective(canary)[name]
    assert "no part of a hand model" in assert_refused(payload, folder)
    assert not canary.exists()
    with contextlib.suppress(Exception):  # the same bytes do what they say when Python's own machine runs them
        pickle.loads(payload, encoding="latin1")
    assert canary.exists()


REFUSED = [
    *[("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("pty", "spawn")],
    *[(module, name) for module in ("builtins", "__builtin__") for name in ("eval", "exec", "getattr", "__import__")],
    *[
        ("builtins", "open"),
        ("builtins", "object"),
        ("builtins", "type"),
        ("__builtin__", "bytearray"),
        ("builtins", "set.pop"),
    ],
    *[
        ("copyreg", "_reconstructor"),
        ("copy_reg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("copyreg", "add_extension"),
    ],
    *[("functools", "partial"), ("functools", "reduce"), ("operator", "attrgetter"), ("operator", "methodcaller")],
    *[("operator", "itemgetter"), ("_operator", "attrgetter"), ("types", "FunctionType"), ("types", "CodeType")],
    *[("numpy", "load"), ("numpy", "fromfile"), ("numpy", "memmap"), ("numpy", "matrix"), ("numpy", "ndarray.tofile")],
    *[
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core", "multiarray._reconstruct"),
    ],
    *[
        ("numpy", "dtype.__class__"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy", "core.multiarray"),
    ],
    *[("scipy.sparse", "csc_matrix"), ("scipy.sparse.csc", "csc_matrix.__init__"), ("scipy.sparse.csc", "np.load")],
    *[
        ("chumpy", "ch"),
        ("chumpy", "ch.Ch"),
        ("chumpy.ch", "Ch.__init__.__globals__"),
        ("chumpy.ch", "os"),
        ("chumpy.ch_ops", "add"),
    ],
    *[
        ("_codecs", "decode"),
        ("codecs", "encode"),
        ("_codecs", "encode.__self__"),
        ("pickle", "loads"),
        ("runpy", "run_path"),
    ],
    *[
        ("jhand.hand._unpickle", "_Note"),
        ("jhand.hand.files", "load_hand"),
        ("", ""),
        ("numpy", " ndarray"),
        ("NUMPY", "ndarray"),
    ],
]


@pytest.mark.parametrize(("module", "name"), REFUSED)
def test_names_outside_the_table_are_refused_by_name(module: str, name: str, tmp_path: Path) -> None:
    named = [f"c{module}\n{name}\n".encode(), b"\x80\x04" + text(module) + text(name) + b"\x93"]
    for payload in (*named, *(program + b")R" for program in named), *(program + b")\x81" for program in named)):
        assert f"{module}.{name}" in assert_refused(payload + b".", tmp_path)
        (tmp_path / "MANO_RIGHT.pkl").unlink()
    assert "INST" in assert_refused(b"(i" + named[0][1:] + b".", tmp_path)


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\0", b"\x84\xf0\0\0\0"], ids=["EXT1", "EXT2", "EXT4"])
def test_registered_extensions_are_refused(opcode: bytes, tmp_path: Path) -> None:
    folder, canary = tmp_path / "folder", tmp_path / "canary"
    folder.mkdir()
    copyreg.add_extension("os", "system", 0xF0)
    try:
        payload = b"\x80\x02" + opcode + b"(" + text(f"touch '{canary}'") + b"tR."
        pickle.loads(payload)  # also caches the function, so that it is no longer looked up by name
        assert canary.exists()
        canary.unlink()
        assert "EXT" in assert_refused(payload, folder)
        assert not canary.exists()
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


CH = b"cchumpy.ch\nCh\n"
SELECT = b"cchumpy.reordering\nSelect\n"
FLAT = array_of(b"U\x08" + bytes(8))
INDEX = array_of(b"U\x08" + bytes(8), dtype=b"U\x02i8")

MALFORMED = {
    "nothing": b".",
    "no dictionary": b"].",
    "a name as result": CH + b".",
    "persistent id": b"Pos\n.",
    "binary persistent id": text("os") + b"Q.",
    "INST of an allowed class": b"(ichumpy.ch\nCh\n.",
    "OBJ of an allowed class": b"(" + CH + b"o.",
    "NEWOBJ_EX of an allowed class": b"\x80\x04" + CH + b")}\x92.",
    "NEWOBJ of a function": b"cnumpy\ndtype\n)\x81.",
    "NEWOBJ of a string": text("Ch") + b")\x81.",
    "REDUCE of a class": CH + b")R.",
    "REDUCE of an object": CH + b")\x81)R.",
    "REDUCE without a tuple": b"cnumpy\ndtype\n]R.",
    "BUILD of a class": CH + b"}" + text("__init__") + b"NsbN.",
    "BUILD of a function": b"cnumpy\ndtype\nN}" + text("__defaults__") + b")s\x86b.",
    "BUILD of a dictionary": b"}}b.",
    "APPEND to an object": CH + b")\x81K\x01a.",
    "SETITEM of an object": CH + b")\x81" + text("x") + b"K\x01s.",
    "SETITEM of an array": FLAT + b"K\x00K\x01s.",
    "a dictionary as key": b"}}K\x01s.",
    "an object as key": b"}" + CH + b")\x81K\x01s.",
    "a key without value": b"}(" + text("x") + b"u.",
    "an empty stack": b"\x85.",
    "a mark too few": b"t.",
    "a memo never set": b"h\x05.",
    "a buffer from elsewhere": b"\x80\x05\x97.",
    "a read-only buffer": b"\x80\x05C\x01x\x98.",
    "no STOP": b"}",
    "a length beyond the end": b"\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "a string beyond the end": b"\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "a byte array beyond the end": b"\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a negative length": b"T\xff\xff\xff\xffx.",
    "a huge frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "a huge memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "text": b"<!DOCTYPE html><html>Please log in</html>",
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "an endless tuple": b"(" * 200_000 + b"t" * 200_000 + b".",
    "an endless tuple as key": b"})" + b"\x85" * 200_000 + b"Ns.",
    "an endless object": CH + b"q\x00)\x81q\x01" + b"h\x00)\x81h\x01bq\x01" * 100_000 + b".",
    "a type that is none": entry(array_of(b"U\x08" + bytes(8), dtype=b"U\x02zz")),
    "an array of objects": entry(array_of(b"]Na", dtype=b"U\x02O8")),
    "an array of records": entry(array_of(b"U\x08" + bytes(8), dtype=b"](U\x01aU\x02f8te")),
    "an array of objects by byte order": entry(array_of(b"U\x08" + bytes(8)).replace(b"U\x01<", b"U\x01O")),
    "a shape too large": entry(array_of(b"U\x08" + bytes(8), shape=b"\x8a\x06\0\0\0\0\0\x01\x85")),
    "a shape too small": entry(array_of(b"U\x10" + bytes(16))),
    "a negative shape": entry(array_of(b"U\x08" + bytes(8), shape=b"J\xff\xff\xff\xff\x85")),
    "a shape of floats": entry(array_of(b"U\x08" + bytes(8), shape=b"G?\xf0\0\0\0\0\0\0\x85")),
    "a shape of many numbers": entry(array_of(b"U\x08" + bytes(8), shape=b"(" + b"K\x01" * 50_000 + b"t")),
    "data beyond latin-1": entry(array_of(text("\u20ac"), dtype=b"U\x02i1")),
    "data in another codec": entry(array_of(call("_codecs", "encode", text("x" * 8), text("rot13")))),
    "data decompressed": entry(array_of(call("_codecs", "encode", text("x" * 8), text("zlib")))),
    "another class than ndarray": entry(FLAT.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n")),
    "an array without state": entry(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"),
    "an array in a set": entry(b"c__builtin__\nset\n(](" + FLAT + b"etR"),
    "a number": entry(b"K\x01"),
    "a list": entry(b"](G?\xf0\0\0\0\0\0\0e"),
    "a chumpy variable without value": entry(CH + b")\x81}b"),
    "a chumpy variable with slots": entry(CH + b")\x81N}U\x01x" + FLAT + b"s\x86b"),
    "a chumpy variable of itself": entry(CH + b")\x81q\x01}U\x01xh\x01sb"),
    "a chumpy selection of itself": entry(
        SELECT + b")\x81q\x01}(U\x01ah\x01U\x04idxs" + INDEX + b"U\x0fpreferred_shape)ub"
    ),
    "a chumpy selection out of range": entry(
        SELECT
        + b")\x81}(U\x01a"
        + CH
        + b")\x81}U\x01x"
        + FLAT
        + b"sbU\x04idxs"
        + INDEX.replace(b"U\x08" + bytes(8), b"U\x08\x01" + bytes(7))
        + b"U\x0fpreferred_shapeK\x01\x85ub"
    ),
    "a sparse matrix too large": entry(
        b"cscipy.sparse.csc\ncsc_matrix\n)\x81}(U\x06_shapeJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86ub"
    ),
    "a sparse matrix without indices": entry(
        b"cscipy.sparse.csc\ncsc_matrix\n)\x81}(U\x06_shapeK\x01K\x01\x86U\x04data" + FLAT + b"ub"
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pickles_are_refused(name: str, tmp_path: Path) -> None:
    assert_refused(MALFORMED[name], tmp_path)


@pytest.mark.parametrize(
    "name", [name for name in MALFORMED if "huge" in name or "beyond" in name or "too large" in name]
)
def test_sizes_are_not_believed(name: str, tmp_path: Path) -> None:
    """A few bytes that speak of gigabytes take no memory."""
    tracemalloc.start()
    try:
        assert_refused(MALFORMED[name], tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_hostile_attributes_change_nothing() -> None:
    """A state may name `__class__` or methods: only the array in it is read, and the reader stays as it was."""
    extra = b"".join(text(key) + call("_codecs", "encode", text("x")) for key in ("__class__", "__dict__", "__array__"))
    program = entry(CH + b")\x81}(" + extra + text("x") + array_of(b"U\x08" + struct.pack("<d", 2.5)) + b"ub")
    before = {name: dict(vars(value)) for name, value in vars(_unpickle).items() if isinstance(value, type)}
    assert to_array(read_pickle(program)["v_template"]) == [2.5]
    assert {name: dict(vars(value)) for name, value in vars(_unpickle).items() if isinstance(value, type)} == before


def test_agrees_with_pickle(tmp_path: Path, chumpy: None) -> None:
    """What our machine reads from a file as MANO's is what Python's own machine reads."""
    arrays = hand_arrays(0, vertices=30, faces=20)
    data = write_distributed(tmp_path / "MANO_RIGHT.pkl", arrays).read_bytes()
    theirs = pickle.loads(data, encoding="latin1")
    select, sparse = theirs.pop("shapedirs"), theirs.pop("J_regressor")
    theirs["shapedirs"] = select.a.x.ravel()[select.idxs].reshape(select.preferred_shape)
    theirs["J_regressor"] = scipy.sparse.csc_matrix(
        (sparse.data, sparse.indices, sparse.indptr), sparse._shape
    ).toarray()
    ours = read_pickle(data)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(to_array(ours[key]), value, strict=True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "f2", "u4", "<i8", "i1", "?"])
def test_arrays_of_every_protocol(protocol: int, dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    written = {
        "c": values,
        "fortran": np.asfortranarray(values),
        "strided": values[:, ::2],
        "scalar": values[0, 0, 0:1].reshape(()),
        "kind": "text",
        "unused": [{"set": {1, 2}}, None, 1.5, 2**40, (1, 2, 3, 4)],
    }
    read = read_pickle(pickle.dumps(written, protocol=protocol))
    for key in ("c", "fortran", "strided", "scalar"):
        np.testing.assert_array_equal(to_array(read[key]), written[key], strict=True)
    assert to_array(read["kind"]) == "text"
    with pytest.raises(ValueError, match="expected an array, found a list"):
        to_array(read["unused"])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_sparse_matrices(protocol: int) -> None:
    sparse = scipy.sparse.random(5, 7, 0.3, rng=np.random.default_rng(0))
    repeated = scipy.sparse.csc_matrix((np.ones(3), [1, 1, 0], [0, 2, 3]), (2, 2))
    written = {"csc": sparse.tocsc(), "csr": sparse.tocsr(), "repeated": repeated}
    read = read_pickle(pickle.dumps(written, protocol=protocol))
    for key, matrix in written.items():
        np.testing.assert_array_equal(to_array(read[key]), matrix.toarray())


def test_truncation_anywhere_is_an_error(tmp_path: Path) -> None:
    data = write_distributed(tmp_path / "hand_right.pkl", hand_arrays(0, vertices=20, faces=5)).read_bytes()
    assert read_pickle(data)
    ends = [position or 0 for _, _, position in pickletools.genops(data)]
    for end in sorted({*ends[::2], *(end + 1 for end in ends[1:-1:2]), *range(0, len(data), 997)}):
        with pytest.raises(ValueError):
            read_pickle(data[:end])


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # where a change makes a quoted string of protocol 0
def test_changed_bytes_raise_nothing_but_value_errors(tmp_path: Path) -> None:
    """A file with a few wrong bytes is read as something or refused; what is read still becomes arrays or errors."""
    rng = np.random.default_rng(0)
    small = {
        "shapedirs": chumpy_select(np.zeros((2, 3, 1))),
        "J_regressor": csc_matrix(np.eye(3)),
        "v": np.ones((2, 3)),
    }
    data = np.frombuffer(python2_pickle(small), np.uint8)
    read = refused = 0
    for _ in range(600):
        changed = data.copy()
        changed[rng.integers(len(data), size=2)] = rng.integers(256, size=2)
        try:
            for value in read_pickle(changed.tobytes()).values():
                to_array(value)
            read += 1
        except ValueError:
            refused += 1
    assert read > 50
    assert refused > 50
