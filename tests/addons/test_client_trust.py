"""What is laid out for clients: everything they need to trust the CA, and nothing lost of what they trusted."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

from addons import authority, service_user
from addons.client_trust import browsers, java_stores, laid, system_store
from addons.client_trust.certificates import at, in_text, pem

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
needs_certutil = pytest.mark.skipif(shutil.which("certutil") is None, reason="certutil is not installed")


def made(name: str, until: datetime = NOW + timedelta(days=1)) -> bytes:
    """A certificate of somebody's."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(7).not_valid_before(until - timedelta(days=9)).not_valid_after(until)
        .sign(key, hashes.SHA256()))
    return certificate.public_bytes(Encoding.DER)


SYSTEMS, USERS, EXPIRED = made("system"), made("user"), made("expired", NOW - timedelta(days=1))


class User:
    """Somebody with a home, on a machine with a trust store; what is laid out for a command of theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.home = folder, folder / "root", folder / "home"
        self.ca_folder = folder / "ca"
        for each in (self.root, self.home, self.ca_folder):
            each.mkdir()
        self.environment: dict[str, str] = {}
        self.put(self.root / "etc/ssl/certs/ca-certificates.crt", pem([SYSTEMS]))
        self.certificate = authority.for_run(self.ca_folder, "0123abcd", NOW).read_bytes()
        (self.ca,) = in_text(self.certificate)

    def put(self, path: Path, content: bytes | str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def bundle(self, *certificates: bytes) -> Path:
        """A bundle of theirs."""
        return self.put(self.folder / "theirs.pem", pem(certificates))

    def laid(self, name: str = "laid") -> laid.Laid:
        (self.folder / name).mkdir()
        return laid.lay_out(self.folder / name, self.certificate, self.environment, self.home, self.root)

    def source(self, result: laid.Laid, place: str) -> Path:
        """What lies over a place of the machine."""
        return over(result, self.root / place)


def over(result: laid.Laid, place: Path) -> Path:
    """What is mounted over a place."""
    (found,) = [mount.source for mount in result.mounts if mount.target == place.resolve()]
    return found


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_the_bundle_has_the_system_the_user_and_the_ca_each_once(user: User) -> None:
    user.environment = {"SSL_CERT_FILE": str(user.bundle(USERS, SYSTEMS)), "CURL_CA_BUNDLE": str(user.bundle(USERS))}

    result = user.laid()

    assert list(at(result.bundle)) == [SYSTEMS, USERS, user.ca]
    assert {result.variables[name] for name in laid.REPLACING} == {str(result.bundle)}


@pytest.mark.parametrize(("file", "text"), [
    pytest.param("home/.npmrc", "cafile={}", id="npm"),
    pytest.param("root/etc/npmrc", 'cafile = "{}"', id="npm of the machine"),
    pytest.param("home/.gitconfig", "[http]\n\tsslCAInfo = {}", id="git"),
    pytest.param("home/.config/git/config", '[http "https://git.example.org"]\n  sslcainfo={}', id="git for one host"),
    pytest.param("home/.config/pip/pip.conf", "[global]\ncert = {}", id="pip"),
    pytest.param("home/.aws/config", "[default]\nca_bundle = {}", id="aws"),
    pytest.param("home/.cargo/config.toml", '[http]\ncainfo = "{}"', id="cargo"),
    pytest.param("home/.wgetrc", "ca_certificate={}", id="wget"),
    pytest.param("home/.curlrc", '--cacert "{}"', id="curl"),
    pytest.param("root/etc/php/8.2/cli/php.ini", "curl.cainfo = {}", id="php curl"),
    pytest.param("root/etc/php/8.2/cli/conf.d/9.ini", 'openssl.cafile="{}"', id="php streams"),
])
def test_what_a_configuration_names_is_trusted_still(user: User, file: str, text: str) -> None:
    user.put(user.folder / file, text.format(user.bundle(USERS)) + "\n")

    assert USERS in set(at(user.laid().bundle))


def test_a_certificate_that_stands_in_npms_own_file_is_trusted_still(user: User) -> None:
    user.put(user.home / ".npmrc", f'ca="{pem([USERS]).decode().strip()}"\n'.replace("\n", "\\n"))

    assert USERS in set(at(user.laid().bundle))


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "GIT_SSL_CAPATH", "REQUESTS_CA_BUNDLE"])
def test_what_lies_in_a_folder_of_the_users_is_trusted_still(user: User, variable: str) -> None:
    user.put(user.folder / "theirs" / "one.pem", pem([USERS]))
    (user.folder / "theirs" / "link.0").symlink_to("one.pem")
    user.environment = {variable: f"{user.folder / 'none'}:{user.folder / 'theirs'}"}

    assert list(at(user.laid().bundle)) == [SYSTEMS, USERS, user.ca]


def test_a_bundle_that_is_half_broken_gives_what_is_whole(user: User) -> None:
    whole = pem([USERS])
    none = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\xff\n"
    half = user.put(user.folder / "half.pem", whole[:200] + b"\n" + none + pem([EXPIRED]) + whole)
    user.environment = {"SSL_CERT_FILE": str(half)}

    assert list(at(user.laid().bundle)) == [SYSTEMS, EXPIRED, USERS, user.ca]


def test_what_is_no_bundle_keeps_nobody_waiting(user: User) -> None:
    os.mkfifo(user.folder / "fifo")
    user.environment = {"SSL_CERT_FILE": str(user.folder / "fifo"), "PIP_CERT": "/dev/zero", "AWS_CA_BUNDLE": "/none",
                        "SSL_CERT_DIR": "/dev", "NODE_EXTRA_CA_CERTS": str(user.folder)}

    assert list(at(user.laid().bundle)) == [SYSTEMS, user.ca]


def test_node_and_deno_are_given_what_they_were_given_and_the_ca(user: User) -> None:
    user.environment = {"NODE_EXTRA_CA_CERTS": str(user.bundle(USERS))}

    variables = user.laid().variables

    assert list(at(Path(variables["NODE_EXTRA_CA_CERTS"]))) == [USERS, user.ca]
    assert variables["DENO_CERT"] == variables["NODE_EXTRA_CA_CERTS"]


def test_a_client_that_nobody_measured_is_told_of_the_bundle_where_the_user_told_it_of_one(user: User) -> None:
    user.environment = {"NIX_SSL_CERT_FILE": str(user.bundle(USERS))}

    result = user.laid()

    assert result.variables["NIX_SSL_CERT_FILE"] == str(result.bundle)
    assert "HTTPLIB2_CA_CERTS" not in result.variables
    assert USERS in set(at(result.bundle))


def test_wget_keeps_its_other_settings(user: User) -> None:
    user.put(user.home / ".wgetrc", "tries = 3\nCACertificate = /theirs.pem\nca-certificate=/theirs.pem\nquiet=on\n")

    result = user.laid()

    assert Path(result.variables["WGETRC"]).read_text() == f"tries = 3\nquiet=on\nca_certificate = {result.bundle}\n"


def test_curls_own_file_is_replaced_only_where_it_names_what_is_trusted(user: User) -> None:
    user.put(user.home / ".curlrc", "silent\n")
    without = user.laid("without").variables
    user.put(user.home / ".curlrc", "silent\n--cacert /theirs.pem\ncapath=/theirs\n")
    replaced = user.laid("with").variables

    assert "CURL_HOME" not in without
    assert Path(replaced["CURL_HOME"], ".curlrc").read_text() == "silent\n"


@pytest.mark.parametrize(("before", "after"), [("", ":{}"), ("/theirs", "/theirs:{}"), ("/theirs:", "/theirs::{}")])
def test_php_reads_its_own_folders_first(user: User, before: str, after: str) -> None:
    user.environment = {"PHP_INI_SCAN_DIR": before} if before else {}

    result = user.laid()

    folder = Path(result.variables["PHP_INI_SCAN_DIR"].rpartition(":")[2])
    assert result.variables["PHP_INI_SCAN_DIR"] == after.format(folder)
    assert f'curl.cainfo="{result.bundle}"' in (folder / "governor.ini").read_text()


def test_java_keeps_its_options_its_roots_and_the_users_own_store(user: User) -> None:
    store = user.put(user.folder / "their store.p12", pkcs12.serialize_java_truststore(
        [pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(USERS), b"u")], BestAvailableEncryption(b"secret")))
    javas = made("java")
    user.put(user.root / "usr/lib/jvm/17/lib/security/cacerts", java_stores.written([javas]))
    theirs = f'-Xmx1g -Djavax.net.ssl.trustStore="{store}" -Djavax.net.ssl.trustStorePassword=secret'
    user.environment = {"JAVA_TOOL_OPTIONS": "-Xss1m", "JDK_JAVA_OPTIONS": theirs, "_JAVA_OPTIONS": "-Xint"}

    variables = user.laid().variables

    ours = variables["JAVA_TOOL_OPTIONS"].removeprefix("-Xss1m ")
    assert variables["JDK_JAVA_OPTIONS"] == f"{theirs} {ours}"
    assert "_JAVA_OPTIONS" not in variables
    held = set(java_stores.certificates((user.folder / "laid/java.p12").read_bytes()))
    assert held == {SYSTEMS, USERS, javas, user.ca}


def test_javas_older_form_is_read_up_to_what_is_no_certificate() -> None:
    def text(value: bytes) -> bytes:
        return len(value).to_bytes(2) + value

    def entry(der: bytes) -> bytes:
        return (2).to_bytes(4) + text(b"alias") + bytes(8) + text(b"X.509") + len(der).to_bytes(4) + der

    store = bytes.fromhex("feedfeed") + (2).to_bytes(4) + (3).to_bytes(4) + entry(SYSTEMS) + entry(USERS)

    assert list(java_stores.certificates(store + (1).to_bytes(4))) == [SYSTEMS, USERS]
    assert list(java_stores.certificates(store)) == [SYSTEMS, USERS]
    assert list(java_stores.certificates(b"\xfe\xed\xfe\xed\x00")) == []


def test_variables_set_twice_do_not_grow(user: User) -> None:
    once = laid.lay_variables(user.folder / "env", user.certificate, {}, user.home, user.root)

    twice = laid.lay_variables(user.folder / "env", user.certificate, once.variables, user.home, user.root)

    assert twice.variables == once.variables
    assert list(at(twice.bundle)) == [SYSTEMS, user.ca]


def test_debians_store_is_mounted_over_with_the_ca_in_it(user: User) -> None:
    certs = user.root / "etc/ssl/certs"
    user.put(user.root / "usr/share/one.pem", pem([SYSTEMS]))
    (certs / "one.pem").symlink_to("../../../usr/share/one.pem")
    user.put(certs / "java/cacerts", java_stores.written([SYSTEMS]))
    user.put(user.root / "usr/local/share/ca-certificates/theirs.crt", pem([USERS]))

    result = user.laid()

    copy = user.source(result, "etc/ssl/certs")
    assert os.readlink(copy / "one.pem") == "../../../usr/share/one.pem"
    assert (copy / "ca-certificates.crt").read_bytes() == result.bundle.read_bytes()
    assert user.ca in set(java_stores.certificates((copy / "java/cacerts").read_bytes()))
    assert list(at(copy / f"{system_store.subject_hash(user.ca)}.0")) == [user.ca]
    assert set(at(user.source(result, "usr/local/share/ca-certificates"))) == {USERS, user.ca}
    assert len(result.mounts) == 2


def test_fedoras_store_is_mounted_over_where_its_links_lead(user: User) -> None:
    shutil.rmtree(user.root / "etc/ssl")
    extracted = "etc/pki/ca-trust/extracted"
    user.put(user.root / extracted / "pem/tls-ca-bundle.pem", pem([SYSTEMS]))
    user.put(user.root / extracted / "java/cacerts", java_stores.written([SYSTEMS]))
    (user.root / "etc/pki/tls/certs").mkdir(parents=True)
    (user.root / "etc/pki/tls/certs/ca-bundle.crt").symlink_to("../../ca-trust/extracted/pem/tls-ca-bundle.pem")
    (user.root / "etc/ssl").mkdir()
    (user.root / "etc/ssl/certs").symlink_to("../pki/tls/certs")

    result = user.laid()

    assert user.source(result, f"{extracted}/pem/tls-ca-bundle.pem") == result.bundle
    assert user.ca in set(java_stores.certificates(user.source(result, f"{extracted}/java/cacerts").read_bytes()))
    assert user.source(result, "etc/pki/tls/certs").is_dir()
    assert {mount.target for mount in result.mounts} == {mount.target.resolve() for mount in result.mounts}


def test_every_mount_lies_over_something_of_its_own_kind(user: User) -> None:
    for name in (*system_store.HASHED, *system_store.ANCHORS):
        (user.root / name).mkdir(parents=True, exist_ok=True)
    for name in system_store.BUNDLES:
        user.put(user.root / name, pem([SYSTEMS]))

    mounts = user.laid().mounts

    assert all(mount.source.is_dir() == mount.target.is_dir() and mount.target.exists() for mount in mounts)
    assert all(one.target not in other.target.parents for one in mounts for other in mounts)


def test_openssl_finds_the_ca_by_its_name(user: User) -> None:
    asked = crypto.X509.from_cryptography(x509.load_der_x509_certificate(user.ca))

    assert system_store.subject_hash(user.ca) == f"{asked.subject_name_hash():08x}"


def test_a_browsers_policy_names_the_ca_beside_what_it_named(user: User) -> None:
    theirs = base64.b64encode(USERS).decode()
    managed = user.root / "etc/chromium/policies/managed"
    user.put(managed / "a.json", json.dumps({"CACertificates": [theirs], "HomepageLocation": "about:blank"}))
    user.put(managed / "broken.json", "{")

    copy = user.source(user.laid(), "etc/chromium") / "policies/managed"

    assert json.loads((copy / "governor.json").read_text()) == {
        "CACertificates": [theirs, base64.b64encode(user.ca).decode()]}
    assert json.loads((copy / "a.json").read_text()) == {"HomepageLocation": "about:blank"}
    assert json.loads((managed / "a.json").read_text())["CACertificates"] == [theirs]


def listed(folder: Path) -> str:
    return subprocess.run(["certutil", "-L", "-d", f"sql:{folder}"], capture_output=True, text=True).stdout


@needs_certutil
def test_a_copy_of_the_users_database_trusts_the_ca_and_the_original_is_as_it_was(user: User) -> None:
    theirs = user.home / ".pki/nssdb"
    theirs.mkdir(parents=True, mode=0o700)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{theirs}"], check=True)
    subprocess.run(["certutil", "-A", "-d", f"sql:{theirs}", "-n", "theirs", "-t", "C,,"], check=True, input=USERS)
    before = (theirs / "cert9.db").read_bytes()

    result = user.laid()

    copy = over(result, theirs)
    assert "theirs" in listed(copy)
    assert "governor-" in listed(copy)
    assert (theirs / "cert9.db").read_bytes() == before
    assert copy.stat().st_mode & 0o077 == 0
    assert result.missing == ()


def test_a_database_that_cannot_be_changed_is_named_and_left_alone(
        user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsers, "certutil", lambda *_, **__: False)
    (user.home / ".pki/nssdb").mkdir(parents=True)

    result = user.laid()

    assert str(user.home / ".pki/nssdb") in result.missing[0]
    assert all("nssdb" not in str(mount.target) for mount in result.mounts)


def test_everything_laid_out_can_be_read_by_everybody_and_holds_no_key(user: User) -> None:
    user.put(user.root / "etc/ssl/certs/java/cacerts", java_stores.written([SYSTEMS]))
    user.put(user.root / "etc/chromium/policies/managed/a.json", "{}")
    before = os.umask(0o077)
    try:
        user.laid()
    finally:
        os.umask(before)

    for path in (user.folder / "laid").rglob("*"):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
            assert path.is_dir() or b"PRIVATE KEY" not in path.read_bytes()


def test_what_was_laid_out_follows_the_ca(user: User) -> None:
    result = laid.lay_variables(user.folder / "env", user.certificate, {}, user.home, user.root)
    later = authority.for_run(folder_in(user, "later"), "4567cdef", NOW).read_bytes()

    laid.renew(user.folder / "env", user.certificate, later)

    (new,) = in_text(later)
    assert list(at(result.bundle)) == [SYSTEMS, new]
    assert list(at(user.folder / "env/extra.pem")) == [new]
    assert set(java_stores.certificates((user.folder / "env/java.p12").read_bytes())) == {SYSTEMS, new}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for another user")
def test_what_root_lays_out_in_a_home_of_governors_own_user_is_that_users_to_renew(user: User) -> None:
    os.chown(user.ca_folder, *service_user.chosen())

    laid.lay_variables(user.ca_folder / "trust", user.certificate, {}, user.home, user.root)

    owners = {path.stat().st_uid for path in [user.ca_folder / "trust", *(user.ca_folder / "trust").rglob("*")]}
    assert owners == {service_user.chosen()[0]}


@pytest.mark.parametrize("link", ["env", "env/php", "env/bundle.pem"])
def test_nothing_is_written_through_a_link(user: User, link: str) -> None:
    elsewhere = folder_in(user, "elsewhere")
    elsewhere.chmod(0o700)
    (user.folder / link).parent.mkdir(exist_ok=True)
    (user.folder / link).symlink_to(elsewhere / "file" if link.endswith("pem") else elsewhere)

    with contextlib.suppress(NotADirectoryError):
        laid.lay_variables(user.folder / "env", user.certificate, {}, user.home, user.root)

    assert (list(elsewhere.iterdir()), elsewhere.stat().st_mode & 0o777) == ([], 0o700)


def folder_in(user: User, name: str) -> Path:
    (user.folder / name).mkdir()
    return user.folder / name


def test_a_store_of_a_machine_without_any_is_the_users_and_the_ca(user: User) -> None:
    shutil.rmtree(user.root)
    user.root.mkdir()

    result = user.laid()

    assert list(at(result.bundle)) == [user.ca]
    assert result.mounts == ()


def test_the_store_is_written_without_a_password() -> None:
    read = pkcs12.load_pkcs12(java_stores.written([USERS]), None)

    assert [each.certificate.public_bytes(Encoding.DER) for each in read.additional_certs] == [USERS]


README = Path(__file__).resolve().parents[2] / "certs" / "README.md"


@pytest.mark.checkout
def test_the_table_of_clients_names_every_variable_that_is_set_and_no_other(user: User) -> None:
    user.put(user.home / ".curlrc", "cacert=/theirs.pem\n")
    user.environment = dict.fromkeys(laid.REPLACING_IF_SET, str(user.bundle(USERS)))
    said = re.findall(r"`([A-Z][A-Z0-9_]{4,}|npm_config_\w+)`", README.read_text())

    assert set(said) == set(user.laid().variables)
