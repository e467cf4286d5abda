"""Models built by copying the form of one: without initial weights, which cost more time than reading trained ones.

Their tensors may be filled while a checkpoint's bytes come in: each piece is copied where it belongs, and the whole is
never in memory. After the last piece the caller decides whether they may be used.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from shards.learners.torch.checkpoint import header_of_model, kinds_of, model_tensors, tensor_for
from shards.learners.torch.engines.replay import is_of_torch

_Span = tuple[int, int, npt.NDArray[np.uint8]]
"""Where in the payload a tensor begins and ends, and its memory."""


def form_of(model: nn.Module) -> nn.Module | None:
    """Return the model, which is used up, without the memory of its tensors; None unless it is of torch's own modules.

    Code of others may keep values elsewhere, such as drawn ones, or depend on how it is built.
    """
    return model.to("meta").eval() if is_of_torch(model) else None


def filled(form: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """Return a model of this form whose tensors are ``tensors``; None if names, shapes or types are not the form's."""
    if kinds_of(model_tensors(form)) != kinds_of(tensors):
        return None
    memo: dict[int, object] = {}
    for name, parameter in form.named_parameters(remove_duplicate=False):
        memo[id(parameter)] = nn.Parameter(tensors[name], requires_grad=parameter.requires_grad)
    for name, buffer in form.named_buffers(remove_duplicate=False):
        memo[id(buffer)] = tensors[name]
    return copy.deepcopy(form, memo)


def model_of_pieces(pieces: Iterable[memoryview]) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a checkpoint's model by name, each in its own memory.

    A piece may be overwritten once the next one is requested. Returns None if ``decode_model`` has to decide: the
    pieces are not a checkpoint, or not one that can be opened without its model. Takes all pieces otherwise.
    """
    coming = iter(pieces)
    try:
        start, header, first = _header(coming)
        entries = header_of_model(header)
        if entries is None:
            return None
        tensors = {name: tensor_for(entry) for name, entry in entries.items()}
        targets = _targets(start, entries, tensors)
        length = start + max((entry["data_offsets"][1] for name, entry in header.items() if _is_tensor(name)))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    return tensors if _filled(targets, chain((memoryview(first),), coming)) == length else None


def _header(coming: Iterator[memoryview]) -> tuple[int, Mapping[str, Any], bytes]:
    """Return where tensors begin, the header, and the pieces that were taken for it, together."""
    taken = b"".join(_until(coming, 8))
    start = 8 + int.from_bytes(taken[:8], "little")
    taken += b"".join(_until(coming, start - len(taken)))
    header: Mapping[str, Any] = json.loads(taken[8:start])
    return start, header, taken


def _until(coming: Iterator[memoryview], size: int) -> Iterator[bytes]:
    """Yield pieces until they have ``size`` bytes."""
    while size > 0 and (piece := next(coming, None)) is not None:
        size -= len(piece)
        yield bytes(piece)


def _is_tensor(name: str) -> bool:
    return name != "__metadata__"


def _targets(start: int, entries: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, torch.Tensor]) -> list[_Span]:
    """Return where each tensor's bytes go, in the order of the payload."""
    spans = [
        (start + entry["data_offsets"][0], start + entry["data_offsets"][1], name) for name, entry in entries.items()
    ]
    spans = sorted(span for span in spans if span[0] < span[1])
    if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
        raise ValueError("two tensors share bytes")
    return [(begin, end, tensors[name].reshape(-1).view(torch.uint8).numpy()) for begin, end, name in spans]


def _filled(targets: list[_Span], pieces: Iterable[memoryview]) -> int:
    """Copy the pieces into the tensors; return how many bytes came in."""
    at, waiting = 0, iter(targets)
    target = next(waiting, None)
    for piece in pieces:
        stop = at + len(piece)
        while target is not None and target[0] < stop:
            begin, end, memory = target
            first, last = max(begin, at), min(end, stop)
            memory[first - begin : last - begin] = np.frombuffer(piece, np.uint8, last - first, first - at)
            if last < end:
                break  # the rest is in the next piece
            target = next(waiting, None)
        at = stop
    return at
