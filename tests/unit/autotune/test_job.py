import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.model.errors import DataError, UsageError
from autotune.model.fingerprint import function_digest
from autotune.model.kernel import Inputs, Kernel, TensorSpec
from autotune.model.space import SearchSpace
from autotune.model.workload import (
    NAME_BYTES,
    config_label,
    differences,
    workload,
    workload_label,
)


def double(x):
    return (2 * x,)


def triple(x):
    return (3 * x,)


def c_source(config, _inputs, _outputs):
    return f"/* {config['unroll']} */"


def other_source(*_arguments):
    return "/* other */"


def like_input(specs):
    return (TensorSpec("y", specs[0].shape),)


def seven(_specs):
    return 7


KERNEL = Kernel(
    name="double",
    entry="double",
    generators={"c": c_source, "numpy": other_source},
    outputs=like_input,
    golden=double,
    flops=lambda specs: specs[0].shape[0],
    bytes_moved=lambda specs: 8 * specs[0].shape[0],
    space=lambda _specs: SearchSpace({"unroll": [1, 2]}),
)
INPUTS = Inputs((TensorSpec("x", (16,)),))
DECIDES = {
    "fingerprint": {"compiler": "gcc", "version": "12.2", "cpu": "Zen 3"},
    "timing": {"caches": "warm"},
}


def identity(kernel=KERNEL, inputs=INPUTS, backend="c", decides=DECIDES, unroll=1):
    return workload(kernel, inputs, backend, decides).job({"unroll": unroll}).identity


def test_the_same_job_has_the_same_identity():
    assert identity() == identity()


def changed(**fields):
    return dataclasses.replace(KERNEL, **fields)


OTHERS = {
    "config": lambda: identity(unroll=2),
    "source": lambda: identity(changed(generators={"c": other_source})),
    "entry": lambda: identity(changed(entry="twice")),
    "kernel name": lambda: identity(changed(name="twice")),
    "golden": lambda: identity(changed(golden=triple)),
    "flops": lambda: identity(changed(flops=seven)),
    "tolerance": lambda: identity(changed(reduction_length=seven)),
    "backend": lambda: identity(backend="numpy"),
    "shape": lambda: identity(inputs=Inputs((TensorSpec("x", (17,)),))),
    "dtype": lambda: identity(inputs=Inputs((TensorSpec("x", (16,), "float64"),))),
    "strides": lambda: identity(inputs=Inputs((TensorSpec("x", (16,), strides=(2,)),))),
    "seed": lambda: identity(inputs=Inputs((TensorSpec("x", (16,)),), seed=1)),
    "data": lambda: identity(inputs=Inputs(INPUTS.specs, arrays=(np.ones(16, np.float32),))),
    "compiler version": lambda: identity(
        decides={**DECIDES, "fingerprint": {**DECIDES["fingerprint"], "version": "13.1"}}
    ),
    "cpu": lambda: identity(decides={**DECIDES, "fingerprint": {**DECIDES["fingerprint"], "cpu": "Zen 4"}}),
    "timing": lambda: identity(decides={**DECIDES, "timing": {"caches": "cold"}}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_decides_the_result_changes_the_identity(what):
    assert identity() != OTHERS[what]()


def test_the_names_of_folders():
    labels = {
        "NUM_BLOCK_M=2,loop_order=MNK": {"loop_order": "MNK", "NUM_BLOCK_M": 2},
        "fuse=True,tile=0.5": {"tile": 0.5, "fuse": True},
        "default": {},
    }
    assert list(labels) == [config_label(config) for config in labels.values()]


def test_a_backend_other_than_the_first_stands_in_front():
    paths = [workload(KERNEL, INPUTS, name, DECIDES).path({"unroll": 1}) for name in ("c", "numpy")]
    assert ["unroll=1", "backend=numpy,unroll=1"] == paths


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=300)
)
CONFIGS = st.dictionaries(NAMES, VALUES, max_size=8)


@given(CONFIGS)
def test_every_config_has_a_name_that_a_file_system_takes(config):
    label = config_label(config)
    assert label == label.strip()
    assert label.isprintable() and "/" not in label and not label.startswith(".")
    assert 0 < len(label.encode()) <= NAME_BYTES


@given(CONFIGS, CONFIGS)
def test_no_two_configs_share_a_name(one, other):
    same = repr(sorted(one.items())) == repr(sorted(other.items()))
    assert same == (config_label(one) == config_label(other))


def test_values_that_print_alike_have_different_names():
    values = [1, "1", 1.0, "1.0", True, "True", "a,b=1", "a/b", "../a", ""]
    assert len(values) == len({config_label({"a": value}) for value in values})


def test_shapes_name_the_workload_and_dtypes_where_they_matter():
    specs = {
        "1024x512_512x1024": (TensorSpec("a", (1024, 512)), TensorSpec("b", (512, 1024))),
        "16,float64": (TensorSpec("a", (16,), "float64"),),
        "16_16,float32_int8": (TensorSpec("a", (16,)), TensorSpec("b", (16,), "int8")),
        "scalar": (TensorSpec("a", ()),),
    }
    assert list(specs) == [workload_label(each) for each in specs.values()]
    assert workload_label((TensorSpec("a", (16,), strides=(2,)),)).startswith("16,strided#")
    assert NAME_BYTES == len(workload_label((TensorSpec("a", (1024, 1024)),) * 60))


def test_arrays_that_cannot_be_judged_are_refused():
    array = np.array([0, np.nan, np.inf], np.float32)
    with pytest.raises(DataError, match="input 'x': 2 of 3 elements are NaN or Inf"):
        workload(KERNEL, Inputs((TensorSpec("x", (3,)),), arrays=(array,)), "c", DECIDES)


def test_a_dtype_without_tolerance_is_refused():
    with pytest.raises(UsageError, match="no tolerance for dtype 'complex64'"):
        workload(KERNEL, Inputs((TensorSpec("x", (3,), "complex64"),)), "c", DECIDES)


def test_a_backend_without_generator_is_refused():
    with pytest.raises(UsageError, match="no generator for backend 'cuda'; it has c, numpy"):
        workload(KERNEL, INPUTS, "cuda", DECIDES)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "x" * 256])
def test_a_kernel_name_that_cannot_name_a_folder_is_refused(name):
    with pytest.raises(UsageError, match="cannot name a folder"):
        workload(changed(name=name), INPUTS, "c", DECIDES)


def test_differences_name_the_fields():
    now = {**DECIDES, "fingerprint": {**DECIDES["fingerprint"], "version": "13.1"}, "seed": 1}
    assert ["fingerprint.version: 12.2 -> 13.1", "seed: absent -> 1"] == differences(DECIDES, now)


def test_a_function_is_known_by_its_text_and_a_partial_by_its_function():
    assert function_digest(double) == function_digest(functools.partial(double))
    assert function_digest(double) != function_digest(triple)
    assert function_digest(len) == function_digest(len)
