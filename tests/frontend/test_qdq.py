"""Quantized ONNX files, as ONNX Runtime writes them: each operator within one step, and the file's own integers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_support import floats, model, op
from onnxruntime.quantization import quantize_dynamic
from qdq_support import TYPES, compiled, feeds, quantized, steps_off

from qcc import numerics
from qcc.errors import CalibrationError, ModelError, QccError
from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_integer
from qcc.ir.verify import verify

F = np.float32
IMAGE = {"x": (1, 4, 6, 7)}
CONV = {"w": floats(5, 4, 3, 3, seed=1), "b": floats(5, seed=2)}
FIRST = op("Conv", "x w b", "c")
"""In front of operators that ONNX Runtime quantizes only beside others."""

MODELS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "conv": (op("Conv", "x w b", pads=[1] * 4), IMAGE, CONV),
    "conv_without_bias": (op("Conv", "x w", strides=[2, 2]), IMAGE, {"w": CONV["w"]}),
    "conv_relu": ([op("Conv", "x w b", "c"), op("Relu", "c")], IMAGE, CONV),
    "conv_relu6": ([op("Conv", "x w b", "c"), op("Clip", "c lo hi")], IMAGE, {**CONV, "lo": F(0), "hi": F(6)}),
    "depthwise": (op("Conv", "x w b", group=4), IMAGE, {"w": floats(4, 1, 3, 3), "b": floats(4)}),
    "conv_transpose": (op("ConvTranspose", "x w b", strides=[2, 2]), IMAGE, {"w": floats(4, 5, 3, 3), "b": floats(5)}),
    "residual": ([op("Conv", "x w b", "c", pads=[1] * 4), op("Add", "c x", "s"), op("Relu", "s")], IMAGE,
                 {"w": floats(4, 4, 3, 3, seed=1), "b": floats(4)}),
    "gemm": (op("Gemm", "x w b", transB=1), {"x": (3, 12)}, {"w": floats(5, 12), "b": floats(5)}),
    "gemm_untransposed": (op("Gemm", "x w b"), {"x": (3, 12)}, {"w": floats(12, 5), "b": floats(5)}),
    "matmul": (op("MatMul", "x w"), {"x": (2, 3, 12)}, {"w": floats(12, 5)}),
    "matmul_bias": ([op("MatMul", "x w", "m"), op("Add", "m b")], {"x": (3, 12)}, {"w": floats(12, 5), "b": floats(5)}),
    "matmul_of_two": (op("MatMul", "x z"), {"x": (2, 3, 6), "z": (2, 6, 5)}, {}),
    "add": (op("Add", "x z"), {"x": (2, 9), "z": (2, 9)}, {}),
    "add_constant": (op("Add", "x c"), {"x": (2, 9)}, {"c": floats(9)}),
    "mul": (op("Mul", "x z"), {"x": (2, 9), "z": (2, 9)}, {}),
    "mul_constant": (op("Mul", "x c"), {"x": (2, 9)}, {"c": floats(2, 9)}),
    "average_pool": ([FIRST, op("AveragePool", "c", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)], IMAGE, CONV),
    "global_average_pool": ([FIRST, op("GlobalAveragePool", "c")], IMAGE, CONV),
    "max_pool": ([FIRST, op("MaxPool", "c", kernel_shape=[2, 2], strides=[2, 2])], IMAGE, CONV),
    "concat": (op("Concat", "x z", axis=1), {"x": (1, 4, 6, 7), "z": (1, 3, 6, 7)}, {}),
    "concat_of_different": ([op("Sigmoid", "x", "s"), op("Concat", "s z", axis=1)],
                            {"x": (1, 4, 6, 7), "z": (1, 3, 6, 7)}, {}),
    "sigmoid": (op("Sigmoid", "x"), {"x": (2, 200)}, {}),
    "leaky_relu": (op("LeakyRelu", "x", alpha=0.1), {"x": (2, 200)}, {}),
    "softmax": (op("Softmax", "x"), {"x": (2, 9)}, {}),
    "pad_conv": ([op("Pad", "x p", "q"), op("Conv", "q w b")], IMAGE, {**CONV, "p": [0, 0, 1, 2, 0, 0, 1, 0]}),
    "flatten_gemm": ([op("MaxPool", "x", "m", kernel_shape=[2, 2], strides=[2, 2]), op("Flatten", "m", "f"),
                      op("Gemm", "f w b", transB=1)], IMAGE, {"w": floats(5, 36), "b": floats(5)}),
    "split": ([op("Split", "x", "a b", axis=1), op("Mul", "a b")], IMAGE, {}),
    "resize": ([FIRST, op("Resize", "c - s", mode="nearest")], IMAGE, {**CONV, "s": np.array([1, 1, 2, 2], F)}),
    "transpose": ([FIRST, op("Transpose", "c", perm=[0, 2, 3, 1])], IMAGE, CONV),
}  # fmt: skip
FORMED = ("conv", "conv_relu", "depthwise", "residual", "gemm", "matmul", "add", "mul", "average_pool", "max_pool",
          "global_average_pool", "concat", "sigmoid", "leaky_relu", "softmax")  # fmt: skip
"""Those for which ONNX Runtime has an operator form."""


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("name", MODELS)
def test_within_one_step(name: str, types: str, per_channel: bool, tmp_path: Path) -> None:
    proto = quantized(model(*MODELS[name]), tmp_path, types, per_channel)
    assert any(n.op_type == "QuantizeLinear" for n in proto.graph.node)
    # Weights of uint8 that lie further than 127 from their zero point have to be rounded.
    assert steps_off(proto, compiled(proto)) <= (3.01 if types == "u8u8" else 1.01)


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("name", FORMED)
def test_operator_form_within_one_step(name: str, types: str, tmp_path: Path) -> None:
    proto = quantized(model(*MODELS[name], opset=13), tmp_path, types, operators=True)
    assert any(n.op_type.startswith("Q") for n in proto.graph.node)
    assert steps_off(proto, compiled(proto)) <= (3.01 if types == "u8u8" else 1.01)


def constant(proto: onnx.ModelProto, name: str) -> Any:
    return next(onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name)


def test_the_files_integers_and_parameters_are_kept(tmp_path: Path) -> None:
    proto = quantized(model(*MODELS["conv"]), tmp_path)
    program = compiled(proto)
    (layer,) = [n for n in program.nodes if n.op == "conv2d"]
    weights = program.types[layer.inputs["w"]].qparams
    np.testing.assert_array_equal(program.constants[layer.inputs["w"]],
                                  constant(proto, "w_quantized").transpose(0, 2, 3, 1))
    assert weights is not None
    np.testing.assert_array_equal(np.array(weights.scale, F), constant(proto, "w_scale"))
    np.testing.assert_array_equal(program.constants[layer.inputs["b"]], constant(proto, "b_quantized"))
    for value, name in ((layer.inputs["x"], "x"), (layer.output, "y")):
        q = program.types[value].qparams
        assert q is not None
        assert np.float32(q.step) == constant(proto, f"{name}_scale")
        assert q.zero_point == int(constant(proto, f"{name}_zero_point")) - 128


def test_clip_behind_a_quantized_layer_is_absorbed() -> None:
    """Relu between two quantizations with the same parameters: one layer, clamped at zero."""
    nodes = [op("QuantizeLinear", "x s z", "xq"), op("DequantizeLinear", "xq s z", "xr"), op("Conv", "xr w", "c"),
             op("QuantizeLinear", "c s z", "cq"), op("DequantizeLinear", "cq s z", "cr"), op("Relu", "cr", "r"),
             op("QuantizeLinear", "r s z", "rq"), op("DequantizeLinear", "rq s z", "y")]
    proto = model(nodes, IMAGE, {"w": CONV["w"], "s": F(0.05), "z": np.int8(3)})
    program = compiled(proto)
    assert [n.op for n in program.nodes] == ["quantize", "conv2d", "dequantize"]
    assert program.nodes[1].attrs["clamp"] == (3, 127)


def test_other_parameters_behind_the_clip_stay() -> None:
    nodes = [op("QuantizeLinear", "x s z", "xq"), op("DequantizeLinear", "xq s z", "xr"), op("Conv", "xr w", "c"),
             op("QuantizeLinear", "c s z", "cq"), op("DequantizeLinear", "cq s z", "cr"), op("Relu", "cr", "r"),
             op("QuantizeLinear", "r t z", "rq"), op("DequantizeLinear", "rq t z", "y")]
    proto = model(nodes, IMAGE, {"w": CONV["w"], "s": F(0.05), "t": F(0.037), "z": np.int8(3)})
    program = compiled(proto)
    (conv,) = (n for n in program.nodes if n.op == "conv2d")
    multiplier = program.constants[conv.inputs["multiplier"]] / 2.0 ** conv.attrs["shift"]
    weights, after_table = (program.types[v].qparams for v in (conv.inputs["w"], conv.output))
    assert weights is not None
    assert F(0.05) * np.array(weights.scale) / multiplier == pytest.approx(float(F(0.05)))
    assert after_table is not None
    assert after_table.step == float(F(0.037))


def test_quantized_integers_may_move() -> None:
    nodes = [op("QuantizeLinear", "x s z", "q"), op("MaxPool", "q", "m", kernel_shape=[2, 2]),
             op("Pad", "m p v", "d"), op("Transpose", "d", "t", perm=[0, 2, 3, 1]),
             op("DequantizeLinear", "t s z", "y")]
    proto = model(nodes, IMAGE, {"s": F(0.02), "z": np.uint8(100), "p": [0, 0, 1, 1, 0, 0, 0, 0], "v": np.uint8(100)})
    assert steps_off(proto, compiled(proto)) <= 1.01


def test_what_the_file_leaves_out_is_calibrated_or_listed() -> None:
    """A model with quantized weights and input, whose other values are not."""
    nodes = [op("QuantizeLinear", "x s z", "q"), op("DequantizeLinear", "q s z", "r"), op("Conv", "r w", "c"),
             op("Tanh", "c", "t"), op("Conv", "t v", "y")]
    proto = model(nodes, IMAGE, {"w": CONV["w"], "v": floats(2, 5, 1, 1), "s": F(0.02), "z": np.int8(0)})
    with pytest.raises(CalibrationError, match=r"does not quantize 3 values: .*\by\b") as caught:
        compiled(proto)
    assert "--calib" in caught.value.hint
    samples = [feed["x"] for feed in feeds(proto, 8)]
    verify(compiled(proto, calib=samples))


def test_dynamic_quantization_becomes_static() -> None:
    """DynamicQuantizeLinear and MatMulInteger: the weights are kept, the input's range comes from calibration."""
    w = np.random.default_rng(0).integers(-127, 128, (12, 5)).astype(np.int8)
    nodes = [op("DynamicQuantizeLinear", "x", "q xs xz"), op("MatMulInteger", "q w xz wz", "i"),
             op("Cast", "i", "f", to=1), op("Mul", "xs ws", "m"), op("Mul", "f m", "g"), op("Add", "g b")]
    constants = {"w": w, "wz": np.int8(0), "ws": np.array([0.01], F), "b": floats(5)}
    proto = model(nodes, {"x": (3, 12)}, constants)
    program = compiled(proto, calib=[feed["x"] for feed in feeds(proto, 8)])
    (layer,) = [n for n in program.nodes if n.op == "dense"]
    np.testing.assert_array_equal(program.constants[layer.inputs["w"]], w.T)
    assert steps_off(proto, program) <= 2.01


