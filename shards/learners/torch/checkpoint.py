"""Checkpoints (E4): everything a resumed run needs to be bit-equal to an uninterrupted one, in safetensors.

Layout: ``model/<name>`` for parameters and all buffers, ``optimizer/<parameter name>/<entry>`` for the optimizer's
tensors; ``base/<name>`` for the digest of a tensor that is as the model's declared files have it; one metadata entry
``lineage`` holds the lineage's canonical JSON. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.optim import Optimizer

from shards.lineage import Lineage
from storage.digests import Sha256, canonical_json
from storage.errors import Corrupt, InvariantBroken

_MODEL: Final = "model/"
_OPTIMIZER: Final = "optimizer/"
_BASE: Final = "base/"
_METADATA: Final = "__metadata__"
_SMALL_BYTES: Final = 1024
"""Tensors up to this size are always stored: a reference would save nothing."""
_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Element types by their names in safetensors; ``decode_model`` leaves others to that library."""
COUNTS: Final = frozenset({"step", "mu_product"})
"""Entries that optimizers keep on the CPU, regardless of the device, and that are one number for each parameter, the
same for all: the count of steps, and what NAdam derives from it."""


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name, including non-persistent buffers, which ``state_dict`` leaves out."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> Sha256:
    """Return the SHA-256 over all tensors in the order of their names.

    Per tensor: canonical JSON of [name, dtype, shape], a line feed, then the elements, little-endian, row-major.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]) + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return Sha256(digest.hexdigest())


def base_digests(model: nn.Module) -> dict[str, Sha256]:
    """Return the digests of a freshly built model's large tensors, by name: see ``encode_checkpoint``."""
    large = {name: tensor for name, tensor in model_tensors(model).items() if tensor.nbytes > _SMALL_BYTES}
    return {name: digest_tensors({"": tensor}) for name, tensor in large.items()}


def encode_checkpoint(
    model: nn.Module, optimizer: Optimizer, lineage: Lineage, base: Mapping[str, Sha256] | None = None
) -> bytes:
    """Return the checkpoint's bytes; the same state gives the same bytes.

    A tensor that still has the digest in ``base`` is not stored, but referenced by that digest.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model_tensors(model).items():
        digest = (base or {}).get(name)
        if digest is not None and digest_tensors({"": tensor}) == digest:
            tensors[_BASE + name] = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)
        else:
            tensors[_MODEL + name] = tensor
    tensors |= _optimizer_tensors(model, optimizer)
    # Cloned: safetensors refuses tensors that share memory, and a view would include its whole storage.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    # One metadata entry only: safetensors does not fix the order of several.
    return save(plain, metadata={"lineage": canonical_json(lineage.record()).decode()})


def state_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return all tensors of a constituent by the names that a checkpoint gives them, as ``put_tensors`` takes them."""
    of_model = {_MODEL + name: tensor for name, tensor in model_tensors(model).items()}
    return of_model | _optimizer_tensors(model, optimizer)


def decode_checkpoint(payload: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint. Raises ``Corrupt`` when ``payload`` is not a checkpoint."""
    try:
        return load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _unreadable() from error


def decode_model(payload: bytes) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a checkpoint's model by name, each in memory of its own; None if ``put_tensors`` is needed.

    Copies each of them once, and nothing else, and without the interpreter's lock: the optimizer's may be twice as
    large. Raises ``Corrupt`` when ``payload`` is not a checkpoint.
    """
    try:
        return _decoded_model(payload)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable() from error


def _decoded_model(payload: bytes) -> dict[str, torch.Tensor] | None:
    start = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:start])
    if max(header[name]["data_offsets"][1] for name in header.keys() - {_METADATA}) != len(payload) - start:
        raise ValueError("the payload is not as long as its header says")
    entries = header_of_model(header)
    return None if entries is None else {name: _copied(payload, start, entry) for name, entry in entries.items()}


