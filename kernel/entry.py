"""The entries of the log. A builder gives a type and its own fields; `common` gives what every entry begins with.

kernel/README.md, section "The log", says what each field means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from blake3 import blake3

from kernel.canonical import Value, encode
from kernel.merkle import Tree

if TYPE_CHECKING:
    from kernel.state import Draw

type Body = dict[str, Value]

VERSION = 1
_CERTIFICATE = b"governor/audit/lane/v1\0"
_POSSESSION = b"governor/audit/rotate/v1\0"
_COMPROMISE = b"governor/audit/compromised/v1\0"
_COMMITMENT = b"gov/commit/v1\0"
# The accounts that a step may read where nothing is counted.
EMPTY_SET = blake3(b"governor/kernel/accounts/v1\0" + encode({})).hexdigest()


def common(kind: str, seq: int, prev: str, ts: str, mono_us: int, lane: str) -> Body:
    """What every entry begins with. `prev` is 64 hex digits, `ts` comes from `timestamp`."""
    return {"v": VERSION, "type": kind, "seq": seq, "prev": prev, "ts": ts, "mono_us": mono_us, "lane": lane}


def timestamp(moment: datetime) -> str:
    """An aware moment as the log writes it: `2026-01-02T03:04:05.000006Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def commitment(salt: bytes, name: str, value_canonical: bytes) -> str:
    """The hex that stands for a value in a field `NAME$c`; `salt` is 32 random bytes of this field of this entry."""
    return blake3(b"".join((_COMMITMENT, name.encode(), b"\0", value_canonical)), key=salt).hexdigest()


def certificate_bytes(log_id: str, lane: str, key: str) -> bytes:
    """What the root key signs to certify a lane's key (`key` is the verifier key text)."""
    return _CERTIFICATE + encode({"key": key, "lane": lane, "log_id": log_id})


def possession_bytes(log_id: str, lane: str, key: str, prev: str, seq: int) -> bytes:
    """What a lane's next key signs to prove that its holder has it. `prev` and `seq` are those of the key_rotate."""
    return _POSSESSION + encode({"key": key, "lane": lane, "log_id": log_id, "prev": prev, "seq": seq})


def compromise_bytes(log_id: str, lane: str, kid: str, entries: int, head: str) -> bytes:
    """What the root key signs to say that a key of a lane is in other hands: it is trusted up to that head."""
    return _COMPROMISE + encode({"entries": entries, "head": head, "kid": kid, "lane": lane, "log_id": log_id})


def genesis(log_id: str, origin: str, root: str, created: str, governor: str) -> Body:
    """The first entry of the log, signed by the root key. `root` is its verifier key."""
    return {
        "type": "genesis",
        "log_id": log_id,
        "origin": origin,
        "root": root,
        "created": created,
        "governor": governor,
    }


def kernel_identity(version: str, digest: str) -> Body:
    """The `kernel` field of `lane_open` and `policy_load`."""
    return {"version": version, "digest": digest}


def sibling(lane: str, entries: int, head: str) -> Body:
    """One item of `siblings`: what another lane held when this one was opened."""
    return {"lane": lane, "entries": entries, "head": head}


def lane_open(key: str, certificate: str, kernel: Body, siblings: Sequence[Body], loss: Body | None = None) -> Body:
    """The first entry of a lane (after genesis in the first one), signed by the lane's key.

    `loss` is what a lane that succeeds another says of it (kernel/loss.py).
    """
    said: Body = {} if loss is None else {"loss": loss}
    return {
        **said,
        "type": "lane_open",
        "kernel": kernel,
        "key": key,
        "certificate": certificate,
        "siblings": list(siblings),
    }


def segment_open(segment: str, tree: Tree) -> Body:
    """The first entry of every segment but a lane's first. `segment` is its file, `tree` is over the entries before."""
    nodes: list[Value] = [None if node is None else node.hex() for node in tree.complete]
    return {"type": "segment_open", "segment": segment, "entries": tree.size, "tree": nodes}


def key_rotate(key: str, proof: str, reason: str) -> Body:
    """The last entry of a segment: the lane goes on with `key`. `proof` is base64 of its signature over
    `possession_bytes`, `reason` is size, time, policy or operator.
    """
    return {"type": "key_rotate", "key": key, "proof": proof, "reason": reason}


def key_compromised(
    of: str, kid: str, entries: int, head: str, reason: str, operator: str, by: str, statement: str
) -> Body:
    """The second entry of a lane that goes on in the place of `of`, whose key `kid` is in other hands.

    `statement` is base64 of the root's signature over `compromise_bytes`.
    """
    return {"type": "key_compromised", "of": of, "kid": kid, "entries": entries, "head": head, "reason": reason,
            "operator": operator, "by": by, "statement": statement}


def heartbeat() -> Body:
    """Nothing was to be written since the entry before; without it a silence and a gap would look the same."""
    return {"type": "heartbeat"}


def state_snapshot(at: int, digest: str, size_bytes: int, agents: int, accounts: int) -> Body:
    """The state that the entries of this lane below `at` make is kept in a file: its blake3, its length, its extent."""
    return {"type": "state_snapshot", "at": at, "digest": digest, "bytes": size_bytes, "agents": agents,
            "accounts": accounts}


def policy_load(policy: str, files: Sequence[str], mode: str, kernel: Body) -> Body:
    """A policy is in force from here on. `policy` is its digest."""
    return {"type": "policy_load", "policy": policy, "files": list(files), "mode": mode, "kernel": kernel}


def request_facts(
    method: str | None,
    scheme: str | None,
    host: str | None,
    port: int | None,
    path_commitment: str | None,
    address: str | None,
    body_bytes: int | None,
    content_type: str | None,
) -> Body:
    """The `in` field of a decision; None is what the stage does not know."""
    return {
        "method": method,
        "scheme": scheme,
        "host": host,
        "port": port,
        "path$c": path_commitment,
        "address": address,
        "body_bytes": body_bytes,
        "content_type": content_type,
    }


def draw(taken: Draw) -> Body:
    """One item of `draws`: what a decision takes of an account. `lease` is null where no ledger is asked for it."""
    return {"budget": taken.budget, "for": taken.agent, "unit": taken.unit, "window": taken.window,
            "amount": taken.amount, "lease": taken.lease}


def lease(act: str, pool: str, number: int | None, key: tuple[str, str, str], window: int, amount: int,
          elsewhere: int) -> Body:
    """What a ledger said of an account. `pool` is the ledger's id, `number` counts its leases in this log.

    `act` granted: `amount` more may be drawn. settled: `amount` went back. lost: `amount` may not be drawn any more.
    refused: nothing. `elsewhere` is what other processes have of it then.
    """
    budget, unit, agent = key
    return {"type": "lease", "act": act, "pool": pool, "lease": number, "budget": budget, "unit": unit,
            "for": agent or None, "window": window, "amount": amount, "elsewhere": elsewhere}


def decision(
    stage: str,
    flow: str,
    agent: str | None,
    by: str,
    policy: str,
    facts: Body,
    groups: Sequence[str],
    verdict: str,
    rule: str | None,
    code: str,
    reason: str,
    mode: str,
) -> Body:
    """One verdict, written before it takes effect."""
    return {
        "type": "decision",
        "stage": stage,
        "flow": flow,
        "agent": {"id": agent, "by": by},
        "policy": policy,
        "in": facts,
        "groups": list(groups),
        "pre": EMPTY_SET,
        "post": EMPTY_SET,
        "draws": [],
        "verdict": verdict,
        "rule": rule,
        "code": code,
        "reason": reason,
        "mode": mode,
    }


def outcome(
    flow: str,
    decision: str,
    result: str,
    status: int | None = None,
    bytes_up: int = 0,
    bytes_down: int = 0,
    part: int | None = None,
    code: str | None = None,
) -> Body:
    """What became of a flow that was let through. `decision` is its entry as LANE/SEQ."""
    return {
        "type": "outcome",
        "flow": flow,
        "decision": decision,
        "result": result,
        "status": status,
        "bytes_up": bytes_up,
        "bytes_down": bytes_down,
        "part": part,
        "code": code,
    }


def connection(client: str, result: str, code: str | None) -> Body:
    """A client connection that ended without a request that could be judged."""
    return {"type": "connection", "client": client, "result": result, "code": code}


def refusals(agent: str | None, counts: Mapping[str, int], start: str, end: str) -> Body:
    """Refusals of one agent that were counted, not written one by one, between two timestamps."""
    return {"type": "refusals", "agent": agent, "counts": dict(counts), "from": start, "to": end}


def fault(where: str, error: str, code: str, flow: str | None) -> Body:
    """A fault that was answered with a refusal. `error` is a class name: messages may quote what an agent sent."""
    return {"type": "fault", "where": where, "error": error, "code": code, "flow": flow}


def operator(act: str, agent: str | None, reason: str, operator: str, by: str) -> Body:
    """Something an operator did."""
    return {"type": "operator", "act": act, "agent": agent, "reason": reason, "operator": operator, "by": by}


def halt(agent: str, reason: str, rule: str | None, decision: str | None, sources: Sequence[str]) -> Body:
    """The kernel halted an agent. `sources` are the client addresses from which it comes."""
    return {"type": "halt", "agent": agent, "reason": reason, "rule": rule, "decision": decision,
            "sources": list(sources)}


def preventive(
    agent: str, do: str, until: str | None, origin: str, path: Sequence[str], hop: int, cause: str, by: str, *,
    degraded: bool,
) -> Body:
    """An agent is held back because another one was halted, by the decision or entry `cause`; `until` null: for good.

    `by` is the part of the policy's `cascade:` that says so. `degraded`: the blast radius did not allow more.
    """
    return {"type": "preventive", "agent": agent, "do": do, "until": until, "origin": origin, "path": list(path),
            "hop": hop, "cause": cause, "by": by, "degraded": degraded}


def clock(wall: str, expected: str) -> Body:
    """The clock of the machine jumped: it shows `wall`, and by this process or by the log it should be `expected`."""
    return {"type": "clock", "wall": wall, "expected": expected}


def config(options: Mapping[str, Value], versions: Mapping[str, str]) -> Body:
    """The settings this process runs with, fixed from here on."""
    return {"type": "config", "options": dict(options), "versions": dict(versions)}


def anchor(kind: str, target: str, of: str, size: int, root: str, proof: Mapping[str, Value]) -> Body:
    """An anchor took the head of `size` entries of lane `of`: `root` in hex, and what it answered."""
    return {"type": "anchor", "kind": kind, "target": target, "of": of, "size": size, "root": root,
            "proof": dict(proof)}


def recovery(segment: str, offset: int, size_bytes: int, digest: str) -> Body:
    """An unfinished last line that was put aside and cut off at a start."""
    return {"type": "recovery", "segment": segment, "offset": offset, "bytes": size_bytes, "blake3": digest}


def close(reason: str) -> Body:
    """The lane was closed in order."""
    return {"type": "close", "reason": reason}
