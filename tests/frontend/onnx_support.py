"""Tiny ONNX models for the tests, and the comparison with ONNX Runtime."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float
from qcc.ir.graph import Graph
from qcc.ir.verify import verify

Array = NDArray[Any]


def op(op_type: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node; names are separated by blanks, ``-`` leaves an optional input out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), **attributes)


def model(nodes: onnx.NodeProto | Sequence[onnx.NodeProto], inputs: Mapping[str, Sequence[int]],
          constants: Mapping[str, Any] | None = None, opset: int = 17, outputs: str = "y",
          integer_outputs: bool = False) -> onnx.ModelProto:
    """A model with float32 inputs; constants are arrays, or lists of integers (int64)."""
    arrays = {k: np.asarray(v, np.int64 if isinstance(v, list) else None) for k, v in (constants or {}).items()}
    kind = TensorProto.INT64 if integer_outputs else TensorProto.FLOAT
    graph = helper.make_graph(
        [nodes] if isinstance(nodes, onnx.NodeProto) else list(nodes), "tiny",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, list(v)) for k, v in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs.split()],
        [onnx.numpy_helper.from_array(v, k) for k, v in arrays.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def floats(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> NDArray[np.float32]:
    """Uniform random numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def runtime(proto: onnx.ModelProto | bytes, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by ONNX Runtime, without graph optimization, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def check(proto: onnx.ModelProto, tolerance: float = 1e-5, low: float = -3.0, high: float = 3.0) -> Graph:
    """Import and compare with ONNX Runtime on random inputs; ``tolerance`` is relative to the largest output (or 1)."""
    graph = load(proto)
    verify(graph)
    seed = zlib.crc32(proto.SerializeToString())
    print("seed", seed)
    feed = {name: floats(*graph.types[name].shape, seed=seed, low=low, high=high) for name in graph.inputs}
    expected, found = runtime(proto, feed), run_float(graph, feed)
    assert list(found) == list(expected)
    for name, want in expected.items():
        assert found[name].shape == want.shape == graph.types[name].shape
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(found[name], want, rtol=0, atol=tolerance * scale, err_msg=name)
    return graph
