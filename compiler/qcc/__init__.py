"""qcc compiles a float neural network into one int8 program that computes the same bytes on every target.

    model = qcc.compile("model.onnx", target="host", calib=samples, out="build/model")
    y = model(x)
    model = qcc.load("build/model")

Importing qcc is cheap; what code generation needs is imported where it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcc.errors import QccError
    from qcc.pipeline import autotune, compile, quantize
    from qcc.runtime import Model, load
    from qcc.target import Target

    __version__: str

__all__ = ["Model", "QccError", "Target", "__version__", "autotune", "compile", "load", "quantize"]

_HOME = {
    "Model": "qcc.runtime",
    "QccError": "qcc.errors",
    "Target": "qcc.target",
    "autotune": "qcc.pipeline",
    "compile": "qcc.pipeline",
    "load": "qcc.runtime",
    "quantize": "qcc.pipeline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("qcc")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'qcc' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
