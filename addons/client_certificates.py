"""Certificates of clients, on TLS to Governor itself: asked for, verified, and the agent that one names.

Only the outermost handshake of a proxy's port asks for one. In a tunnel Governor stands in for the origin, and nobody
there can tell it who the agent is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from time import time

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mitmproxy import ctx, tls
from mitmproxy.addons import tlsconfig
from mitmproxy.certs import DHParams
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, modes
from OpenSSL import SSL, crypto

from addons.client_authority import Authority
from kernel.verdict import Code

_CLIENT_USES = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})
_MOST_ALERT_BYTES = 4096
# The certificate of another name is no agent: no id is empty.
_NOBODY = ""


def is_outermost(context: Context) -> bool:
    """Whether a handshake is that of a client with Governor itself, on a proxy's port."""
    handshakes = [place for place, layer in enumerate(context.layers) if isinstance(layer, ClientTLSLayer)]
    return isinstance(context.layers[0], modes.HttpProxy) and handshakes == [1]


def ask(start: tls.TlsData, authority: Authority) -> None:
    """Have the handshake end unless the client proves a certificate that this CA has signed."""
    configured: tlsconfig.TlsConfig = ctx.master.addons.get("tlsconfig")
    entry = configured.get_cert(start.context)
    serving = SSL.Connection(_context(authority, configured.certstore.dhparams, ctx.options.tls_version_client_min,
                                      ctx.options.tls_version_client_max))
    serving.use_certificate(entry.cert.to_cryptography())
    serving.use_privatekey(entry.privatekey)
    serving.set_app_data(tlsconfig.AppData(client_alpn=b"http/1.1", server_alpn=None, http2=False))
    serving.set_accept_state()
    start.ssl_conn = serving


@lru_cache(2)
def _context(authority: Authority, dhparams: DHParams, oldest: str, newest: str) -> SSL.Context:
    # mitmproxy keeps contexts and shares them with the handshakes in tunnels. One of its own trusts nobody else's CA,
    # Governor's least of all.
    context = net_tls.create_client_proxy_context.__wrapped__(
        method=net_tls.Method.TLS_SERVER_METHOD, min_version=net_tls.Version[oldest],
        max_version=net_tls.Version[newest],
        cipher_list=tuple(tlsconfig._default_ciphers(net_tls.Version[oldest])), ecdh_curve=None, chain_file=None,
        alpn_select_callback=tlsconfig.alpn_select_callback, request_client_cert=False, extra_chain_certs=(),
        dhparams=dhparams)
    _trust(context.get_cert_store(), authority)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, None)
    # A resumed session would bring the certificate of an earlier handshake, unverified.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    return context


def _trust(store: crypto.X509Store | None, authority: Authority) -> crypto.X509Store:
    assert store is not None
    for certificate in authority.certificates:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    # The CA that is named is the one that is meant, whoever has signed its own certificate.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    return store


@lru_cache(2)
def _store(authority: Authority) -> crypto.X509Store:
    return _trust(crypto.X509Store(), authority)


class ClientCertificate:
    """A certificate of which the client has the key, with those that it sent along."""

    def __init__(self, own: x509.Certificate, others: Sequence[x509.Certificate] = ()) -> None:
        self._chain = own, *others
        self._name = _name(own)
        self._expires = own.not_valid_after_utc.timestamp()
        self._asked: tuple[Authority, bool] | None = None

    def name_by(self, authority: Authority) -> str:
        """The common name in it; empty where it has none or several, is for no client, expired, or not of this CA."""
        if self._asked is None or self._asked[0] is not authority:
            self._asked = authority, self._is_of(authority)
        return self._name if self._asked[1] and time() < self._expires else _NOBODY

    def _is_of(self, authority: Authority) -> bool:
        """Asked of each CA anew: the one of the handshake may be in force no longer."""
        own, *others = map(crypto.X509.from_cryptography, self._chain)
        try:
            crypto.X509StoreContext(_store(authority), own, others).verify_certificate()
        except crypto.X509StoreContextError:
            return False
        return True


def _name(certificate: x509.Certificate) -> str:
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not _CLIENT_USES & set(uses):
            return _NOBODY
    except x509.ExtensionNotFound:
        pass
    except ValueError:
        return _NOBODY
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else _NOBODY


def proved(established: tls.TlsData) -> ClientCertificate | None:
    """What the client has proved in a handshake; None where it was not asked."""
    serving = established.ssl_conn
    # Not what mitmproxy lists, which leaves out what it cannot read: then another one would come first.
    own = None if serving is None else serving.get_peer_certificate()
    if serving is None or own is None:
        return None
    sent = serving.get_peer_cert_chain() or []
    return ClientCertificate(own.to_cryptography(), [each.to_cryptography() for each in sent])


def failure(error: str) -> tuple[str, Code | None]:
    """How the log tells of a handshake with Governor itself that failed."""
    if "peer did not return a certificate" in error:
        return "no_client_certificate", Code.IDENTITY_REQUIRED
    if "Certificate verify failed" in error:
        return "client_certificate_refused", Code.IDENTITY_REFUSED
    return "handshake_failed", None


def alert(failed: tls.TlsData) -> bytes:
    """What TLS has to say to a client whose handshake failed, and mitmproxy keeps to itself."""
    if failed.ssl_conn is None:
        return b""
    try:
        return failed.ssl_conn.bio_read(_MOST_ALERT_BYTES)
    except SSL.Error:
        return b""