def header_of_model(header: Mapping[str, Any]) -> dict[str, Mapping[str, Any]] | None:
    """Return a header's entries of the model's tensors, by name; None if ``put_tensors`` is needed for them."""
    names = header.keys() - {_METADATA}
    if any(name.startswith(_BASE) or header[name]["dtype"] not in _DTYPES for name in names):
        return None
    return {name.removeprefix(_MODEL): header[name] for name in names if name.startswith(_MODEL)}


def _copied(payload: bytes, start: int, entry: Mapping[str, Any]) -> torch.Tensor:
    """Return the tensor that a header's entry describes. Raises ``ValueError`` unless it is as long as that says."""
    begin, end = entry["data_offsets"]
    if end > len(payload) - start:
        raise ValueError("a tensor is not where the header says")
    tensor = tensor_for(entry)
    if tensor.nbytes:
        tensor.reshape(-1).view(torch.uint8).numpy()[:] = np.frombuffer(payload, np.uint8, end - begin, start + begin)
    return tensor


def tensor_for(entry: Mapping[str, Any]) -> torch.Tensor:
    """Return memory for the tensor that a header's entry describes. Raises ``ValueError`` unless its length fits."""
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if not 0 <= begin <= end or end - begin != prod(shape) * dtype.itemsize:
        raise ValueError("a tensor is not where the header says")
    # Memory of its own has the alignment of all tensors, unlike a view of the payload (E7). ``torch.empty`` would fill
    # it with NaN first, as deterministic algorithms want.
    tensor: torch.Tensor = torch.empty(0, dtype=dtype)
    tensor.set_(torch.UntypedStorage(end - begin), 0, shape)  # type: ignore[call-overload]
    return tensor


def _unreadable() -> Corrupt:
    return Corrupt("a checkpoint is not a readable safetensors file", "Run 'sisa train' to rebuild it.")


def checkpoint_lineage(payload: bytes) -> Mapping[str, object]:
    """Return the lineage record in a checkpoint."""
    header_bytes = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + header_bytes])
    lineage: Mapping[str, object] = json.loads(header["__metadata__"]["lineage"])
    return lineage


def put_tensors(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put a checkpoint's tensors into a freshly built model and optimizer.

    Values are copied into new memory, because results depend on alignment, which varies in views of the payload (E7).
    Raises ``Corrupt`` when names, shapes or types are not the model's, as copying might broadcast or round them.
    """
    targets = model_tensors(model)
    stored = {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items() if name.startswith(_MODEL)}
    referenced = {name.removeprefix(_BASE): tensor for name, tensor in tensors.items() if name.startswith(_BASE)}
    own = {name: tensor for name, tensor in targets.items() if name not in referenced}
    if kinds_of(stored) != kinds_of(own) or not referenced.keys() <= targets.keys():
        raise Corrupt("a checkpoint's tensors are not this model's", "Run 'sisa train' to rebuild it.")
    for name, digest in referenced.items():
        if digest_tensors({"": targets[name]}) != bytes(digest.tolist()).hex():
            raise Corrupt(
                f"a checkpoint refers to the tensor {name!r} of the model's files, and the model is built with another",
                "Put the files of [model] files back, or run 'sisa train' to rebuild the checkpoint.",
            )
    with torch.no_grad():
        for name, target in own.items():
            target.copy_(stored[name])
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            parameter_name, _, entry = name.removeprefix(_OPTIMIZER).rpartition("/")
            if parameter_name not in parameters:
                raise Corrupt("a checkpoint's optimizer state is not this model's", "Run 'sisa train' to rebuild it.")
            parameter = parameters[parameter_name]
            device = "cpu" if entry in COUNTS else parameter.device
            optimizer.state[parameter][entry] = tensor.clone().to(device)


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors: dict[str, torch.Tensor] = {}
    for parameter, entries in optimizer.state.items():
        for entry, value in entries.items():
            if value is None:  # sgd without momentum
                continue
            if not isinstance(value, torch.Tensor):
                raise InvariantBroken("the optimizer keeps state that is not a tensor", entry=entry)
            tensors[f"{_OPTIMIZER}{names[parameter]}/{entry}"] = value
    return tensors


def kinds_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return shape and type of each tensor."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