def pair(scale: Any, zero: Any, **more: Any) -> Any:
    """A quantized activation."""
    nodes = [op("QuantizeLinear", "x s z", "q", name="bad"), op("DequantizeLinear", "q s z", "y")]
    return model(nodes, IMAGE, {"s": np.asarray(scale, F), "z": np.asarray(zero)}, **more)


def weights(stored: Any, scale: Any, zero: Any, axis: int) -> Any:
    """Quantized weights."""
    nodes = [op("DequantizeLinear", "w s z", "v", axis=axis, name="bad"), op("Conv", "x v", name="conv")]
    return model(nodes, IMAGE, {"w": stored, "s": np.asarray(scale, F), "z": np.asarray(zero)})


W8 = np.ones((5, 4, 3, 3), np.int8)
BROKEN = {
    "zero": (pair(0, np.uint8(0)), "its scale is 0.0; scales are positive and finite"),
    "negative": (pair(-0.5, np.uint8(0)), "its scale is -0.5"),
    "nan": (pair(np.nan, np.uint8(0)), "its scale is nan"),
    "infinite": (pair(np.inf, np.uint8(0)), "its scale is inf"),
    "per_channel_activation": (pair([0.1] * 4, np.zeros(4, np.uint8)), "quantizes an activation per channel"),
    "sizes": (pair([0.1] * 4, np.zeros(3, np.uint8)), "4 scales and 3 zero points"),
    "int16": (pair(0.1, np.int16(0), opset=21), "it quantizes to int16"),
    "float_zero_point": (model([op("QuantizeLinear", "c s z", "q", name="bad"), op("DequantizeLinear", "q s z", "r"),
                                op("Add", "x r")], IMAGE, {"c": F(1), "s": F(0.1), "z": F(0)}),
                         "it quantizes to float32"),
    "attribute": (model([op("QuantizeLinear", "x s z", "q"),
                         op("QLinearSoftmax", "q s z s z", "t", domain="com.microsoft", opset="thirteen"),
                         op("DequantizeLinear", "t s z", "y")], IMAGE, {"s": F(0.1), "z": np.int8(0)}),
                  "its attribute opset is not a number"),
    "weight_scale": (weights(W8, 0.0, np.int8(0), 0), "its scale is 0.0"),
    "weight_axis": (weights(W8, [0.1] * 4, np.zeros(4, np.int8), 1), "quantized along axis 1 of [5, 4, 3, 3]"),
    "weight_count": (weights(W8, [0.1] * 4, np.zeros(4, np.int8), 0), "4 scales, but axis 0 of [5, 4, 3, 3] has 5"),
    "weight_rank": (weights(W8, [0.1] * 4, np.zeros(4, np.int8), 7), "axis 7 is out of range for rank 4"),
    "no_quantize": (model([op("DynamicQuantizeLinear", "x", "q s z"), op("DequantizeLinear", "q t z", "y")], IMAGE,
                          {"t": F(0.5)}), "not those that its input was quantized with"),
    "arithmetic": (model([op("QuantizeLinear", "x s z", "q"), op("Add", "q q", "a"),
                          op("DequantizeLinear", "a s z", "y")], IMAGE,
                         {"s": F(0.1), "z": np.int8(0)}), "it computes with quantized integers"),
    "output": (model([op("QuantizeLinear", "x s z")], IMAGE, {"s": F(0.1), "z": np.int8(0)}),
               "output 'y' is made of quantized integers"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_parameters(name: str) -> None:
    proto, message = BROKEN[name]
    with pytest.raises(Exception, match=r"Hint: ") as caught:
        load(proto)
    assert message in str(caught.value), str(caught.value)


def test_extreme_scales_end_in_an_error_or_a_program() -> None:
    """Whatever positive scales a file holds, it is compiled or refused with a hint."""
    w, b = floats(4, 4, 1, 1), floats(4)
    for s in (1e-38, 1e-20, 1e20, 3e38):
        for t in (1e-38, 1e-20, 1e20, 3e38):
            nodes = [op("QuantizeLinear", "x s z", "q"), op("DequantizeLinear", "q s z", "r"), op("Conv", "r w b", "c"),
                     op("Add", "c r", "a"), op("QuantizeLinear", "a t z", "u"), op("DequantizeLinear", "u t z", "y")]
            proto = model(nodes, IMAGE, {"w": w, "b": b, "s": F(s), "t": F(t), "z": np.int8(3)})
            with contextlib.suppress(QccError):
                verify(compiled(proto))



def test_a_bias_out_of_proportion_is_refused() -> None:
    nodes = [op("QuantizeLinear", "x s z", "q"), op("DequantizeLinear", "q s z", "r"), op("Conv", "r w b", "c"),
             op("QuantizeLinear", "c s z", "u"), op("DequantizeLinear", "u s z", "y")]
    constants = {"w": floats(4, 4, 1, 1), "b": floats(4) + F(3e38), "s": F(1e-38), "z": np.int8(0)}
    with pytest.raises(ModelError, match=r"no weight scale keeps its sums within 32 bits.* Hint: "):
        compiled(model(nodes, IMAGE, constants))


def test_a_factor_of_zero_leaves_no_scale() -> None:
    nodes = [op("DequantizeLinear", "w s", "r"), op("Gemm", "x r", alpha=0.0)]
    proto = model(nodes, {"x": (2, 4)}, {"w": np.ones((4, 3), np.int8), "s": F(0.1)})
    (found,) = run_integer(compiled(proto, calib=floats(5, 2, 4)), {"x": floats(2, 4)}).values()
    np.testing.assert_array_equal(found, 0)


def test_uint8_is_moved_exactly() -> None:
    """The int8 program of a uint8 file equals that of the same file in int8."""
    x = feeds(pair(0.02, np.uint8(100)), 1)[0]["x"]
    programs = [compiled(pair(0.02, zero)) for zero in (np.uint8(100), np.int8(-28))]
    first, second = (p.types[p.nodes[0].output].qparams for p in programs)
    assert first == second == numerics.QParams(float(F(0.02)), -28)
    assert x.size


def test_dynamic_file_of_onnx_runtime(tmp_path: Path) -> None:
    """ConvInteger and its scaling, bias and clip are one layer; the weights are the file's."""
    nodes = [op("Conv", "x w b", "c", pads=[1] * 4), op("Relu", "c", "r"), op("GlobalAveragePool", "r", "p"),
             op("Flatten", "p", "f"), op("Gemm", "f v", transB=1)]
    proto = model(nodes, IMAGE, {**CONV, "v": floats(3, 5)}, opset=17)
    onnx.save(proto, tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "dynamic.onnx")
    proto = onnx.load(tmp_path / "dynamic.onnx")
    assert {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"} <= {n.op_type for n in proto.graph.node}
    program = compiled(proto, calib=[feed["x"] for feed in feeds(proto, 16)])
    assert [n.op for n in program.nodes] == ["quantize", "conv2d", "reduce_mean", "reshape", "dense", "dequantize"]
    np.testing.assert_array_equal(program.constants[program.nodes[1].inputs["w"]],
                                  constant(proto, "w_quantized").transpose(0, 2, 3, 1))
    assert steps_off(proto, program) <= 6
