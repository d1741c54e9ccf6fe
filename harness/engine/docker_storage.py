"""The data of a database server in its container: in memory or on disk, kept while the server is down.

The first process of the container is a supervisor, because memory that is mounted in a container ends with it.
"""

from __future__ import annotations

from shlex import quote

#: the product whose image holds a cluster, and whose container outlives its server
DATABASE = "postgres"
#: the folder of a service in its container
FOLDER = "/srv/harness"
#: where memory is mounted for the data of a database server
MEMORY = f"{FOLDER}/memory"
_MEMORY_OPTIONS = "size={mib}m,mode=1777"
#: Keeps the container, and with it the memory, while the server is stopped and started again. A server that ends by
#: itself ends the container, with its exit code. The cluster of the image is copied into memory, or used where it is.
_SUPERVISOR = """
cd {folder} || exit
if [ -e memory ]; then cp -a cluster memory/data && ln -s memory/data data || exit; else ln -s cluster data || exit; fi
mkfifo start || exit
trap 'kill -INT "$server"; wait "$server"; exit $?' TERM INT QUIT
while :; do
    sh -c {script} &
    server=$!
    echo "$server" > server.pid
    wait "$server"
    code=$?
    [ -e held ] || exit "$code"
    : > ended
    read -r _ < start
done
"""
#: Ends the server of a supervised container, waits until it has ended, and says with 1 that it has not.
_END = """
cd {folder} && : > held && {signal}
tries=0
until [ -e ended ]; do tries=$((tries + 1)); [ $tries -lt {tries} ] || exit 1; sleep 0.02; done
"""
_END_TRY_S = 0.02


def memory_mount(memory_mib: int) -> dict[str, str]:
    """Return the tmpfs mount for the data."""
    return {MEMORY: _MEMORY_OPTIONS.format(mib=memory_mib)}


def supervised(script: str, folder: str) -> str:
    """Return the script of a container that outlives its server."""
    return _SUPERVISOR.format(folder=folder, script=quote(script))


def end_script(folder: str, signal: str, deadline_s: float) -> str:
    """Return the script that ends a supervised server.

    :param signal: the shell command that signals it.
    """
    return _END.format(folder=folder, signal=signal, tries=int(deadline_s / _END_TRY_S))


def start_script(folder: str) -> str:
    """Return the script that starts a supervised server again."""
    return f"cd {folder} && rm -f held ended && echo > start"
