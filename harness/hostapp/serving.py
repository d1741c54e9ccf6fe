"""The process: a serving thread, and the main thread, which waits for a signal to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from .counters import Counters
from .jobs import Tools
from .readiness import ReadinessProbe
from .runner import Runner
from .web import Host

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from .settings import Settings

_LOG = logging.getLogger("hostapp.app")
#: for requests and jobs to end after the signal; the rest of two seconds is for closing connections
_GRACE_S = 1.2
_HARD_STOP_S = 1.8
_GRACEFUL = {signal.SIGTERM, signal.SIGINT}
_SIGNALS = _GRACEFUL | {signal.SIGQUIT}


class Serving(threading.Thread):
    """Runs the event loop in its own thread, so that a hanging task cannot delay the end of the process."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="serving", daemon=True)
        self._settings = settings
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failed = False

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # noqa: BLE001 -- a thread cannot raise to its caller
            self.failed = True
            _LOG.exception("the application failed")
        except SystemExit:  # uvicorn raises it when the address is in use
            self.failed = True
        finally:
            # wakes the main thread, which waits for a signal
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        """Request the loop to stop; called from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            if self._loop:
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        settings = self._settings
        pool = _pool(settings)
        await pool.open(wait=False)
        tools = Tools(pool=pool, settings=settings, counters=Counters())
        runner = Runner(tools)
        application = Host(tools, runner, ReadinessProbe(tools, runner)).application()
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        supervision = asyncio.create_task(runner.supervise(), name="hostapp-supervision")
        serving = asyncio.create_task(server.serve(), name="hostapp-server")
        signalled = asyncio.create_task(self._stopping.wait(), name="hostapp-signal")
        await asyncio.wait({serving, signalled}, return_when=asyncio.FIRST_COMPLETED)
        self.failed = serving.done()
        server.should_exit = True
        ending = [serving, supervision, asyncio.create_task(runner.stop(), name="hostapp-runner-stop")]
        done, late = await asyncio.wait(ending, timeout=_GRACE_S)
        for task in done:
            if not task.cancelled() and (error := task.exception()):
                _LOG.warning("error while stopping", exc_info=error)
        if late:
            _LOG.warning(
                "tasks did not end in time", extra={"fields": {"late": sorted(task.get_name() for task in late)}}
            )
        await pool.close(timeout=0.2)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then stop within two seconds. SIGQUIT stops immediately. Return the exit code."""
    # the thread inherits the mask, so that only the main thread receives signals
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _LOG.info("starting", extra={"fields": {"version": settings.version, "notifier": settings.notifier}})
    serving = Serving(settings)
    serving.start()
    received = signal.sigwait(_SIGNALS)
    if received not in _GRACEFUL:
        _end_now(0)
    serving.stop()
    serving.join(_HARD_STOP_S)
    if serving.is_alive():
        _LOG.warning("stopping without waiting for open transactions; the server rolls them back")
        _end_now(1)
    _LOG.info("stopped")
    return 1 if serving.failed else 0


def _end_now(code: int) -> None:
    logging.shutdown()
    os._exit(code)


def _pool(settings: Settings) -> AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]:
    return AsyncConnectionPool(
        # in the connection string, because Oban's notifier uses it, too; keepalives end connections to a lost host
        make_conninfo(
            settings.dsn,
            application_name="hostapp",
            connect_timeout=3,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        ),
        kwargs={"prepare_threshold": settings.prepare_threshold},
        min_size=min(2, settings.pool_size),
        max_size=settings.pool_size,
        timeout=settings.statement_timeout_s,
        # replaces connections that a database restart has cut, before a caller gets one
        check=AsyncConnectionPool.check_connection,
        # short: each request then makes a new attempt; a long-lived one would back off for minutes
        reconnect_timeout=2,
        open=False,
        name="hostapp",
    )
