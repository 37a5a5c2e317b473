"""Fast dispatch: per event, the handlers that mitmproxy's addons really have.

Stock mitmproxy asks every addon at every event and spends nearly half of its time on that. Here the answer is
remembered until an addon is added, registered, removed or configured. What a handler may do (halt the chain, raise,
await, add addons) has the effect it has in stock. A handler set on an addon object at run time is the one thing that
is not seen until the next of these occasions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import isawaitable
from types import CoroutineType, ModuleType
from typing import Any

from mitmproxy import addonmanager, exceptions, flow, hooks, version

from addons import dispatch_trial, message_checks

TESTED = "12.2.3"

log = logging.getLogger("governor")


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kind of event is delivered. `groups` has an item for each addon of the chain with handlers of its own or
    in sub-addons, with the addon's place in the chain: an exception ends its group, a halt ends the event."""

    fields: tuple[str, ...]
    groups: tuple[tuple[int, tuple[Callable[..., Any], ...]], ...]


class RememberingAddons(addonmanager.AddonManager):
    """mitmproxy's addon manager with a memory of who handles what. Made from a stock one by `speed_up`."""

    _plans: dict[type[hooks.Hook], Plan]

    async def trigger_event(self, event: hooks.Hook) -> None:
        plans = self._plans
        plan = plans.get(type(event)) or self._plan(event)
        if not plan.groups:
            return
        arguments = [getattr(event, name) for name in plan.fields]
        chain = self.chain
        for place, handlers in plan.groups:
            try:
                for handler in handlers:
                    result = handler(*arguments)
                    # The first test spares awaitables of the usual kind the slow second one.
                    if result is not None and (type(result) is CoroutineType or isawaitable(result)):
                        await result
            except exceptions.AddonHalt:
                return
            except exceptions.OptionsError:
                raise
            except Exception as fault:  # noqa: BLE001
                _report(fault)
            if self._plans is not plans:
                # The addons changed during the event: the rest of the chain is asked afresh, as stock does.
                await self._ask_from(chain, place + 1, event)
                return

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        plan = self._plans.get(type(event)) or self._plan(event)
        message = getattr(event, plan.fields[0])
        if plan.groups:
            await self.trigger_event(event)
        if isinstance(message, flow.Flow):
            update = self._plans.get(hooks.UpdateHook)
            if update is None or update.groups:
                await self.trigger_event(hooks.UpdateHook([message]))

    async def _ask_from(self, chain: list[Any], place: int, event: hooks.Hook) -> None:
        while place < len(chain):
            try:
                with addonmanager.safecall():
                    await self.invoke_addon(chain[place], event)
            except exceptions.AddonHalt:
                return
            place += 1

    def _plan(self, event: hooks.Hook) -> Plan:
        groups = []
        for place, addon in enumerate(self.chain):
            handlers = tuple(_handlers(addon, event.name))
            if handlers:
                groups.append((place, handlers))
        plan = Plan(tuple(field.name for field in fields(event)), tuple(groups))  # type: ignore[arg-type]
        self._plans[type(event)] = plan
        return plan

    def forget(self) -> None:
        """Ask all addons again from the next event on."""
        self._plans = {}

    def invoke_addon_sync(self, addon: Any, event: hooks.Hook) -> None:
        """Everything that adds, attaches, configures or removes an addon comes through here, right before or after."""
        try:
            super().invoke_addon_sync(addon, event)
        finally:
            if isinstance(event, _CHANGES):
                self.forget()


_CHANGES = (addonmanager.LoadHook, hooks.ConfigureHook, hooks.RunningHook, hooks.DoneHook)


def _handlers(addon: Any, name: str) -> list[Callable[..., Any]]:
    found = []
    for part in addonmanager.traverse([addon]):
        handler = getattr(part, name, None)
        if callable(handler):
            found.append(handler)
        elif handler and not isinstance(handler, ModuleType):
            found.append(_uncallable(name, part))
    return found


def _uncallable(name: str, part: Any) -> Callable[..., Any]:
    """Stock reports such an addon at each event; so does this."""
    def report(*_arguments: Any) -> None:
        raise exceptions.AddonManagerError(f"Addon handler {name} ({part}) not callable")

    return report


def _report(fault: Exception) -> None:
    trace = addonmanager.cut_traceback(fault.__traceback__, "trigger_event")
    addonmanager.logger.error("Addon error: %s", fault, exc_info=(type(fault), fault, trace))


def speed_up(addons: addonmanager.AddonManager) -> bool:
    """Give a stock addon manager the fast dispatch; False, and one warning, where that cannot be vouched for."""
    doubt = _doubt()
    if doubt:
        log.warning("fast dispatch is off, mitmproxy's own is used: %s", doubt)
        return False
    convert(addons)
    message_checks.remember()
    return True


def convert(addons: addonmanager.AddonManager) -> None:
    """Change a stock addon manager into a remembering one, in place: options and servers hold references to it."""
    addons.__class__ = RememberingAddons
    addons.forget()  # type: ignore[attr-defined]


def _doubt() -> str:
    if version.VERSION != TESTED:
        return f"it was tested with mitmproxy {TESTED}, this is {version.VERSION}"
    try:
        same = dispatch_trial.calls(convert) == dispatch_trial.calls(None)
    except Exception as fault:  # noqa: BLE001
        return f"its self-test failed with {type(fault).__name__}: {fault}"
    return "" if same else "its self-test called other handlers than mitmproxy does"
