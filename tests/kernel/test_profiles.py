"""Stories of whole sessions: each profile stops runaway clients for the right reason, and honest work goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel.budget import Effect, Unit
from kernel.profiles import PROFILES
from kernel.verdict import Action, Code, Verdict
from tests.kernel.accounting import DENIED, Kernel, policy

DAY = 86400
README = Path(__file__).parents[2] / "kernel" / "README.md"
BAD_PASSWORD = Verdict(Action.DENY, Code.IDENTITY_REFUSED)


@pytest.fixture(params=PROFILES)
def profile(request):
    return request.param


def session(profile):
    return Kernel(policy(profile=profile))


def limit(profile, name):
    return next(counter.limit for counter in PROFILES[profile] if counter.name == name)


def works(kernel, status=200, down=1000, result="completed", **asked):
    """One request with its answer; True where it passed."""
    passed = kernel.ask(**asked).verdict.lets_through
    if passed:
        kernel.end(status=status, down=down, result=result)
    kernel.entries.clear()
    return passed


def first_refusal(kernel, requests, every_seconds=0.0, **answered):
    """How many requests passed before the first that did not, and what that was told."""
    for number, asked in enumerate(requests):
        kernel.now += round(every_seconds * 1_000_000)
        decided = kernel.ask(**asked)
        if not decided.verdict.lets_through and decided.verdict is not DENIED:
            return number, decided.verdict
        if decided.verdict.lets_through:
            kernel.end(**{"status": 200, "down": 1000, **answered})
        kernel.entries.clear()
    return None


# What each profile does to a runaway: after how many requests, with which code, and whether it halts.
RETRY_LOOP = {"conservative": (90, "STAGNATION"), "balanced": (300, "STAGNATION"), "aggressive": (1001, "RATE_LIMITED")}
FAN_OUT = {"conservative": (100, Action.DENY), "balanced": (500, Action.DENY), "aggressive": (5_000, Action.DENY)}
HAMMERING = {"conservative": (10, Action.DENY), "balanced": (30, Action.DENY), "aggressive": (100, Action.DENY)}
SLOW_DRIP = {"conservative": Action.DENY, "balanced": Action.DENY, "aggressive": Action.DENY}


def test_a_loop_that_asks_the_same_and_gets_the_same_stagnates(profile):
    passed, verdict = first_refusal(session(profile), ({"request": "status"} for _ in range(2000)), every_seconds=1)

    assert (passed, verdict.code) == RETRY_LOOP[profile]
    assert verdict.action is not Action.HALT


def test_a_fan_out_over_hosts_drifts(profile):
    hosts = ({"request": f"r{n}", "place": f"h{n}.example:443"} for n in range(6000))
    passed, verdict = first_refusal(session(profile), hosts, every_seconds=0.01)

    assert (passed, verdict.action) == FAN_OUT[profile]
    assert verdict.code is Code.EXPLORATION_DRIFT


def test_a_client_that_hammers_at_a_refusal_persists(profile):
    passed, verdict = first_refusal(session(profile), ({"verdict": DENIED} for _ in range(200)), every_seconds=1)

    assert (passed, verdict.action) == HAMMERING[profile]
    assert verdict.code is Code.PERSISTENCE_LIMIT


def test_a_client_that_hammers_with_another_query_each_time_persists_too(profile):
    queries = ({"verdict": DENIED, "request": f"r{n}"} for n in range(30_000))
    passed, verdict = first_refusal(session(profile), queries, every_seconds=0.02)

    assert passed <= 256 * limit(profile, "persistence")
    assert verdict.code is Code.PERSISTENCE_LIMIT


def test_a_slow_drip_of_ever_different_requests_ends_at_the_fuse(profile):
    kernel, key = session(profile), ("steps counter", Unit.REQUESTS, "coder")
    works(kernel, request="first")
    begun = kernel.state.account(key)
    kernel.state.accounts[key] = begun._replace(spent=limit(profile, "steps") - 100)
    drops = ({"request": f"drop-{n}", "body_bytes": 40} for n in range(200))
    passed, verdict = first_refusal(kernel, drops, every_seconds=60, down=0)

    assert (passed, verdict.code, verdict.action) == (100, Code.EXTERNAL, SLOW_DRIP[profile])


def test_an_agent_that_a_profile_halts_stays_halted_for_that_reason():
    kernel = session("conservative")
    first_refusal(kernel, ({"verdict": DENIED, "risk": 10} for _ in range(200)))
    kernel.wait(400 * DAY)

    assert kernel.ask().verdict.code is Code.AGENT_HALTED
    assert kernel.state.agent("coder").halt.reason == Code.OVERRISK


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_halts_for_what_rules_count_alone(profile):
    assert [each.name for each in PROFILES[profile] if each.then is Effect.HALT] == ["risk"]


def test_an_install_of_packages_is_work():
    kernel, passed = session("balanced"), 0
    for number in range(2000):
        kernel.now += 20_000
        again = number % 4 == 0
        passed += works(kernel, place=f"registry{number % 5}.example:443", request=f"p{number}",
                        status=304 if again else 200, down=0 if again else 1000 * number)

    assert passed == 2000


def test_a_month_of_installs_is_work():
    kernel, key = session("balanced"), ("steps counter", Unit.REQUESTS, "coder")
    works(kernel, request="first")
    kernel.state.accounts[key] = kernel.state.account(key)._replace(spent=20 * 20 * 2000)

    assert works(kernel, request="one more")


def test_a_clone_and_a_conversation_are_work():
    kernel = session("balanced")
    assert works(kernel, place="git.example:443", request="info-refs", down=40_000)
    assert works(kernel, place="git.example:443", request="upload-pack ls-refs", method="POST", down=900)
    assert works(kernel, place="git.example:443", request="upload-pack fetch", method="POST", down=3 * 10**9)
    for turn in range(500):
        kernel.wait(8)
        assert works(kernel, place="llm.example:443", request=f"turn-{turn}", method="POST", body_bytes=100 * turn)


def test_an_hour_in_which_the_origin_fails_is_no_fault_of_the_client():
    kernel = session("balanced")
    for number in range(1800):
        kernel.wait(2)
        answer = {"status": 503} if number % 3 else {"status": None, "result": "failed"}
        assert works(kernel, request="build", **answer)


def test_a_page_with_two_hundred_denied_parts_can_be_read_and_read_again():
    kernel = session("balanced")
    for _ in range(10):
        kernel.wait(30)
        assert works(kernel, request="page")
        told = {kernel.ask(verdict=DENIED, place=f"ads{part % 40}.example:443", request=f"part-{part}").verdict.code
                for part in range(200)}
        assert told == {Code.RULE_DENY}

    assert works(kernel, request="next page")


def test_a_poller_of_every_minute_goes_on():
    kernel = session("balanced")
    for _ in range(2 * 24 * 60):
        kernel.wait(60)
        assert works(kernel, request="status")


def test_bad_passwords_in_an_agents_name_leave_it_alone(profile):
    kernel = session(profile)
    for _ in range(1000):
        kernel.ask(verdict=BAD_PASSWORD)

    assert works(kernel)
    assert kernel.state.agent("coder").halt is None


@pytest.mark.checkout
def test_the_numbers_that_are_told_are_the_numbers():
    table = README.read_text().partition("### Profiles")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*? \| .*? \| .*?) \|", table, re.MULTILINE))

    assert rows == {name: " | ".join(told(profile, name) for profile in PROFILES)
                    for name in ("risk", "exploration", "persistence", "stagnation", "steps")}


def told(profile, name):
    counter = next(each for each in PROFILES[profile] if each.name == name)
    within = {None: "", 600: " in 10m", 3600: " in 1h"}[counter.within_seconds]
    return f"{short(counter.limit)}{within}: {counter.then}"


def short(number):
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if number % size == 0:
            return f"{number // size}{unit}"
    return str(number)
