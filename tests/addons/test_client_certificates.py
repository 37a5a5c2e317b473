"""The CA of clients as a policy names it, and what a certificate says of its client."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from addons import client_authority, client_certificates, policy_store
from addons.client_authority import Authority, AuthorityError
from addons.client_certificates import ClientCertificate, failure
from addons.governed import prepare
from addons.home import Home
from addons.identity import Registry
from addons.policy_files import load_policy, read_policy
from kernel.errors import PolicyError
from kernel.verdict import Code
from tests.certificates import DAY, SERVERS, Issued, authority, issued

NOW = datetime.now(UTC)
CA = authority()
POLICY = b"version: 1\nidentity: {cert: {ca: clients.pem}}\n"


def trusted(*authorities: Issued) -> Authority:
    return Authority(b"".join(each.pem for each in authorities))


def name(client: Issued, by: Authority) -> str:
    return ClientCertificate(client.certificate, client.through).name_by(by)


BELOW = authority("below", above=CA)
FOREIGN = authority()


@pytest.mark.parametrize(("client", "told"), [
    pytest.param(issued(CA, "coder-1"), "coder-1", id="of the CA"),
    pytest.param(issued(CA, "coder-1", use=None), "coder-1", id="for any use"),
    pytest.param(issued(BELOW, "coder-1"), "coder-1", id="of a CA below it, sent along"),
    pytest.param(issued(CA, "Coder One"), "Coder One", id="with a name that is no id: the kernel's to refuse"),
    pytest.param(issued(CA), "", id="without a name"),
    pytest.param(issued(CA, "coder-1", "ci"), "", id="with two names"),
    pytest.param(issued(CA, "coder-1", use=SERVERS), "", id="for servers"),
    pytest.param(issued(CA, "coder-1", ends=-timedelta(minutes=1)), "", id="expired"),
    pytest.param(issued(FOREIGN, "coder-1"), "", id="of another CA with the same name"),
    pytest.param(issued(None, "coder-1"), "", id="signed by itself"),
    pytest.param(issued(issued(CA, "ci"), "coder-1"), "", id="signed by another client"),
])
def test_a_certificate_names_an_agent_only_where_the_ca_has_signed_it_for_a_client(client, told):
    assert name(client, trusted(CA)) == told


def test_a_certificate_without_those_in_between_names_nobody():
    client = issued(BELOW, "coder-1")

    assert ClientCertificate(client.certificate).name_by(trusted(CA)) == ""
    assert ClientCertificate(client.certificate).name_by(trusted(BELOW)) == "coder-1"


def test_a_certificate_is_asked_of_each_ca_that_comes_into_force():
    certificate = ClientCertificate(issued(CA, "coder-1").certificate)
    other = trusted(authority("others"))
    both = Authority(other.pem + CA.pem)

    assert [certificate.name_by(each) for each in (trusted(CA), both, other, both)] == [
        "coder-1", "coder-1", "", "coder-1"]


def test_a_certificate_that_expires_on_an_open_connection_names_nobody_from_then_on(monkeypatch):
    certificate, ca = ClientCertificate(issued(CA, "coder-1").certificate), trusted(CA)
    before = certificate.name_by(ca)
    monkeypatch.setattr(client_certificates, "time", (NOW + 2 * DAY).timestamp)

    assert (before, certificate.name_by(ca)) == ("coder-1", "")


@pytest.mark.parametrize(("error", "told"), [
    ("OpenSSL Error([('SSL routines', '', 'peer did not return a certificate')])",
     ("no_client_certificate", Code.IDENTITY_REQUIRED)),
    ("The client may not trust us (Certificate verify failed: unsuitable certificate purpose)",
     ("client_certificate_refused", Code.IDENTITY_REFUSED)),
    ("The client does not trust the proxy's certificate for x (tlsv1 alert unknown ca)", ("handshake_failed", None)),
    ("", ("handshake_failed", None)),
])
def test_a_failed_handshake_is_told_by_its_reason(error, told):
    assert failure(error) == told


# The file


@pytest.fixture
def file(tmp_path):
    return tmp_path / "clients.pem"


def test_of_a_file_its_certificates_are_kept_and_nothing_else(file):
    file.write_bytes(b"Our CA, until spring\n" + CA.pem + b"and the next one\r\n" + FOREIGN.pem)

    assert client_authority.read(file, NOW) == trusted(CA, FOREIGN)


def test_an_expired_ca_may_stand_beside_one_that_holds(file):
    old = authority(ends=-DAY)
    file.write_bytes(old.pem + CA.pem)

    assert client_authority.read(file, NOW) == trusted(old, CA)


WRONG = {
    "No such file or directory": lambda file: None,
    "holds no certificate that can be read": lambda file: file.write_bytes(b"none\n"),
    "Is a directory|is not a file": Path.mkdir,
    "is not a file": os.mkfifo,
    "CN=coder-1 is not a CA": lambda file: file.write_bytes(CA.pem + issued(CA, "coder-1").pem),
    "expired on 20": lambda file: file.write_bytes(authority(ends=-DAY).pem),
    "is larger than 1048576 bytes": lambda file: file.write_bytes(CA.pem * (2**20 // len(CA.pem) + 1)),
    "holds a private key": lambda file: file.write_bytes(CA.pem + CA.key_pem),
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_file_that_is_no_cas_is_refused(file, problem):
    WRONG[problem](file)

    with pytest.raises(AuthorityError, match=problem):
        client_authority.read(file, NOW)


# The policy


@pytest.fixture
def policy(tmp_path, file):
    file.write_bytes(CA.pem)
    path = tmp_path / "policy.yaml"
    path.write_bytes(POLICY)
    return path


def test_the_ca_lies_beside_the_policy_that_names_it(policy, monkeypatch):
    monkeypatch.chdir("/")

    assert prepare([policy], frozenset()).client_authority == trusted(CA)


def test_the_ca_may_be_named_by_its_whole_path(policy, file, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    moved = file.rename(other / "ca.pem")
    policy.write_bytes(POLICY.replace(b"clients.pem", bytes(moved)))

    assert prepare([policy], frozenset()).client_authority == trusted(CA)


def test_of_several_tiers_the_ca_lies_beside_the_first(tmp_path, policy):
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "team.yaml").write_bytes(b"version: 1\ntier: team\nunmatched: pass\n")
    policy.write_bytes(b"tier: platform\n" + POLICY)

    assert prepare([folder / "team.yaml", policy], frozenset()).client_authority == trusted(CA)


def test_a_policy_without_its_ca_does_not_load_and_the_place_is_told(policy, file):
    file.unlink()

    for load in (lambda: prepare([policy], frozenset()), lambda: load_policy([policy])):
        with pytest.raises(PolicyError) as refused:
            load()
        (finding,) = refused.value.findings
        assert (finding.code, finding.position.line, finding.position.column) == ("E230", 2, 23)
        assert str(file) in finding.message


def test_another_ca_is_another_policy(policy, file):
    before = prepare([policy], frozenset()).policy.digest
    checked = load_policy([policy]).policy.digest
    file.write_bytes(FOREIGN.pem)

    assert prepare([policy], frozenset()).policy.digest != before == checked


def test_what_is_kept_of_a_policy_holds_its_ca_and_is_read_without_the_file(home: Home, policy, file):
    registry = Registry(home.paths.agents)
    governed = prepare([policy], frozenset())
    policy_store.keep(governed, home.paths)
    file.unlink()

    again = policy_store.kept(governed.policy.digest, [policy], home.paths, registry)
    copy = home.paths.policies / f"{governed.policy.digest}.yaml"
    assert again.client_authority == trusted(CA)
    assert again.policy.digest == governed.policy.digest
    assert load_policy([copy]).policy.digest == governed.policy.digest
    assert read_policy([(str(copy), copy.read_bytes())]).policy.digest == governed.policy.digest


def test_beside_prices_the_ca_is_kept_too(home: Home, policy, file):
    policy.write_bytes(POLICY + b"budgets: [{budget: b, every: day, each: {usd: 5}, when-used: {100%: deny}}]\n")
    governed = prepare([policy], frozenset())
    policy_store.keep(governed, home.paths)
    file.unlink()

    again = policy_store.kept(governed.policy.digest, [policy], home.paths, Registry(home.paths.agents))
    assert (again.client_authority, again.policy.digest) == (trusted(CA), governed.policy.digest)
