"""Run the annotator's server on a port and tell the address."""

from __future__ import annotations

import os
import secrets
import socket
import webbrowser

import uvicorn

from annotator.options import AnnotateOptions
from annotator.server import make_app
from annotator.workspace import Workspace

_LOCAL = ("127.0.0.1", "localhost", "::1")
_SHUTDOWN_SECONDS = 3


def serve(workspace: Workspace, options: AnnotateOptions) -> None:
    """Serve until Ctrl-C or SIGTERM; closes the workspace.

    Raises:
        OSError: the port is in use, or the address is not this machine's.
    """
    with _bind(options.host, options.port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        hosts = {*_LOCAL, options.host, *options.allow_host}
        app = make_app(workspace, token, hosts, f"annotator-{port}")
        name = f"[{options.host}]" if ":" in options.host else options.host
        if options.host in ("0.0.0.0", "::"):
            name = socket.gethostname()
            hosts.add(name)
        address = f"http://{name}:{port}/?token={token}"
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws="websockets-sansio",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS, server_header=False,
        )  # fmt: skip
        print(f"Session: {workspace.store.path.parent}\nOpen {address}", flush=True)
        if "SSH_CONNECTION" in os.environ and options.host in _LOCAL:
            print(
                f"From another machine: ssh -N -L {port}:127.0.0.1:{port} USER@THIS_MACHINE there, "
                "then open the same address.",
                flush=True,
            )
        elif options.has_browser:
            webbrowser.open(address)
        print("Ctrl-C ends the server; all masks are saved.", flush=True)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            print()


def _bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address and a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # a browser that is faster than the server waits instead of failing
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(
            f"The address {host}:{port} cannot be used ({error}): choose another --port (0 takes a "
            "free one) or --host."
        ) from error
    return listener
