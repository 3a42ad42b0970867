"""Recurrent layers: the state is produced, recurred and passed on; gates are stacked."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from netxform.axes.algebra import Dim, Lock, concat, fresh, unify
from netxform.axes.rules.context import Context, Typed, need
from netxform.axes.rules.registry import layer


@layer("RNN LSTM GRU")
def _recurrent(t: Context, module: nn.Module, input: Typed, hx: Any = None) -> Any:
    """Gates are stacked; the state of one direction of one layer is one axis, produced, recurred and passed on."""
    cell = cast(nn.LSTM, module)
    gates = {"LSTM": 4, "GRU": 3}.get(type(module).__name__, 1)
    t.touch(input)
    inner = input.dims[-1]
    t.attribute("input_size", inner)
    final: list[Dim] = []
    cells: list[Dim] = []
    for k in range(cell.num_layers):
        ends: list[Dim] = []
        for suffix in ("", "_reverse")[: 2 if cell.bidirectional else 1]:
            w_ih, w_hh = (need(t, f"weight_{w}_l{k}{suffix}") for w in ("ih", "hh"))
            state = fresh(cell.hidden_size)
            stacked: Dim = fresh(gates, Lock("gates", t.at)) + state
            projected = t.tensor(f"weight_hr_l{k}{suffix}")
            end = state
            for tensor in (w_ih, w_hh, *(t.tensor(f"bias_{b}_l{k}{suffix}") for b in ("ih", "hh"))):
                if tensor is not None:
                    t.touch(tensor)
                    unify(tensor.dims[0], stacked, t.at)
            if projected is not None:
                t.touch(projected)
                end = projected.dims[0]
                t.contract(projected, 1, Typed([state], (cell.hidden_size,)), 0)
                t.attribute("proj_size", end)
            t.contract(Typed([inner], w_ih.shape[1:]), 0, w_ih, 1)
            t.contract(Typed([end], w_hh.shape[1:]), 0, w_hh, 1)
            t.attribute("hidden_size", state)
            ends.append(end)
            cells.append(state)
        final += ends
        inner = concat(ends)
    # the initial states are given from outside, or zeros
    given = [v for v in (hx if isinstance(hx, list | tuple) else [hx]) if isinstance(v, Typed)]
    for value, own in zip(given, (final, cells), strict=False):
        t.touch(value)
        for dim in own:
            unify(value.dims[-1], dim, t.at)
    shapes = t.shape
    out = Typed([*input.dims[:-1], inner], shapes[0], input.dtype)
    hidden = shapes[1] if isinstance(shapes[1][0], int) else None

    def last(shape: tuple[int, ...], dims: list[Dim]) -> Typed:
        for dim in dims[1:]:  # stacked along the first dimension: one axis for all
            if len(dims) > 1:
                unify(dims[0], dim, t.at)
        middle = [input.dims[0 if cell.batch_first else 1]] if len(shape) == 3 else []
        return Typed([fresh(shape[0], Lock("stack", t.at)), *middle, dims[0]], shape, input.dtype)

    read = t.read_items()
    if hidden is not None:
        return (out, last(hidden, final) if 1 in read else None)
    pair = shapes[1]
    if 1 in read:
        return (out, (last(pair[0], final), last(pair[1], cells)))
    return (out, None)


@layer("RNNCell GRUCell LSTMCell")
def _cell(t: Context, module: nn.Module, input: Typed, hx: Any = None) -> Any:
    """One step: the state is produced, and summed over when it comes back."""
    cell = cast(nn.LSTMCell, module)
    gates = {"LSTMCell": 4, "GRUCell": 3}.get(type(module).__name__, 1)
    state = fresh(cell.hidden_size)
    stacked: Dim = fresh(gates, Lock("gates", t.at)) + state
    w_ih, w_hh = need(t, "weight_ih"), need(t, "weight_hh")
    t.touch(input)
    for tensor in (w_ih, w_hh, t.tensor("bias_ih"), t.tensor("bias_hh")):
        if tensor is not None:
            t.touch(tensor)
            unify(tensor.dims[0], stacked, t.at)
    t.contract(Typed([input.dims[-1]], w_ih.shape[1:]), 0, w_ih, 1)
    t.contract(Typed([state], w_hh.shape[1:]), 0, w_hh, 1)
    t.attribute("input_size", input.dims[-1])
    t.attribute("hidden_size", state)
    for value in hx if isinstance(hx, list | tuple) else [hx]:
        if isinstance(value, Typed):
            t.touch(value)
            unify(value.dims[-1], state, t.at)

    def made(shape: tuple[int, ...]) -> Typed:
        return Typed([*input.dims[:-1], state], shape, input.dtype)

    return tuple(made(s) for s in t.shape) if type(module) is nn.LSTMCell else made(t.shape)
