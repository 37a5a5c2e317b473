"""A client hello with the `encrypted_client_hello` extension, as browsers send it.

Python's ssl cannot offer it. OpenSSL lets a client add an extension of its own to a context, and goes on as usual.
"""

from __future__ import annotations

import ctypes
import os
import ssl

import pytest

ENCRYPTED_CLIENT_HELLO = 0xFE0D
# An outer hello: cipher suites, configuration id, encapsulated key and payload, all of the right shape.
PAYLOAD = bytes.fromhex("00 0001 0001 2a 0020") + os.urandom(32) + bytes.fromhex("0090") + os.urandom(144)

_Add = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p),
                        ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_int), ctypes.c_void_p)
_buffer = ctypes.create_string_buffer(PAYLOAD, len(PAYLOAD))


@_Add
def _add(_: int, kind: int, out: ctypes._Pointer[ctypes.c_void_p], size: ctypes._Pointer[ctypes.c_size_t],
         alert: object, argument: int) -> int:
    out[0], size[0] = ctypes.cast(_buffer, ctypes.c_void_p), len(PAYLOAD)
    return 1


def offer_encrypted_hello(context: ssl.SSLContext) -> None:
    """Have every hello of this context carry the extension; skips the test where that cannot be done here."""
    import _ssl

    try:
        add = ctypes.CDLL(_ssl.__file__).SSL_CTX_add_client_custom_ext
    except (OSError, AttributeError):
        pytest.skip("this Python's OpenSSL takes no extensions of a client's own")
    add.argtypes = [ctypes.c_void_p, ctypes.c_uint, _Add, *[ctypes.c_void_p] * 4]
    # The context's first field after the object's head is OpenSSL's own context.
    own = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if not add(own, ENCRYPTED_CLIENT_HELLO, _add, None, None, None, None):
        pytest.skip("this Python's OpenSSL has a meaning of its own for the extension")
