"""Faults put into the accounts of the kernel on purpose, each with a quick test that must see it.

    python -m tests.kernel.kernel_mutants NAME... < /dev/null

prints a line of JSON for each name: the name, pytest's exit status, and the end of what it said. Each fault lives in a
process of its own and in its memory alone: no file is changed.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import io
import json
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """In `module`, `before` (which stands there once) is `after`. `seen_by` is FILE::TEST of this folder."""

    name: str
    module: str
    before: str
    after: str
    seen_by: str


_PROOFS, _STEP, _ATTACKS = "test_proofs.py", "test_step.py", "test_attacks.py"
_LEASES = "test_leases.py"
_SPREAD, _HELD, _ANY_ORDER = "test_cascade.py", "test_cascade_state.py", "test_cascade_machine.py"

MUTANTS = (
    Mutant("a draw leaves out what is held", "arithmetic", "limit - spent - held", "limit - spent",
           f"{_PROOFS}::test_what_is_spent_held_and_left_make_the_limit_before_and_after_a_draw"),
    Mutant("a negative amount is granted", "arithmetic", "return choose(least < 0, 0, choose(wanted < least, 0,",
           "return choose(least < 0, least, choose(wanted < least, 0,",
           f"{_PROOFS}::test_what_is_granted_is_never_negative_and_never_more_than_there_is_or_was_wanted"),
    Mutant("less than the least is granted", "arithmetic", "choose(granted < least, 0, granted)", "granted",
           f"{_PROOFS}::test_nothing_is_granted_below_the_least_and_all_of_it_where_there_is_enough"),
    Mutant("one more is granted than there is", "arithmetic", "granted = clamped(wanted, left)",
           "granted = clamped(wanted, left + 1)",
           f"{_PROOFS}::test_what_is_granted_is_never_negative_and_never_more_than_there_is_or_was_wanted"),
    Mutant("a settlement frees what others hold", "arithmetic", "return clamped(reserved, held)", "return reserved",
           f"{_PROOFS}::test_a_settlement_never_frees_more_than_was_held_or_reserved"),
    Mutant("what is used beyond the reservation is spent", "arithmetic",
           "spent + clamped(used, freed(held, reserved))", "spent + larger(0, used)",
           f"{_PROOFS}::test_what_is_spent_never_falls_and_never_rises_by_more_than_was_reserved"),
    Mutant("negative use gives back", "arithmetic", "return larger(0, smaller(number, most))",
           "return smaller(number, most)",
           f"{_PROOFS}::test_what_is_spent_never_falls_and_never_rises_by_more_than_was_reserved"),
    Mutant("an older window is as good as a new one", "arithmetic", "choose(current > window, 0,",
           "choose(current != window, 0,",
           f"{_PROOFS}::test_an_amount_of_an_older_window_is_gone_and_one_never_comes_back"),
    Mutant("a rate is rounded to the faster side", "arithmetic", "(micros + count - 1) // count", "micros // count",
           f"{_PROOFS}::test_the_interval_of_a_rate_is_the_shortest_that_is_never_faster"),
    Mutant("a burst is one larger", "arithmetic", "arrival(due, now, each) - burst * each - now",
           "arrival(due, now, each) - (burst + 1) * each - now",
           f"{_PROOFS}::test_in_any_time_no_more_pass_than_the_burst_and_what_the_rate_brings_in_it"),
    Mutant("a request may come a microsecond early", "arithmetic", "- burst * each - now)", "- burst * each - now - 1)",
           f"{_PROOFS}::test_in_any_time_no_more_pass_than_the_burst_and_what_the_rate_brings_in_it"),
    Mutant("a wait is longer than it must be", "arithmetic", "larger(0, arrival(due, now, each) - burst * each - now)",
           "larger(0, 2 * (arrival(due, now, each) - burst * each - now))",
           f"{_PROOFS}::test_the_wait_is_exact_to_the_microsecond"),
    Mutant("turns are not saved up", "arithmetic", "return larger(due, now) + each", "return due + each",
           f"{_PROOFS}::test_in_any_time_no_more_pass_than_the_burst_and_what_the_rate_brings_in_it"),
    Mutant("a clock that was ahead gives a burst", "arithmetic", "now + (burst - 1) * each, due)", "now, due)",
           f"{_PROOFS}::test_after_a_clock_that_was_far_ahead_one_request_passes_and_then_the_rate_holds"),
    Mutant("each is for all, and together for each", "bounds",
           "return self.budget, self.unit, agent if self.each else TOGETHER",
           "return self.budget, self.unit, TOGETHER if self.each else agent",
           f"{_STEP}::test_each_agent_has_its_own_and_all_share_what_is_together"),
    Mutant("a session ends by the clock", "bounds", "return standing.epoch + standing.session if self.each else 0",
           "return now_us // MICROS // 86400",
           f"{_STEP}::test_a_session_ends_with_the_token_or_a_release_alone"),
    Mutant("a day is one of UTC", "bounds", "local = seconds + self.zone.offset(seconds)", "local = seconds",
           f"{_ATTACKS}::test_a_day_of_a_budget_is_a_day_of_its_zone"),
    Mutant("a neighbour halts", "bounds", "threshold.effect if self.each else Effect.DENY", "threshold.effect",
           f"{_ATTACKS}::test_a_neighbour_who_uses_up_what_all_share_halts_nobody_else"),
    Mutant("a budget's threshold is not looked at", "bounds", "self.limit * threshold.percent // 100", "self.limit",
           f"{_STEP}::test_a_share_that_is_used_up_slows_down_and_is_told"),
    Mutant("who is halted goes on", "step", "if halt is not None:\n        return", "if halt is None:\n        return",
           f"{_STEP}::test_a_halt_by_an_operator_holds_until_a_release"),
    Mutant("a refusal draws on a budget", "step",
           "    draws, over, wants = _risk(state, bounded, standing, asked, now_us)\n",
           "    draws, over, wants = (_passing(state, bounded, standing, asked, now_us).draws, None, ())\n",
           f"{_STEP}::test_a_refusal_takes_nothing"),
    Mutant("a quiet rule's refusals count", "step", "if asked.quiet or verdict.code", "if verdict.code",
           f"{_ATTACKS}::test_what_a_quiet_rule_refuses_counts_for_nothing"),
    Mutant("what others do counts", "step", "verdict.code not in _COUNTED or", "False or",
           f"{_ATTACKS}::test_what_others_do_in_an_agents_name_or_answer_it_is_not_counted_against_it"),
    Mutant("a refused row is one longer", "step",
           "    if run.times >= _share(state, repeats) and repeats.then is not Effect.TELL:",
           "    if run.times > _share(state, repeats) and repeats.then is not Effect.TELL:",
           f"{_STEP}::test_the_same_refused_request_is_stopped_and_others_are_not"),
    Mutant("requests that take turns are forgotten", "step",
           "    return min(refused.values(), key=lambda run: run.times)", "    return Run(now_us, 0)",
           f"{_ATTACKS}::test_requests_that_take_turns_are_stopped_as_one_that_is_repeated"),
    Mutant("a window goes back with the clock", "drawing",
           "    if account.window > window and not left and renewed(account.window, 1, window):\n"
           "        return account\n    return account.in_window(window)",
           "    return account.in_window(window) if left else Account(window)",
           f"{_STEP}::test_a_clock_that_goes_back_begins_nothing_anew"),
    Mutant("a wrong clock begins a day", "drawing", "if not state.clock_ok and bound.every.renews", "if False",
           f"{_ATTACKS}::test_a_refusal_while_the_clock_is_wrong_begins_no_new_day_of_risk"),
    Mutant("a quarantine refuses reads, too", "step", " and asked.method not in READS:", ":",
           f"{_STEP}::test_who_is_quarantined_may_read_until_it_ends"),
    Mutant("a quarantine never ends", "state", "return now_us < self.quarantined_until_us or",
           "return self.quarantined_until_us or", f"{_STEP}::test_who_is_quarantined_may_read_until_it_ends"),
    Mutant("an operator's halt spreads", "cascade", "return halt.by == KERNEL and halt.reason", "return halt.reason",
           f"{_SPREAD}::test_only_what_an_agent_earned_itself_for_these_reasons_spreads"),
    Mutant("what spread spreads again", "cascade", "halt.by == KERNEL and halt.reason != Code.CASCADE",
           "halt.by == KERNEL",
           f"{_SPREAD}::test_several_halts_of_a_group_in_a_short_time_are_too_many_for_the_others"),
    Mutant("every reason spreads", "cascade", "if on_halt is None or halt.reason not in on_halt.reasons:",
           "if on_halt is None:", f"{_SPREAD}::test_only_what_an_agent_earned_itself_for_these_reasons_spreads"),
    Mutant("a halt goes a step too far", "cascade", "range(1, on_halt.hops + 1)", "range(1, on_halt.hops + 2)",
           f"{_SPREAD}::test_a_halt_goes_along_the_declared_edges_and_tells_its_way"),
    Mutant("one more is held back than may be", "cascade", "elif len(held) < most:", "elif len(held) <= most:",
           f"{_SPREAD}::test_no_more_are_held_back_than_the_radius_and_the_others_are_slowed_down"),
    Mutant("each halt has a radius of its own", "cascade",
           "held = {agent for agent, do in roll.held.items() if do.holds_back}", "held: set[str] = set()",
           f"{_SPREAD}::test_halts_one_after_the_other_in_a_swarm_stay_within_the_radius_together"),
    Mutant("who was silent is acted upon", "cascade", "now_us - seen_us < ACTIVE_US", "seen_us",
           f"{_HELD}::test_active_is_who_asked_for_something_within_the_hour"),
    Mutant("the milder of two acts is done", "cascade", "act.do.severity > known.do.severity",
           "act.do.severity < known.do.severity",
           f"{_SPREAD}::test_of_two_reasons_to_act_upon_an_agent_the_more_severe_is_done_once"),
    Mutant("old halts trip the breaker", "cascade", "if at_us > since_us]", "if at_us]",
           f"{_SPREAD}::test_several_halts_of_a_group_in_a_short_time_are_too_many_for_the_others"),
    Mutant("an act lifts a halt", "transition", "if standing.halt is not None or new.is_weaker(standing.preventive):",
           "if new.is_weaker(standing.preventive):", f"{_HELD}::test_no_act_lifts_or_changes_a_halt"),
    Mutant("an act weakens another", "state", "return (self.action.severity, self.until_us) <",
           "return (0, 0) >", f"{_HELD}::test_of_two_acts_the_more_severe_holds_and_of_equal_ones_the_longer"),
    Mutant("what holds back never ends", "state", "return now_us < self.until_us", "return self.until_us > 0",
           f"{_HELD}::test_it_ends_by_itself_and_a_halt_does_not"),
    Mutant("a release leaves the act", "transition",
           "standing.session), trail=trail)})",
           "standing.session), trail=trail, preventive=standing.preventive)})", f"{_ANY_ORDER}::TestSpreading"),
    Mutant("causes are told after their end", "cascade", "else not held.is_in_force(now_us):", "else False:",
           f"{_HELD}::test_every_decision_of_whoever_is_held_back_tells_the_chain_of_causes"),
    Mutant("points are too many one point late", "step", "if elsewhere + spent + asked.risk >= most and",
           "if elsewhere + spent + asked.risk > most and", f"{_ATTACKS}::test_points_of_risk_are_told_and_slow_down"),
    Mutant("a known destination is a new one", "step", "and asked.place not in known)", ")",
           f"{_STEP}::test_new_destinations_are_counted_once_each"),
    Mutant("an unknown end gives back", "transition", '        case "unknown", _:\n            return MAX_INTEGER',
           '        case "unknown", _:\n            return 0',
           f"{_STEP}::test_a_request_that_was_not_sent_is_given_back"),
    Mutant("what was not sent is spent", "transition", '        case "not_sent", _:\n            return 0',
           '        case "not_sent", _:\n            return MAX_INTEGER',
           f"{_STEP}::test_a_request_that_was_not_sent_is_given_back"),
    Mutant("a refund goes into a later window", "transition", "if account.window == draw.window:", "if True:",
           f"{_STEP}::test_what_is_given_back_goes_where_it_came_from_and_not_into_a_later_window"),
    Mutant("the first draw takes all that was used", "transition", " - gone.get(draw.key, 0))", ")",
           f"{_ATTACKS}::test_a_stream_over_two_windows_is_settled_in_each_of_them"),
    Mutant("a release keeps the points", "transition",
           "max(entry.get(\"epoch\", 0), standing.epoch + 1)", "standing.epoch",
           f"{_STEP}::test_points_add_up_to_a_halt_also_where_all_is_refused"),
    Mutant("a new token lifts a halt", "transition", "{agent: standing._replace(session=session)}",
           "{agent: standing._replace(session=session, halt=None)}",
           f"{_STEP}::test_a_halt_by_an_operator_holds_until_a_release"),
    Mutant("a halt is not kept", "transition", "        standing = standing._replace(halt=Halt(reason, now_us,",
           "        standing._replace(halt=Halt(reason, now_us,", f"{_STEP}::test_a_rule_that_halts_halts"),
    Mutant("a failing origin counts", "transition", " or status >= 500:", ":",
           f"{_STEP}::test_the_same_request_with_the_same_outcome_is_stopped"),
    Mutant("any answer is the same", "transition", "if run.times == 0 or run.outcome == outcome else 1", "",
           f"{_STEP}::test_answers_that_differ_are_progress"),
    Mutant("a row of refusals goes on after a success", "transition", "    if passed and request in refused:",
           "    if False and request in refused:", f"{_STEP}::test_a_request_that_passes_ends_a_row_of_refusals"),
    Mutant("a trial's refusal is one", "transition", 'return entry["mode"] == Mode.OBSERVE or _lets', "return _lets",
           f"{_ATTACKS}::test_what_a_trial_lets_pass_is_open_until_it_ends"),
    Mutant("a trial halts", "transition", ' and entry["mode"] != Mode.OBSERVE:', ":",
           f"{_ATTACKS}::test_a_trial_halts_nobody"),
    Mutant("a long stream is remembered whole", "transition", "draws=_summed(opened.draws + more)",
           "draws=opened.draws + more", f"{_ATTACKS}::test_a_long_stream_is_remembered_in_as_little_as_a_short_one"),
    Mutant("a clock is never wrong", "transition", "return Change(clock_ok=False)", "return Change(clock_ok=True)",
           f"{_STEP}::test_after_a_jump_of_the_clock_no_budget_is_drawn_on_until_it_is_accepted"),
    Mutant("a change of others is no breach", "contracts", "if key[2] not in (agent, TOGETHER):", "if False:",
           f"{_ATTACKS}::test_a_contract_that_a_change_breaks_is_named"),
    Mutant("a turn of others is no breach", "contracts", "any(of not in (agent, TOGETHER) for", "any(False for",
           f"{_ATTACKS}::test_a_contract_that_a_change_breaks_is_named"),
    Mutant("limits are no contract", "contracts", "new.spent + new.held > max(limit, gone)",
           "new.spent + new.held > max(limit, gone) + 1", f"{_ATTACKS}::test_limits_and_halts_are_contracts"),
    Mutant("what is freed is no contract", "contracts", "old.held - new.held <= drawn", "True",
           f"{_ATTACKS}::test_a_contract_that_a_change_breaks_is_named"),
    Mutant("a halt may be lifted in its epoch", "contracts",
           "if old.halt is None or new.epoch != old.epoch:", "if True:",
           f"{_ATTACKS}::test_limits_and_halts_are_contracts"),
    Mutant("what was not leased is drawn", "drawing",
           "return most if leased is None else smaller(most, leased.amount)",
           "return most", f"{_LEASES}::test_what_was_leased_is_drawn_and_no_more"),
    Mutant("a lease of another window is drawn", "state", "return found if found.window == window else Leased(window)",
           "return found", f"{_LEASES}::test_a_lease_of_another_window_is_none_of_this_one"),
    Mutant("what went back is drawn", "transition", "here._replace(amount=here.amount - amount)", "here",
           f"{_LEASES}::test_what_went_back_is_not_drawn"),
    Mutant("more goes back than was not drawn", "contracts", "leased.amount < account.spent + account.held", "False",
           f"{_LEASES}::test_no_more_goes_back_than_was_not_drawn"),
    Mutant("shares leave out what others have", "step", "used = (elsewhere + spent + held + amount) * 100",
           "used = (spent + held + amount) * 100",
           f"{_LEASES}::test_shares_are_of_what_all_processes_have_used"),
    Mutant("somebody is halted for what is left", "drawing",
           "leased.elsewhere + leased.amount + least <= most", "False",
           f"{_LEASES}::test_nobody_is_halted_for_what_the_ledger_may_still_have"),
    Mutant("what was drawn without a ledger is forgotten", "transition",
           "return account.spent + account.held if account.window == window else 0", "return 0",
           f"{_LEASES}::test_what_was_drawn_before_there_was_a_ledger_stays_drawn"),
    Mutant("each worker counts all repeats", "step", "max(1, repeats.limit // state.workers)", "repeats.limit",
           f"{_LEASES}::test_each_of_several_workers_counts_its_share_of_what_is_repeated"),
    Mutant("a hash leaves out what is held", "state_digest", "{each.spent},{each.held},", "{each.spent},",
           f"{_STEP}::test_the_hash_tells_every_account_apart"),
)


_QUICKLY = ("-q", "-x", "--no-header", "--tb=line", "-W", "ignore", "-p", "no:cacheprovider")


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module with its fault instead of the one on disk."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, fullname, path, target=None):
        if fullname != f"kernel.{self.mutant.module}":
            return None
        origin = importlib.machinery.PathFinder.find_spec(fullname, path)
        self.source = origin.loader.get_source(fullname)
        return importlib.util.spec_from_loader(fullname, self, origin=origin.origin)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(mutated(self.source, self.mutant), module.__spec__.origin, "exec"), module.__dict__)


def mutated(source: str, mutant: Mutant) -> str:
    """The source with the fault. ValueError where it does not stand there exactly once."""
    if source.count(mutant.before) != 1:
        times = source.count(mutant.before)
        raise ValueError(f"{mutant.name}: {mutant.before!r} stands {times} times in {mutant.module}")
    return source.replace(mutant.before, mutant.after)


def _tested(mutant: Mutant | None, tests: list[str]) -> tuple[int, str]:
    """What pytest says of tests with a fault, in a child of this process; 0 where they all pass."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        if mutant is not None:
            sys.meta_path.insert(0, _Mutated(mutant))
        with contextlib.redirect_stdout(io.StringIO()) as told:
            status = pytest.main([*_QUICKLY, *tests])
        os.write(writing, told.getvalue()[-2000:].encode(errors="replace"))
        os._exit(int(status))
    os.close(writing)
    with os.fdopen(reading, errors="replace") as end:
        said = end.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def main(names: list[str]) -> None:
    here = os.path.dirname(os.path.relpath(__file__))
    wanted = [mutant for mutant in MUTANTS if mutant.name in names]
    untouched = sorted({f"{here}/{mutant.seen_by}" for mutant in wanted})
    print(json.dumps(["", *_tested(None, untouched)]), flush=True)
    for mutant in wanted:
        print(json.dumps([mutant.name, *_tested(mutant, [f"{here}/{mutant.seen_by}"])]), flush=True)


if __name__ == "__main__":
    # What every child needs, and nothing of the kernel.
    import hypothesis.stateful  # noqa: F401
    import pytest
    import z3  # noqa: F401

    assert "kernel" not in sys.modules
    main(sys.argv[1:])
