"""Errors that pages show as sentences."""

from __future__ import annotations


class SessionError(ValueError):
    """A request that the session cannot fulfil; the message is a sentence for the user."""


class ConflictError(SessionError):
    """An edit of a frame that has changed since the page loaded it."""


class FullDiskError(SessionError):
    """The disk accepts no more data; the session on it is undamaged."""
