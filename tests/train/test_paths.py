import pytest

from jhand.train import merge, paths_of, select

TREE = {"encoder": {"kernel": 1, "norm": {"scale": 2}}, "encoder2": {"kernel": 3}, "bias": 4}


def test_paths():
    assert paths_of(TREE) == ["encoder/kernel", "encoder/norm/scale", "encoder2/kernel", "bias"]


@pytest.mark.parametrize(
    ("prefixes", "expected"),
    [
        (("",), TREE),
        (("encoder",), {"encoder": TREE["encoder"]}),  # and not encoder2
        (("encoder/norm", "bias"), {"encoder": {"norm": {"scale": 2}}, "bias": 4}),
        (("encoder/norm", "encoder/norm/scale"), {"encoder": {"norm": {"scale": 2}}}),
    ],
)
def test_select(prefixes, expected):
    assert select(TREE, prefixes) == expected


def test_a_prefix_that_holds_nothing_lists_what_there_is():
    with pytest.raises(ValueError, match=r"nothing lies under 'enc'.*\n  encoder/kernel\n  encoder/norm/scale"):
        select(TREE, ("encoder", "enc"))


def test_merge_replaces_and_refuses_what_is_new():
    assert merge(TREE, {"encoder": {"norm": {"scale": 9}}}) == {
        **TREE,
        "encoder": {"kernel": 1, "norm": {"scale": 9}},
    }
    with pytest.raises(ValueError, match=r"unknown entries \['head'\]"):
        merge(TREE, {"head": 1})
