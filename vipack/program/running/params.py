"""The parameters that a fit owns: Pyro's `param` messages answered from a dict of unconstrained tensors.

Pyro keeps parameters in one global store, so that a second fit starts where the first one ended, and a module
closed over by two models is trained by both. Here every fit has tensors of its own; while a program runs they are
lent to `pyro.param`, to PyroModules and to the modules that `pyro.module` registers, and taken back afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from vipack.compat.nn_modules import buffers_of, parameters_of, pyro_parameters_of
from vipack.compat.param_store import add_to_store, stored
from vipack.compat.pytorch import is_fake
from vipack.errors import CheckpointError
from vipack.program.running.module_parameters import LateLoans, all_modules, evaluation_mode, lent
from vipack.program.running.networks import weights_of_networks
from vipack.program.running.saved_values import like_own

__all__ = ["BASELINE", "Parameters", "UnmetParameterError"]

BASELINE = "__baseline_avg_downstream_cost_"  # how TraceGraph_ELBO names a decaying average of costs


class UnmetParameterError(Exception):
    """A program declares a parameter where none can be made: with tensors that have no values, say."""


class Parameters:
    """Unconstrained parameter tensors by Pyro name, with their constraints, and the buffers of the modules they use.

    Attributes:
        unconstrained: name -> tensor that requires grad and has no graph; the optimizer's variables.
        constraints: name -> the constraint that ``pyro.param`` declared.
        programs: the model and the guide, where they are known.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        self.unconstrained: dict[str, nn.Parameter] = {}
        self.constraints: dict[str, constraints.Constraint] = {}
        self._adopted: dict[int, tuple[nn.Parameter, str]] = {}  # id of an nn.Parameter of a module -> (it, our name)
        self._theirs: set[int] = set()  # ids of the adopted parameters that are the user's
        self._slots: list[tuple[nn.Module, str, str]] = []  # module, attribute, our name
        self._modules: list[nn.Module] = []  # every module called, in order of first call
        self._declared: list[tuple[nn.Module, str]] = []  # parameters that the user's modules declare as they run
        self._buffers: dict[str, Tensor] = {}
        self._settled = False
        self._slots_outdated = False
        self._shared = False  # made by `of_store`
        self._waiting: dict[str, Tensor] = {}  # loaded values of parameters that the program has not declared yet
        self.programs: tuple[Any, ...] = ()

    @classmethod
    def of_store(
        cls, names: Iterable[str], modules: Iterable[nn.Module], dtype: torch.dtype, device: torch.device
    ) -> Parameters:
        """Parameters that are those of Pyro's global store and of `modules`, rather than a fit's own: the same tensors."""
        shared = cls(dtype, device)
        shared._settled = shared._shared = True
        shared.extend_from_store(names, modules)
        return shared

    def extend_from_store(self, names: Iterable[str], modules: Iterable[nn.Module]) -> None:
        """For parameters made by :meth:`of_store`: those that steps have come to use since."""
        values, declared = stored()
        for name in names:
            value: Any = values[name]
            self.unconstrained[name], self.constraints[name] = value, declared[name]
            self._adopted[id(value)] = (value, name)
            if isinstance(value, nn.Parameter):
                self._theirs.add(id(value))
        known = {id(module) for module in self._modules}
        for module in modules:
            if id(module) in known:
                continue
            known.add(id(module))
            self._modules.append(module)
            index = len(self._modules) - 1
            self._buffers |= {f"{index}.{name}": b for name, b in buffers_of(module).items() if b is not None}
        self._slots_outdated = True

    def keep_buffers(self) -> None:
        """For parameters made by :meth:`of_store`: where a module has put a new buffer, the old one takes its numbers."""
        for module, attribute, key in self._buffer_slots():
            current, own = buffers_of(module)[attribute], self._buffers[key]
            if current is None or current is own:
                continue
            if current.shape == own.shape and current.dtype == own.dtype:
                with torch.no_grad():
                    own.copy_(current)
                buffers_of(module)[attribute] = own
            else:
                self._buffers[key] = current

    def has_networks(self) -> bool:
        """Whether the program runs modules of torch's."""
        return bool(self._modules)

    def digest(self) -> str:
        """Equal as long as no parameter or buffer has moved. Compiled steps move them without torch's taking note."""
        digest = hashlib.blake2b()
        for name, value in sorted({**self.unconstrained, **self.buffers()}.items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @contextlib.contextmanager
    def bound(
        self,
        values: Mapping[str, Tensor] | None = None,
        *,
        buffers: dict[str, Tensor] | None = None,
        training: bool = True,
    ) -> Iterator[None]:
        """Run programs with these parameters; nothing reaches Pyro's global store or the user's modules.

        Args:
            values: unconstrained tensors to use instead of the fit's own, such as slices of one flat vector.
            buffers: likewise for :meth:`buffers`; what the modules leave in them is there afterwards.
            training: False puts every module that is in training mode in evaluation mode meanwhile.
        """
        self._find_slots()
        answers: Mapping[str, Tensor] = self.unconstrained if values is None else values
        with contextlib.ExitStack() as stack:
            stack.enter_context(pyro.settings.context(module_local_params=False))
            # PyroModule writes to the global store directly, whatever handlers are active: give it one to write to.
            stack.enter_context(pyro.get_param_store().scope())
            stack.enter_context(self._lend(answers, self._buffers if buffers is None else buffers))
            if not self._settled:
                stack.enter_context(self._recording())
            if not training:
                stack.enter_context(evaluation_mode(self._modules))
            stack.enter_context(_ParamMessenger(self, answers, stack.enter_context(LateLoans())))
            yield
            if values is None and training:
                self._keep_baselines()

    def _keep_baselines(self) -> None:
        """TraceGraph_ELBO writes its running averages into the store by itself; they are the fit's own."""
        with torch.no_grad():
            for name, value in stored()[0].items():
                if name.startswith(BASELINE) and name in self.unconstrained:
                    self.unconstrained[name].copy_(value)

    def settle(self) -> None:
        """To be called when the program has been read: buffers start afresh, and no more modules are taken note of."""
        self._settled = True
        for module, attribute, key in self._buffer_slots():
            buffer = buffers_of(module)[attribute]
            if buffer is not None:
                self._buffers[key] = self._own(buffer)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """Take note of every ``nn.Module`` called inside: its buffers become the fit's own."""
        seen = {id(module) for module in self._modules}
        theirs: list[tuple[nn.Module, str, Tensor]] = []
        had: list[tuple[nn.Module, set[str]]] = []

        def remember(module: nn.Module, _: Any) -> None:
            if id(module) in seen:
                return
            seen.add(id(module))
            self._modules.append(module)
            had.append((module, set(parameters_of(module))))
            for name, buffer in buffers_of(module).items():
                if buffer is not None:
                    theirs.append((module, name, buffer))
                    buffers_of(module)[name] = self._buffers[f"{len(self._modules) - 1}.{name}"] = self._own(buffer)

        handle = nn.modules.module.register_module_forward_pre_hook(remember)
        try:
            yield
        finally:
            handle.remove()
            for module, name, buffer in theirs:
                buffers_of(module)[name] = buffer
            automatic = {id(p) for m in self._modules if isinstance(m, AutoGuide) for p in m.modules()}
            for module, before in had:
                if id(module) not in automatic:
                    self._declared += [(module, name) for name in parameters_of(module) if name not in before]
            self._withdraw()

    def _withdraw(self) -> None:
        """Take back what the user's modules declared while they ran, which is the fit's."""
        for module, attribute in self._declared:
            parameters_of(module).pop(attribute, None)
            pyro_parameters_of(module).pop(attribute.removesuffix("_unconstrained"), None)

    def constrained(self) -> dict[str, Tensor]:
        """Name -> detached copy in the parameter's own (constrained) space."""
        with torch.no_grad():
            return {
                name: transform_to(self.constraints[name])(value).detach().clone()
                for name, value in self.unconstrained.items()
            }

    def detached(self) -> dict[str, Tensor]:
        """Name -> unconstrained value that shares its numbers with the fit, but no gradient."""
        # They require grad like the originals: pyro.module warns of a parameter that does not, and leaves it out.
        return {name: value.detach().requires_grad_(value.requires_grad) for name, value in self.unconstrained.items()}

    def buffers(self) -> dict[str, Tensor]:
        """Key -> the fit's own buffer, such as BatchNorm's running mean; in order of first use."""
        return dict(self._buffers)

    @property
    def shared(self) -> bool:
        """Whether these are Pyro's global store and the user's modules themselves; see :meth:`of_store`."""
        return self._shared

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Those that the program has used."""
        return tuple(self._modules)

    def of_modules(self) -> list[nn.Parameter]:
        """The parameters that the program's modules hold themselves, be they of the fit or not."""
        return [parameter for module in self._modules for parameter in module.parameters()]

    def of_networks(self) -> list[nn.Parameter]:
        """The distinct unconstrained tensors that are weights of networks."""
        self._find_slots()
        return [self.unconstrained[n] for n in weights_of_networks(self._slots, self._modules, self.programs)]

    def tensors(self) -> list[nn.Parameter]:
        """The distinct unconstrained tensors (two names may share one) in order of first declaration."""
        return list({id(value): value for value in self.unconstrained.values()}.values())

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of all values: ``{"params": ..., "buffers": ...}``."""
        return {
            "params": {name: value.detach().clone() for name, value in self.unconstrained.items()},
            "buffers": {name: value.detach().clone() for name, value in self._buffers.items()},
        }

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write values from :meth:`state` into the fit's tensors.

        Raises:
            CheckpointError: a parameter of the program is absent or has another shape.
        """
        saved = dict(state["params"])
        with torch.no_grad():
            for name, value in self.unconstrained.items():
                if name not in saved:
                    raise CheckpointError(
                        f"parameter {name!r} is not in the saved state, which has {sorted(saved)}; "
                        "the file belongs to another model or guide."
                    )
                value.copy_(like_own(name, saved.pop(name), value))
            for name, buffer in self._buffers.items():
                if name in state["buffers"]:
                    buffer.copy_(like_own(f"buffer {name}", state["buffers"][name], buffer))
        self._waiting = saved

    def write_back(self) -> None:
        """Copy values into the modules they came from and into Pyro's global store, as pyro.infer.SVI leaves them."""
        self._find_slots()
        store = pyro.get_param_store()
        with torch.no_grad():
            for module, attribute, name in self._slots:
                target = parameters_of(module)[attribute]
                if target is not None:
                    target.copy_(self.unconstrained[name])
            for owner, attribute, key in self._buffer_slots():
                buffer = buffers_of(owner)[attribute]
                if buffer is not None:
                    buffer.copy_(self._buffers[key])
        originals = {name: p for key, (p, name) in self._adopted.items() if key in self._theirs}
        store.set_state(
            {
                "params": {
                    name: originals.get(name, value.detach().clone().requires_grad_(True))
                    for name, value in self.unconstrained.items()
                },
                "constraints": dict(self.constraints),
            }
        )

    def _adopt(self, name: str, value: Tensor, constraint: constraints.Constraint) -> nn.Parameter:
        """Take a first value for `name` as the fit's own."""
        first = value.unconstrained()  # type: ignore[attr-defined]
        known = self._adopted.get(id(first)) if isinstance(first, nn.Parameter) else None
        if known is not None:  # one tensor under two names
            own = self.unconstrained[known[1]]
        else:
            own = nn.Parameter(self._own(first))
            # A PyroModule that declares a parameter while it runs keeps our tensor; one that had it keeps the user's.
            self._adopted[id(own)] = (own, name)
            if isinstance(first, nn.Parameter):
                self._adopted[id(first)] = (first, name)
                self._theirs.add(id(first))
            self._slots_outdated = True
        if name in self._waiting:
            with torch.no_grad():
                own.copy_(like_own(name, self._waiting.pop(name), own))
        self.unconstrained[name] = own
        self.constraints[name] = constraint
        return own

    def _own(self, value: Tensor) -> Tensor:
        value = value.detach()
        dtype = self.dtype if value.is_floating_point() else value.dtype
        return value.to(device=self.device, dtype=dtype, copy=True).contiguous()

    def _find_slots(self) -> None:
        """Find the modules that hold the user's nn.Parameters, so that ours can stand in for them."""
        if not self._slots_outdated:
            return
        owners = {id(child): child for module in self._modules for child in module.modules()}
        seen = {id(parameter) for owner in owners.values() for parameter in parameters_of(owner).values()}
        missing = (self.unconstrained[self._adopted[theirs][1]] for theirs in self._theirs - seen)
        if any(id(own) not in seen for own in missing):  # PyroModules keep the fit's own in place of theirs
            # Any module in the process may own one: `encoder.weight` may be read without the encoder being called.
            owners |= {id(module): module for module in all_modules()}
        self._slots = [
            (module, attribute, self._adopted[id(parameter)][1])
            for module in owners.values()
            for attribute, parameter in parameters_of(module).items()
            if parameter is not None and id(parameter) in self._adopted
        ]
        self._slots_outdated = False

    def _buffer_slots(self) -> Iterator[tuple[nn.Module, str, str]]:
        for index, module in enumerate(self._modules):
            for attribute in buffers_of(module):
                key = f"{index}.{attribute}"
                if key in self._buffers:
                    yield module, attribute, key

    def _lend(
        self, values: Mapping[str, Tensor], buffers: dict[str, Tensor]
    ) -> contextlib.AbstractContextManager[None]:
        """Inside the block the modules' slots have the parameters `values` and these buffers."""
        slots = [slot for slot in self._slots if slot[2] in values]
        borrowers = list({id(module): module for module, _, _ in self._slots}.values())
        return lent(slots, values, list(self._buffer_slots()), buffers, borrowers, self._withdraw)


class _ParamMessenger(Messenger):  # type: ignore[misc]
    """Answers `param` messages from `values`; what the program declares for the first time is adopted."""

    def __init__(self, parameters: Parameters, values: Mapping[str, Tensor], loans: LateLoans) -> None:
        super().__init__()
        self._parameters = parameters
        self._values = values
        self._loans = loans
        self._frozen: dict[str, nn.Parameter] = {}  # of the user's, which are not to be trained

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        value = self._values.get(msg["name"])
        if value is not None:
            msg["value"] = _constrain(value, self._parameters.constraints[msg["name"]])
            msg["done"] = True
            return
        first = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(first, nn.Parameter) and not first.requires_grad:
            self._frozen[msg["name"]] = first

    def _pyro_post_param(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name in self._values:
            return
        if self._parameters._shared or is_fake(msg["value"]):
            raise UnmetParameterError(f"parameter {name!r} is one that no step has met")
        constraint = stored()[1].get(name, constraints.real)
        own = self._parameters._adopt(name, msg["value"], constraint)
        first = msg["value"].unconstrained()
        if isinstance(first, nn.Parameter):
            self._loans.lend(first, own)
        else:  # a PyroModule keeps the tensor in the store as its parameter, so the store must not have the user's
            add_to_store(name, own, constraint)
        frozen = self._frozen.pop(name, None)
        if frozen is None and isinstance(first, nn.Parameter) and not first.requires_grad:
            frozen = first  # of a PyroParam, which is in no store
        if frozen is not None:  # Pyro's store marks every tensor that it is given as trained
            frozen.requires_grad_(False)
            own.requires_grad_(False)
        msg["value"] = _constrain(own, constraint)


def _constrain(value: Tensor, constraint: constraints.Constraint) -> Tensor:
    """`value` in its constrained space, carrying the weak reference that Pyro's SVI reads."""
    constrained: Tensor = transform_to(constraint)(value)
    constrained.unconstrained = weakref.ref(value)  # type: ignore[attr-defined]
    return constrained
