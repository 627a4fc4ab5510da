"""TLS without sockets: what came from the network in, what goes to it out."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from edge_agent.contracts.errors import InvalidConfig

READ = 64 * 1024


class Tls:
    """The server's end of one TLS connection.

    Parameters
    ----------
    context : ssl.SSLContext
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ready = False
        """Whether the handshake is done."""

    def receive(self, data: bytes) -> bytes:
        """Return the plain bytes that came with `data`; look at `outgoing` afterwards.

        Raises
        ------
        ssl.SSLError
            If the client does not speak TLS, or not one that we do.
        """
        self._incoming.write(data)
        plain = bytearray()
        try:
            if not self.ready:
                self._tls.do_handshake()
                self.ready = True
            while piece := self._tls.read(READ):
                plain += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return bytes(plain)

    def encrypt(self, pieces: Iterable[bytes | memoryview]) -> bytes:
        """Return what to send for plain bytes."""
        for piece in pieces:
            self._tls.write(piece)
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """Return what is to be sent: handshake, alerts."""
        return self._outgoing.read()


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a server: TLS 1.2 or later.

    Raises
    ------
    InvalidConfig
        If the files cannot be read or do not fit each other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The connection's own state costs memory on the device; clients reconnect seldom.
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        msg = f"tls_certificate, tls_key: {certificate}, {key} cannot be used: {error}"
        raise InvalidConfig(msg, field="tls_certificate") from error
    return context
