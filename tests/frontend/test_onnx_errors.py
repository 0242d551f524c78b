"""Every refusal and every broken file: one clear error, never another exception."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_support import floats, model, op

from qcc.errors import ModelError, QccError, UnsupportedError
from qcc.frontend.onnx import load

IMAGE = {"x": (1, 4, 6, 6)}
F = np.float32
DOUBLE = F([1, 1, 2, 2])


Case = tuple[onnx.NodeProto, dict[str, Any], int, str]
"""Node over x [1, 4, 6, 6], constants, opset, part of the message."""

W = {"w": floats(2, 4, 3, 3)}
REFUSED: dict[str, Case] = {
    "unknown": (op("NonZero", "x"), {}, 17, "NonZero 'y': this operator is not supported"),
    "layer_norm": (op("LayerNormalization", "x s"), {"s": floats(6)}, 17, "statistics at run time"),
    "log_softmax": (op("LogSoftmax", "x"), {}, 17, "take the logarithm outside"),
    "quantized": (op("QuantizeLinear", "x s"), {"s": F(0)}, 17, "its scale is 0.0; scales are positive and finite"),
    "quantized_too_finely": (op("QuantizeLinear", "x s"), {"s": F(1e-40)}, 17, "has no reciprocal in float32"),
    "quantized_nan": (op("QuantizeLinear", "w s"), {"w": F([1, np.nan]), "s": F(1)}, 17, "its operand holds NaN"),
    "divide_by_zero": (op("Div", "x w"), {"w": F([1, 0, 2, 3, 4, 5])}, 17, "it divides by 0"),
    "variance": (op("BatchNormalization", "x s s s v"), {"s": floats(4), "v": F([1, 1, -1, 1])}, 17,
                 "its variance -1 with epsilon 1e-05 is not positive"),
    "dropout_modes": (op("Dropout", "x r t"), {"r": F(0.5), "t": np.array([True, False])}, 17, "has 2 elements"),
    "domain": (op("FusedConv", "x", domain="com.microsoft"), {}, 17, "com.microsoft.FusedConv"),
    "random": (op("RandomNormalLike", "x"), {}, 17, "not supported"),
    "attribute_type": (op("Conv", "x w", group="two"), W, 17, "group"),
    "missing_input": (op("Concat", "x -", axis=1), {}, 17, "its input 1 is missing"),
    "missing_attribute": (op("Concat", "x x"), {}, 17, "axis"),
    "too_many_inputs": (op("Relu", "x x"), {}, 17, "input"),
    "deprecated": (op("Upsample", "x s"), {"s": np.ones(4, F)}, 17, "deprecated"),
    "conv_weights": (op("Conv", "x x"), {}, 17, "weights is not constant"),
    "conv_rank": (op("Conv", "x w"), {"w": floats(2, 4, 3)}, 17, "its weights have shape [2, 4, 3]"),
    "conv_channels": (op("Conv", "x w"), {"w": floats(2, 3, 3, 3)}, 17, "4 input and 2 output channels do not fit"),
    "conv_kernel_shape": (op("Conv", "x w", kernel_shape=[5, 5]), W, 17, "kernel_shape (5, 5) does not fit"),
    "conv_bias": (op("Conv", "x w b"), {**W, "b": floats(3)}, 17, "its bias has shape [3] instead of [2]"),
    "conv_pads": (op("Conv", "x w", pads=[1, 1]), W, 17, "attribute pads has 2 numbers, 4 are needed"),
    "conv_negative_pads": (op("Conv", "x w", pads=[0, 0, 0, -1]), W, 17, "are not possible"),
    "conv_auto_pad": (op("Conv", "x w", auto_pad="BEST"), W, 17, "auto_pad 'BEST' is not known"),
    "conv_too_large": (op("Conv", "x w"), {"w": floats(2, 4, 9, 9)}, 17, "larger than the padded input"),
    "integer_operand": (op("Add", "x w"), {"w": np.ones(6, np.int32)}, 17, "of type int32; only float32 is computed"),
    "transposed_groups": (op("ConvTranspose", "x w", group=3), {"w": floats(4, 2, 3, 3)}, 17, "with 3 groups"),
    "transposed_shape": (op("ConvTranspose", "x w", output_shape=[3]), {"w": floats(4, 2, 3, 3)}, 17, "output_shape"),
    "pool_pads": (op("MaxPool", "x", kernel_shape=[2, 2], pads=[2, 2, 2, 2]), {}, 17, "not smaller than the kernel"),
    "pool_large": (op("MaxPool", "x", kernel_shape=[9, 9]), {}, 17, "larger than the padded input (6, 6)"),
    "pool_dilated": (op("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 2]), {}, 19, "dilation is not"),
    "depth_to_space": (op("DepthToSpace", "x", blocksize=3), {}, 17, "blocksize 3, mode 'DCR' does not fit"),
    "resize_mode": (op("Resize", "x - s", mode="cubic"), {"s": DOUBLE}, 17, "mode 'cubic' is not supported"),
    "resize_linear_channels": (op("Resize", "x - s", mode="linear"), {"s": F([1, 2, 2, 2])}, 17, "linear resizing of"),
    "resize_coordinates": (op("Resize", "x - s", coordinate_transformation_mode="odd"), {"s": DOUBLE}, 17, "'odd'"),
    "resize_rounding": (op("Resize", "x - s", nearest_mode="odd"), {"s": DOUBLE}, 17, "nearest_mode 'odd'"),
    "resize_antialias": (op("Resize", "x - s", mode="linear", antialias=1), {"s": F([1, 1, 0.5, 0.5])}, 18, "alias"),
    "resize_scales": (op("Resize", "x - s"), {"s": F([1, 1, -2, 2])}, 17, "do not fit 4 axes"),
    "resize_dynamic": (op("Resize", "x - x"), {}, 17, "its scales is not constant"),
    "resize_empty": (op("Resize", "x - s"), {"s": F([1, 1, 0.1, 1])}, 17, "its result is empty along axis 2"),
    "resize_huge": (op("Resize", "x - s"), {"s": F([1, 1, 1e9, 1])}, 17, "resizes an axis to"),
    "resize_crop": (op("Resize", "x r s", coordinate_transformation_mode="tf_crop_and_resize"),
                    {"s": DOUBLE, "r": F([0, 0, 0, 0, 1, 1, 2, 1])}, 17, "region of interest leaves the"),
    "resize_roi": (op("Resize", "x r s", coordinate_transformation_mode="tf_crop_and_resize"),
                   {"s": DOUBLE, "r": F([0, 1])}, 17, "region of interest has 2 numbers"),
    "resize_policy": (op("Resize", "x - - s", keep_aspect_ratio_policy="odd"), {"s": [1, 4, 9, 9]}, 18, "policy 'odd'"),
    "clip_bounds": (op("Clip", "x x"), {}, 17, "its lower bound is not constant"),
    "clip_list": (op("Clip", "x l"), {"l": floats(3)}, 17, "its lower bound has 3 elements instead of one"),
    "clip_nan": (op("Clip", "x l"), {"l": F(np.nan)}, 17, "a bound is not a number"),
    "gelu": (op("Gelu", "x", approximate="odd"), {}, 20, "approximate 'odd' is not known"),
    "prelu": (op("PRelu", "x s"), {"s": floats(6, 1)}, 17, "slopes of shape [6, 1]"),
    "broadcast": (op("Add", "x c"), {"c": floats(5)}, 17, "do not broadcast"),
    "division": (op("Div", "x x"), {}, 17, "its divisor is not constant"),
    "power": (op("Pow", "x x"), {}, 17, "base or exponent is not constant"),
    "power_base": (op("Pow", "c x"), {"c": F(-2)}, 17, "its base -2.0 is not positive"),
    "matmul": (op("MatMul", "x w"), {"w": floats(5, 3)}, 17, "dense"),
    "matmul_scalar": (op("MatMul", "x w"), {"w": floats()}, 17, "a factor is a scalar"),
    "gemm": (op("Gemm", "x w"), {"w": floats(5, 3)}, 17, "factors of shape [1, 4, 6, 6] and [5, 3] do not fit"),
    "batch_norm": (op("BatchNormalization", "x s s s s"), {"s": floats(3)}, 17, "do not fit 4 channels"),
    "batch_norm_training": (op("BatchNormalization", "x s s s s", training_mode=1), {"s": floats(4)}, 17, "training"),
    "softmax_axis": (op("Softmax", "x", axis=7), {}, 17, "axis 7 is out of range for rank 4"),
    "argmax_last": (op("ArgMax", "x", select_last_index=1), {}, 17, "select_last_index is not supported"),
    "dropout": (op("Dropout", "x r t"), {"r": F(0.5), "t": np.array(True)}, 17, "training_mode is not supported"),
    "cast": (op("Cast", "x", to=7), {}, 17, "a cast of float32"),
    "reshape": (op("Reshape", "x s"), {"s": [5, -1]}, 17, "shape [1, 4, 6, 6] cannot become [5, -1]"),
    "reshape_copies": (op("Reshape", "x s"), {"s": [1, 4, 6, 6, 0]}, 17, "copies an axis"),
    "reshape_dynamic": (op("Reshape", "x x"), {}, 17, "its shape is not constant"),
    "reshape_floats": (op("Reshape", "x s"), {"s": floats(2)}, 17, "its shape is of type float32"),
    "flatten": (op("Flatten", "x", axis=5), {}, 17, "axis 5 is out of range"),
    "squeeze": (op("Squeeze", "x a"), {"a": [1]}, 17, "are not all of size 1"),
    "unsqueeze": (op("Unsqueeze", "x a"), {"a": [1, 1]}, 17, "axes (1, 1) repeat"),
    "transpose": (op("Transpose", "x", perm=[0, 1, 1, 2]), {}, 17, "is not a permutation"),
    "expand": (op("Expand", "x s"), {"s": [5]}, 17, "does not broadcast to [5]"),
    "tile": (op("Tile", "x r"), {"r": [1, 0, 1, 1]}, 17, "repeats (1, 0, 1, 1) do not fit"),
    "concat": (op("Concat", "x c", axis=1), {"c": floats(1, 4, 5, 6)}, 17, "concat"),
    "split": (op("Split", "x s", axis=1), {"s": [3]}, 17, "parts (3,) do not fit"),
    "slice": (op("Slice", "x s e"), {"s": [1, 2], "e": [3]}, 17, "do not fit together"),
    "slice_empty": (op("Slice", "x s e"), {"s": [1], "e": [1]}, 17, "its result is empty along axis 0"),
    "pad_mode": (op("Pad", "x p", mode="wrap"), {"p": [0, 0, 1, 1, 0, 0, 1, 1]}, 19, "mode 'wrap' is not supported"),
    "pad_value": (op("Pad", "x p v"), {"p": [0] * 8, "v": F(np.inf)}, 17, "the padding value inf is not finite"),
    "pad_count": (op("Pad", "x p"), {"p": [0] * 6}, 17, "6 pads for 4 axes"),
    "gather_table": (op("Gather", "w i"), {"w": floats(5, 3)}, 17, "look up tables outside"),
    "gather_range": (op("Gather", "x i", axis=1), {"i": [4]}, 17, "leave the range of an axis of 4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    node, constants, opset, message = REFUSED[case]
    nodes = [node]
    if case == "gather_table":
        nodes.insert(0, op("ArgMax", "x", "i", axis=1))
    with pytest.raises(UnsupportedError) as caught:
        load(model(nodes, IMAGE, constants, opset=opset))
    assert message in str(caught.value)
    assert [item.hint for item in caught.value.items if not item.hint] == []
    assert len(caught.value.items) == 1


@pytest.mark.parametrize("axes", [{}, {"a": [0, 1]}])
def test_padding_a_constant_too_far(axes: dict[str, list[int]]) -> None:
    """Ten gigabytes."""
    nodes = [op("Pad", "c p -" + "".join(f" {name}" for name in axes), "k"), op("Add", "x k")]
    with pytest.raises(UnsupportedError, match=r"Pad 'k': its constant result has more than \d+ elements"):
        load(model(nodes, {"x": (1, 1)}, {"c": floats(1, 1), "p": [50000, 50000, 0, 0], **axes}, opset=18))


def test_images_with_three_axes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="only one or two spatial axes"):
        load(model(op("Conv", "x w"), {"x": (1, 2, 4, 4, 4)}, {"w": floats(2, 2, 3, 3, 3)}))


def test_all_offending_nodes_are_listed_at_once() -> None:
    nodes = [
        op("LayerNormalization", "x s", "a", name="norm"), op("Relu", "a", "b"),
        op("Reshape", "b bad", "c", name="shape"), op("NonZero", "c", "d"),
        op("QuantizeLinear", "x q", "e"), op("DequantizeLinear", "e q", "f"), op("Relu", "f", "g"),
        op("Slice", "x x x", "h", name="cut"), op("Softmax", "h", "y"), op("LSTM", "h r r", "z"),
    ]
    constants = {"s": floats(6), "bad": [5], "q": F(0), "r": floats(1)}
    with pytest.raises(UnsupportedError) as caught:
        load(model(nodes, IMAGE, constants, outputs="d g y z"))
    found = [(item.op, item.node) for item in caught.value.items]
    assert found == [("LayerNormalization", "norm"), ("Reshape", "shape"), ("NonZero", "d"), ("QuantizeLinear", "e"),
                     ("DequantizeLinear", "f"), ("Slice", "cut"), ("LSTM", "z")]
    lines = str(caught.value).splitlines()
    assert lines[0] == "ONNX model: 7 unsupported nodes"
    assert lines[1].startswith("  LayerNormalization 'norm': ")


def test_output_that_no_importer_gives() -> None:
    with pytest.raises(UnsupportedError, match="its output 'i' is not supported"):
        load(model(op("MaxPool", "x", "y i", kernel_shape=[2, 2]), IMAGE, outputs="y i"))


def test_constant_node_that_cannot_be_evaluated() -> None:
    nodes = [op("Concat", "a b", "c", axis=0), op("Reshape", "x c")]
    with pytest.raises(UnsupportedError, match="its constant inputs cannot be evaluated"):
        load(model(nodes, IMAGE, {"a": [1], "b": np.ones((2, 2), np.int64)}))


def test_huge_constants_are_not_evaluated() -> None:
    nodes = [op("ConstantOfShape", "s", "c"), op("Add", "x c")]
    with pytest.raises(UnsupportedError, match="more than 268435456 elements"):
        load(model(nodes, IMAGE, {"s": [2**40]}))


def error(proto: Any, **arguments: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(proto, **arguments)
    assert not isinstance(caught.value, UnsupportedError)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


RELU = op("Relu", "x")


def test_unreadable_files(tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    assert str(error(missing)) == f"{missing}: cannot be read (No such file or directory). Hint: check the path"
    assert "cannot be read (Is a directory)" in str(error(tmp_path))
    cut = model(RELU, IMAGE).SerializeToString()[:-9]
    for name, data in {"empty": b"", "text": b"this is not a model, it is prose", "cut": cut}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        message = str(error(path))
        assert message.startswith(f"{path}: is not an ONNX file")


def test_only_paths_bytes_and_models_are_taken() -> None:
    with pytest.raises(ModelError, match=r"a model cannot be of type int\. Hint: give a path, bytes, an onnx\.Model"):
        load(3)  # type: ignore[arg-type]


def test_name_defaults_to_the_stem(tmp_path: Path) -> None:
    path = tmp_path / "my_net.onnx"
    onnx.save(model(RELU, IMAGE), path)
    assert load(path).name == "my_net"
    assert load(str(path), name="other").name == "other"
    assert load(path.read_bytes()).name == "tiny"


def test_external_weights(tmp_path: Path) -> None:
    proto = model(op("Add", "x w"), IMAGE, {"w": floats(4, 6, 6)})
    path = tmp_path / "external.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert load(path).constants["w"].shape == (1, 4, 6, 6)
    assert "its weights are in another file" in str(error(path.read_bytes()))
    (tmp_path / "weights.bin").write_bytes(b"short")
    assert f"{path}: " in str(error(path))
    (tmp_path / "weights.bin").unlink()
    assert "its external weights cannot be read" in str(error(path))


def test_opset_out_of_range() -> None:
    assert "is of opset 6, the oldest that can be read is 7" in str(error(model(RELU, IMAGE, opset=6)))
    assert "is of opset 999" in str(error(model(RELU, IMAGE, opset=999)))


def test_dynamic_inputs() -> None:
    proto = model(RELU, IMAGE)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    proto.graph.input[0].type.tensor_type.shape.dim[3].ClearField("dim_value")
    found = error(proto)
    assert found.what == "input 'x' has no fixed size along axis 0 ('batch'), axis 3 ('?')"
    assert "onnx.tools.update_model_dims" in found.hint
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert "input 'x' has no shape" in str(error(proto))
    assert "impossible shape [1, -4]" in str(error(model(RELU, {"x": (1, -4)})))
    assert "impossible shape" in str(error(model(RELU, {"x": (1, 2**40)})))


def test_inputs_of_other_types() -> None:
    proto = model(RELU, IMAGE)
    for kind, name in ((onnx.TensorProto.INT64, "int64"), (onnx.TensorProto.UINT8, "uint8"), (99, "unknown")):
        proto.graph.input[0].type.tensor_type.elem_type = kind
        assert f"input 'x' is of type {name}; inputs are float32" in str(error(proto))


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_other_float_inputs_become_float32(kind: int) -> None:
    proto = model(RELU, IMAGE)
    proto.graph.input[0].type.tensor_type.elem_type = kind
    assert load(proto).types["x"].dtype == "float32"


def test_wiring() -> None:
    cycle = model([op("Add", "x b", "a", name="first"), op("Relu", "a", "b", name="second"), op("Relu", "b")], IMAGE)
    assert "its graph has a cycle through 'first', 'second'" in str(error(cycle))
    assert "Add 'y' reads 'z', which nothing defines" in str(error(model(op("Add", "x z"), IMAGE)))
    assert "value 'y' is defined twice" in str(error(model([RELU, RELU], IMAGE)))
    assert "output 'z' is not defined by any node" in str(error(model(RELU, IMAGE, outputs="z")))
    assert "output 'y' appears twice" in str(error(model(RELU, IMAGE, outputs="y y")))
    assert "output 'c' does not depend on any input" in str(error(model(RELU, IMAGE, {"c": floats(2)}, outputs="c")))
    assert "output 'x' is an input" in str(error(model(RELU, IMAGE, outputs="x")))
    assert "it has no input" in str(error(model(op("Relu", "c"), {}, {"c": floats(2)})))
    no_output = model(RELU, IMAGE)
    del no_output.graph.output[:]
    assert "it has no output" in str(error(no_output))
    twice = model(RELU, IMAGE)
    twice.graph.input.append(twice.graph.input[0])
    assert "input 'x' appears twice" in str(error(twice))


def test_broken_initializers() -> None:
    proto = model(op("Add", "x w"), IMAGE, {"w": floats(4, 6, 6)})
    weights = proto.graph.initializer[0]
    weights.dims[0] = 5
    assert "initializer 'w' cannot be read" in str(error(proto))
    weights.dims[0] = -1
    assert "initializer 'w' cannot be read (negative size)" in str(error(proto))
    weights.dims[0] = 4
    proto.graph.initializer.append(weights)
    assert "initializer 'w' appears twice" in str(error(proto))
    sparse = model(RELU, IMAGE)
    sparse.graph.sparse_initializer.add()
    assert "sparse weights" in str(error(sparse))
    for value in (np.nan, np.inf):
        broken = floats(4, 6, 6)
        broken[1, 2, 3] = value
        assert "constant 'w' holds NaN, infinity" in str(error(model(op("Add", "x w"), IMAGE, {"w": broken})))
    large = model(op("Add", "x w"), IMAGE, {"w": np.full(6, 1e300)})
    assert "numbers too large for float32" in str(error(large))


def test_recursive_functions() -> None:
    call = op("F", "x", domain="local")
    proto = model(call, IMAGE)
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    proto.functions.append(onnx.helper.make_function("local", "F", ["x"], ["y"], [call], imports))
    proto.opset_import.append(imports[1])
    assert "its local functions cannot be inlined" in str(error(proto))


def test_names_that_are_not_text() -> None:
    data = model(op("Relu", "x", name="@@@@"), IMAGE).SerializeToString().replace(b"@@@@", b"\xff\xfe\x80\x81")
    assert "names that are not text" in str(error(data))


def small_network() -> onnx.ModelProto:
    """One node of most kinds, so that damage meets every importer."""
    nodes = [
        op("Conv", "x w b", "c", pads=[1, 1, 1, 1], kernel_shape=[3, 3]), op("BatchNormalization", "c b b b b", "n"),
        op("MaxPool", "n", "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        op("Resize", "p - scales", "u", mode="linear"), op("ConvTranspose", "u w", "t", strides=[2, 2]),
        op("Slice", "t starts ends axes", "s"), op("Shape", "s", "sh"), op("ConstantOfShape", "sh", "z"),
        op("Add", "s z", "a"), op("Split", "a", "l r", axis=3), op("Concat", "l r", "k", axis=1),
        op("ReduceMean", "k", "m", axes=[2, 3], keepdims=0), op("Gemm", "m g", "f", transB=1), op("Softmax", "f", "y"),
    ]
    constants = {"w": floats(4, 4, 3, 3), "b": floats(4, low=0.1), "scales": F([1, 1, 2, 2]), "starts": [1, 0],
                 "ends": [9, 8], "axes": [2, 3], "g": floats(3, 8)}
    return model(nodes, {"x": (1, 4, 5, 5)}, constants)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_never_end_in_another_exception(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    whole = small_network().SerializeToString()
    load(whole)
    for _ in range(75):
        data = bytearray(whole)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.choice((1, 1, 3, 10))):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(QccError):
            load(bytes(data))
