"""Turns a recorded step into calls on memory that is allocated once, and repeats them.

Views are taken once. What depends on constants alone is computed once. Where an operator can write its results into
given memory, it writes into the same memory at each step, gradients into that of the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

import torch

from shards.learners.torch.engines.recording import (
    FILLED,
    Call,
    Recording,
    Unrepeatable,
    is_in_order_of,
    schema_of,
    tensors_in,
)

_COPIED_BYTES: Final = 2**18
"""Size of results up to which it pays to copy them into memory that stays."""
_POOLING: Final = "aten::max_pool2d_with_indices"
_POOLED_CHANNELS: Final = 16
"""Channels from which on it pays to have them last in memory: as many as a processor takes at a time."""
_EMPTY: Final = frozenset({"aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided"})


class _Made:
    """Stands for a value that each step computes, by its place in the list of such values."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


_GENERATOR: Final = _Made(0)


class Program:
    """The calls of a recorded step, bound to the tensors of one model."""

    def __init__(
        self, recording: Recording, inputs: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]
    ) -> None:
        """``inputs`` replace those of the recording; ``gradients`` are where gradients are to lie, by name.

        Raises ``Unrepeatable`` when the recorded step uses memory in a way that is not followed here.
        """
        self._calls: list[Callable[[], Any]] = []
        self._values: list[Any] = [None]
        """The values that each step computes; first the generator."""
        self._generator = recording.generator
        self._addresses = recording.addresses
        self._written = {self._addresses[id(each)] for call in recording.calls if call.is_writing for each in call.got}
        self._bound: dict[int, Any] = {}
        """What stands for a recorded tensor, by its identity: a tensor, or a value that each step computes."""
        self._known: set[int] = set()
        """Addresses of recorded tensors that are bound."""
        self._constants: set[int] = set()
        """Identities of recorded tensors that are the same at each step."""
        # A gradient in another order of memory than its home is copied there, which needs memory apart from it.
        homes = ((self._addresses[id(each)], each, gradients[name]) for name, each in recording.gradients.items())
        self._homes = {address: home for address, each, home in homes if is_in_order_of(each, home)}
        self._last = _last_uses(recording)
        for name, tensor in recording.inputs.items():
            self._bind(tensor, inputs[name].detach())
        for call in recording.calls:
            self._add(call)
        self.loss = self._settled(recording.loss)
        for name, gradient in recording.gradients.items():
            self._bring(gradient, gradients[name])

    def run(self, generator: torch.Generator | None) -> None:
        """Repeat the step on the current contents of the inputs."""
        self._values[0] = generator
        for call in self._calls:
            call()

    def _add(self, call: Call) -> None:
        for each in call.got:
            self._note_constant(each)
        new = [each for each in call.results if id(each) not in self._bound]
        came = {self._addresses[id(each)] for each in call.got}
        run = _own_call(call.operator)
        if call.is_writing:
            self._emit(run, call, new)
        elif new and all(self._addresses[id(each)] in came for each in new):
            self._take_views(call, new)
        elif self._is_settled(call, new):
            pass
        elif (into := _writing_variant(call.operator)) is not None:
            writing, names = into
            writing = _pooling(writing, call) if _pools_faster(call) else writing
            homes = [self._home(each) for each in call.results]
            self._bind_all(call, homes)
            self._emit(writing, call, [], dict(zip(names, homes, strict=True)))
        elif len(new) == len(call.results) and self._may_be_copied(new):
            homes = [self._home(each) for each in call.results]
            self._bind_all(call, homes)
            self._emit(_copying(run, homes), call, [])
        else:
            self._emit(run, call, new)

    def _note_constant(self, tensor: torch.Tensor) -> None:
        """Bind a tensor that no call has returned: a constant."""
        if id(tensor) in self._bound:
            return
        if self._addresses[id(tensor)] in self._known:
            raise Unrepeatable("the step reaches memory by a way that torch does not show")
        if self._addresses[id(tensor)] in self._written:
            raise Unrepeatable("the step changes a tensor that is neither parameter nor buffer")
        self._bind(tensor, tensor.detach())
        self._constants.add(id(tensor))

    def _take_views(self, call: Call, new: Sequence[torch.Tensor]) -> None:
        arguments, named = self._filled(call.arguments), self._filled(call.named)
        if _is_made(arguments) or _is_made(named):
            self._emit(_own_call(call.operator), call, new)
            return
        is_constant = self._is_constant(call)
        for each, view in zip(call.results, tensors_in(call.operator(*arguments, **named)), strict=True):
            self._bind(each, view)
            if is_constant:
                self._constants.add(id(each))

    def _is_settled(self, call: Call, new: Sequence[torch.Tensor]) -> bool:
        """Compute the results now if they are the same at each step; return whether they are."""
        name = schema_of(call.operator).name
        if name not in _EMPTY:
            if any(self._addresses[id(each)] in self._written for each in new):
                return False
            if torch.Tag.nondeterministic_seeded in call.operator.tags:
                return False
            if name not in FILLED and not self._is_constant(call):
                return False
            self._constants.update(map(id, call.results))
        made = tensors_in(call.operator(*call.arguments, **call.named))
        self._bind_all(call, [value.detach() for value in made])
        return True

    def _is_constant(self, call: Call) -> bool:
        return all(id(each) in self._constants and self._addresses[id(each)] not in self._written for each in call.got)

    def _home(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return memory for a result: where the gradient is to lie, if it is one."""
        home = self._homes.pop(self._addresses[id(tensor)], None)
        if (
            home is not None
            and tensor.dtype == home.dtype
            and tensor.untyped_storage().nbytes() == tensor.nbytes == home.nbytes
        ):
            return home.as_strided(tensor.shape, tensor.stride(), home.storage_offset())
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    def _may_be_copied(self, results: Sequence[torch.Tensor]) -> bool:
        """Return whether results are small, and are not changed: to be turned in place, say, which would last here."""
        is_changed = any(self._addresses[id(each)] in self._written for each in results)
        return not is_changed and sum(each.nbytes for each in results) <= _COPIED_BYTES

    def _bind_all(self, call: Call, to: Iterable[torch.Tensor]) -> None:
        for each, value in zip(call.results, to, strict=True):
            self._bind(each, value)

    def _bind(self, tensor: torch.Tensor, to: Any) -> None:
        self._bound[id(tensor)] = to
        self._known.add(self._addresses[id(tensor)])

    def _settled(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return memory that has the value of a recorded tensor after each step."""
        bound = self._bound[id(tensor)]
        if isinstance(bound, torch.Tensor) and self._addresses[id(tensor)] not in self._written:
            return bound
        home = torch.empty_like(tensor.detach())
        self._bring(tensor, home)
        return home

    def _bring(self, tensor: torch.Tensor, home: torch.Tensor) -> None:
        """Let the tensor's value be in ``home`` after each step."""
        self._note_constant(tensor)
        bound = self._bound[id(tensor)]
        if isinstance(bound, _Made):
            values, place = self._values, bound.place
            self._calls.append(lambda: home.copy_(values[place]))
        elif (bound.data_ptr(), bound.stride()) != (home.data_ptr(), home.stride()):
            self._calls.append(partial(home.copy_, bound))

    def _emit(
        self,
        run: Callable[..., Any],
        call: Call,
        new: Sequence[torch.Tensor],
        into: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Add a call. Its ``new`` results are other tensors at each step."""
        arguments, named, values = self._filled(call.arguments), self._filled(call.named), self._values
        named = {**named, **(into or {})}
        if not new and not _is_made(arguments) and not _is_made(named):
            self._calls.append(partial(run, *arguments, **named))
            return
        places: list[int | None] = []
        for each in call.results:
            is_new = any(each is other for other in new)
            places.append(len(values) if is_new else None)
            if is_new:
                self._bind(each, _Made(len(values)))
                values.append(None)
        over = [made.place for each in self._last[id(call)] if isinstance(made := self._bound[each], _Made)]

        def dynamic() -> None:
            made = run(*_present(values, arguments), **_present(values, named))
            for place, each in zip(places, tensors_in(made), strict=True):
                if place is not None:
                    values[place] = each
            for place in over:  # the allocator reuses its memory while it is in the processor's cache
                values[place] = None

        self._calls.append(dynamic)

    def _filled(self, value: Any) -> Any:
        """Return an argument with what stands for its tensors."""
        if isinstance(value, torch.Tensor):
            return self._bound[id(value)]
        if isinstance(value, torch.Generator):
            if value is not self._generator:
                raise Unrepeatable("the step draws from a generator of its own")
            return _GENERATOR
        if isinstance(value, list | tuple):
            return type(value)(self._filled(each) for each in value)
        return {name: self._filled(each) for name, each in value.items()} if isinstance(value, Mapping) else value


def _own_call(operator: Any) -> Callable[..., Any]:
    """Return the operator without its wrappers, which only pass arguments on."""
    own: Callable[..., Any] = operator._op  # noqa: SLF001  torch has no other way to it
    return own


def _copying(run: Callable[..., Any], homes: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """Return what copies results into memory that stays; so what follows them is known beforehand."""
    if len(homes) == 1:
        (home,) = homes
        return lambda *arguments, **named: home.copy_(run(*arguments, **named))

    def copy(*arguments: Any, **named: Any) -> list[torch.Tensor]:
        found = tensors_in(run(*arguments, **named))
        return [home.copy_(each) for home, each in zip(homes, found, strict=True)]

    return copy


def _pools_faster(call: Call) -> bool:
    if schema_of(call.operator).name != _POOLING:
        return False
    features = call.got[0]
    return features.dim() == 4 and features.is_contiguous() and features.shape[1] >= _POOLED_CHANNELS


def _pooling(run: Callable[..., Any], call: Call) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return what takes maxima with the channels last in memory, and writes them with the channels first.

    Torch computes several channels at a time there, and one maximum after another here. A maximum and its place are
    chosen, not computed, so that the bits are the same.
    """
    recorded = (*call.got, *call.results)
    features, maxima, places = (torch.empty_like(each, memory_format=torch.channels_last) for each in recorded)

    def pool(
        given: torch.Tensor, *arguments: Any, out: torch.Tensor, indices: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        run(features.copy_(given), *arguments, out=maxima, indices=places)
        return out.copy_(maxima), indices.copy_(places)

    return pool


def _is_made(value: Any) -> bool:
    """Return whether there is something in an argument that each step computes."""
    if isinstance(value, list | tuple):
        return any(map(_is_made, value))
    return any(map(_is_made, value.values())) if isinstance(value, dict) else isinstance(value, _Made)


def _present(values: Sequence[Any], value: Any) -> Any:
    """Return an argument with the current values."""
    if isinstance(value, _Made):
        return values[value.place]
    if isinstance(value, list | tuple):
        return [_present(values, each) for each in value]
    return {name: _present(values, each) for name, each in value.items()} if isinstance(value, dict) else value


def _last_uses(recording: Recording) -> dict[int, list[int]]:
    """Return by each call's identity those of the tensors that no later call uses."""
    needed = {id(recording.loss), *map(id, recording.gradients.values())}
    last: dict[int, list[int]] = {}
    for call in reversed(recording.calls):
        last[id(call)] = [each for each in map(id, {*call.got, *call.results}) if each not in needed]
        needed.update(last[id(call)])
    return last


_clamp_min: Final = _own_call(torch.ops.aten.clamp_min.out)


def _relu(features: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """Torch computes it so, and has no variant of it that writes."""
    result: torch.Tensor = _clamp_min(features, 0, out=out)
    return result


@cache
def _writing_variant(operator: Any) -> tuple[Callable[..., Any], tuple[str, ...]] | None:
    """Return what writes the operator's results into given tensors, and their names; None: there is no such variant."""
    schema = schema_of(operator)
    if schema.name == "aten::relu":
        return _relu, ("out",)
    if schema.name.endswith("_loss"):  # uses what it is given for each point's loss, in another shape than the mean's
        return None
    packet = getattr(torch.ops.aten, schema.name.partition("::")[2], None)
    wanted = [(each.name, str(each.type)) for each in schema.arguments]
    for overload in () if packet is None else packet.overloads():
        variant = getattr(packet, overload)
        outs = tuple(each.name for each in schema_of(variant).arguments if each.is_out)
        own = [(each.name, str(each.type)) for each in schema_of(variant).arguments if not each.is_out]
        # Only a variant with a kernel of its own saves an allocation: the others compute and copy.
        if (
            outs
            and own == wanted
            and len(outs) == len(schema.returns)
            and torch._C._dispatch_has_kernel_for_dispatch_key(variant.name(), "CPU")  # noqa: SLF001  the only way
        ):
            return _own_call(variant), outs
    return None
