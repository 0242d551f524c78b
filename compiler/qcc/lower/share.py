"""One function for several kernels: those that differ only in numbers that their code does not depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qcc.lower.kernel import Kernel, View

ANY = (2**31 - 1,)
"""Shape of an operand whose extents the function is told, or does not need to know."""


def share(
    kernels: Iterable[Kernel], numbers: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[Kernel, tuple[int, ...]]]:
    """(kernel, arguments) for each kernel, by its digest.

    ``numbers`` are the parameters by compute that may be arguments; other computes are left as they are. Those that
    differ among the kernels of a group become None in the kernel that they share, whose function takes them in their
    order there. The sizes of its work memory are 0: each kernel has its own.
    """
    groups: dict[object, list[Kernel]] = {}
    for kernel in {k.digest: k for k in kernels}.values():
        if kernel.compute not in numbers:
            groups[kernel.digest] = [kernel]
            continue
        free = (*numbers[kernel.compute], "work")
        fixed = tuple((key, None if key in free else value) for key, value in kernel.params)
        pointers = tuple((o.key, o.role, o.view.dtype) for o in kernel.operands)
        groups.setdefault((kernel.compute, fixed, pointers), []).append(kernel)
    found: dict[str, tuple[Kernel, tuple[int, ...]]] = {}
    for group in groups.values():
        first = group[0]
        if first.compute not in numbers:
            found[first.digest] = first, ()
            continue
        different = {key for key in numbers[first.compute] if any(k.get(key) != first.get(key) for k in group)}
        params = {key: None if key in different else value for key, value in first.params}
        params["work"] = tuple((name, dtype, 0) for name, dtype, _ in first.param("work"))
        operands = tuple(replace(o, view=View(ANY, (1,), o.view.dtype)) for o in first.operands)
        shared = Kernel(first.compute, tuple(params.items()), operands)
        for kernel in group:
            found[kernel.digest] = shared, tuple(int(v) for key, v in kernel.params if key in different)
    return found
