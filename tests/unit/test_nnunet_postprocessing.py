"""What nnU-Net writes of its postprocessing is read, from pickles without running them.

Against the package itself: tests/integration/test_nnunet_reference.py.
"""

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from inference.errors import ModelRefused
from inference.nnunet import labels, postprocessing
from inference.nnunet.postprocessing import LARGEST, MODULE, Step
from tests.hostile_bundles.pickled import Call
from tests.nnunet_folders import ORGANS


@pytest.fixture
def function() -> Iterator[Any]:
    """A function that pickles under the name of nnU-Net's."""
    parents = [MODULE.rsplit(".", count)[0] for count in (2, 1, 0)]
    modules = {name: ModuleType(name) for name in parents}

    def named() -> None:
        raise AssertionError("it was called")

    named.__module__, named.__qualname__, named.__name__ = MODULE, LARGEST, LARGEST
    setattr(modules[MODULE], LARGEST, named)
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    yield named
    for name, module in kept.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


GIVEN: list[Any] = [
    list(np.unique([0, 1, 2]))[1:],  # numbers of numpy's, as nnU-Net has its labels
    np.int64(2),
    1,
    (1, 2, 3),
    [(1, 2), 3],
]
MEANT = [(1, 2), (2,), (1,), (1, 2, 3), (1, 2, 3)]


@pytest.mark.parametrize(("given_as", "values"), [*zip(GIVEN, MEANT, strict=True)])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickles_of_nnunet_are_read_as_values(
    function: Any, given_as: Any, values: tuple[int, ...], protocol: int
) -> None:
    content = pickle.dumps(([function], [{"labels_or_regions": given_as}]), protocol)
    assert postprocessing.parse(content, "a.pkl") == (Step(values=values),)


def test_several_steps_keep_their_order_and_none_is_none(function: Any) -> None:
    steps = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2, "background_label": 1}]
    found = postprocessing.parse(pickle.dumps(([function] * 2, steps)), "a.pkl")
    assert found == (Step(values=(1, 2)), Step(values=(2,), background=1))
    assert postprocessing.parse(pickle.dumps(([], [])), "a.pkl") == ()


def test_the_text_says_the_same() -> None:
    content = {
        "postprocessed": {"mean": {"1": {"Dice": 0.9}}},
        "postprocessing_fns": [LARGEST],
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}],
    }
    found = postprocessing.parse(json.dumps(content).encode(), "a.json")
    assert found == (Step(values=(1, 2)),)


def test_pickles_that_call_are_refused_and_not_run(function: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = [
        Call(Path.touch, trace),
        Call(eval, f"open({str(trace)!r}, 'w')"),
        Call(function),
        Call(getattr, "text", "upper"),
        Call(np.dtype, "O"),
        Call(np.dtype, "f8"),
    ]
    for call in calls:
        for content in (call, ([function], [{"labels_or_regions": call}]), ([call], [{}])):
            with pytest.raises(ModelRefused, match=r"a\.pkl: not a postprocessing") as refusal:
                postprocessing.parse(pickle.dumps(content), "a.pkl")
            assert "\n" not in str(refusal.value)
    assert not trace.exists()


def doubled(inside: list[object]) -> list[object]:
    """A list that has the one before twice, sixty times."""
    for _ in range(60):
        inside = [inside, inside]
    return inside


SELF = b"](}(\x8c\x11labels_or_regions]q\x63h\x63aue"  # a list that holds itself
HOSTILE = {
    "nothing": b"",
    "no pickle": b"text",
    "a memory of 16 GiB": b"\x80\x02](K\x01r\xff\xff\xff\x7fe.",
    "a long number": b"\x80\x02\x8b\x00\x00\x00\x40" + b"\x01" * 64 + b".",
    "an instance": b"(cos\nsystem\nS'true'\no.",
    "a name of two parts": b"\x80\x04\x8c\x08builtins\x8c\x09eval.real\x93.",
    "persistent": b"Pabc\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "too long": b"\x80\x02" + b"N0" * (1 << 20) + b".",
    "cut off": pickle.dumps(([], []))[:-3],
    "one list": pickle.dumps([]),
    "three": pickle.dumps(([], [], [])),
    "another function": pickle.dumps((["fill_holes"], [{"labels_or_regions": 1}])),
    "one without arguments": pickle.dumps(([LARGEST], [])),
    "unknown arguments": pickle.dumps(([LARGEST], [{"labels_or_regions": 1, "minimum": 5}])),
    "a label that is text": pickle.dumps(([LARGEST], [{"labels_or_regions": "1"}])),
    "a list in itself": b"\x80\x04" + pickle.dumps([LARGEST])[2:-1] + SELF + b"\x86.",
    "labels without end": pickle.dumps(([LARGEST], [{"labels_or_regions": doubled([1])}])),
    "no labels without end": pickle.dumps(([LARGEST], [{"labels_or_regions": doubled([])}])),
    "a name without end": pickle.dumps(([doubled(["x"])], [{"labels_or_regions": 1}])),
    "a key too deep": b"\x80\x04})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "no labels": pickle.dumps(([LARGEST], [{}])),
    "arguments that are none": pickle.dumps(([LARGEST], [7])),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_other_files_are_refused_in_a_line(what: str) -> None:
    with pytest.raises(ModelRefused, match=r"a\.pkl: not a postprocessing") as refusal:
        postprocessing.parse(HOSTILE[what], "a.pkl")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"[", b"[]", b"{}", b'{"postprocessing_fns": [1]}'])
def test_other_texts_are_refused_in_a_line(content: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"a\.json"):
        postprocessing.parse(content, "a.json")


def test_labels_that_the_model_lacks_are_refused() -> None:
    meant = labels.parse({"labels": ORGANS})
    postprocessing.refuse_other_labels((Step(values=(1, 2)),), meant, "a.json")
    for step in (Step(values=(1, 7)), Step(values=(1,), background=7)):
        with pytest.raises(ModelRefused, match="the model has no label 7"):
            postprocessing.refuse_other_labels((step,), meant, "a.json")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 0.4), flat=st.booleans())
def test_the_largest_component_of_the_union_stays(seed: int, share: float, *, flat: bool) -> None:
    shape = (1, 9, 8) if flat else (5, 7, 6)
    generator = np.random.default_rng(seed)
    labelled = generator.choice(3, shape, p=(1 - share, share / 2, share / 2)).astype(np.int16)
    before = labelled.copy()
    for values in ((1,), (1, 2)):
        found = postprocessing.applied(labelled, (Step(values=values),))
        parts = label(np.isin(labelled, values), connectivity=3)
        sizes = np.bincount(parts.ravel())[1:]
        kept = np.isin(parts, 1 + np.flatnonzero(sizes == sizes.max(initial=0)))
        expected = np.where((parts > 0) & ~kept, 0, labelled)
        assert np.array_equal(found, expected)
    assert np.array_equal(labelled, before)
