"""SIGTERM as a request: the run saves at the next safe place and ends cleanly."""

import signal
import threading

import jax


class Stopped(Exception):
    """Raised where the run stops on request; the newest checkpoint is complete."""


class StopRequest:
    """Remembers a SIGTERM (or Ctrl-C, once) until the run asks for it.

    In a run of several processes JAX's coordination service owns SIGTERM and tells all of them;
    see ``Checkpoints.reached_preemption``.

    Attributes:
      signal: that asked, SIGTERM where it is not known.
    """

    def __init__(self):
        self.requested = False
        self.signal = signal.SIGTERM

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: now
        self.requested, self.signal = True, signal.Signals(number)

    def check(self) -> None:
        """Raises Stopped when a stop was requested."""
        if self.requested:
            raise Stopped
