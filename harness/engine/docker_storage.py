"""The data of a server in its container: in memory or on disk, kept while the server is down.

Memory that is mounted in a container is lost when the container stops. The first process of the container is therefore
a shell script, the supervisor, and the server is its child.
"""

from __future__ import annotations

from shlex import quote

#: the product with an initialised cluster in its image, and a supervisor in its container
DATABASE = "postgres"
#: the products whose data survives a stop of the server; their images have it in the folder `cluster`
KEEPING = frozenset({DATABASE, "rclone"})
#: the limit for data of other products than the database, MiB
_SMALL_MIB = 256
#: the folder of a service in its container
FOLDER = "/srv/harness"
_MEMORY = f"{FOLDER}/memory"
_MEMORY_OPTIONS = "size={mib}m,mode=1777"
#: Keeps the container running while the server is stopped and started again. If the server ends on its own, the
#: container ends with the server's exit code. The cluster of the image is copied to memory, or used on disk.
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
#: Ends a supervised server and waits for its end. Exit code 1 says that the server did not end in time.
_END = """
cd {folder} && : > held && {signal}
tries=0
until [ -e ended ]; do tries=$((tries + 1)); [ $tries -lt {tries} ] || exit 1; sleep 0.02; done
"""
_END_TRY_S = 0.02
#: a small file system of a durable server, which a fault fills
SPARE = f"{FOLDER}/spare"
_SPARE_OPTIONS = "size=48m,mode=1777"


def memory_mount(memory_mib: int, product: str) -> dict[str, str]:
    """Return the tmpfs mount for the data: its folder and its options.

    :param memory_mib: the limit for the data of the topology; other products than the database get a small part.
    """
    mib = memory_mib if product == DATABASE else min(memory_mib, _SMALL_MIB)
    return {_MEMORY: _MEMORY_OPTIONS.format(mib=mib)}


def spare_mount() -> dict[str, str]:
    """Return the tmpfs mount of a small file system: its folder and its options."""
    return {SPARE: _SPARE_OPTIONS}


def supervised(script: str, folder: str) -> str:
    """Return the supervisor of a server.

    :param script: starts the server in the foreground.
    """
    return _SUPERVISOR.format(folder=folder, script=quote(script))


def end_script(folder: str, signal: str, deadline_s: float) -> str:
    """Return the script that ends a supervised server; its exit code is 0, or 1 after the deadline.

    :param signal: the shell command that signals the server.
    """
    return _END.format(folder=folder, signal=signal, tries=int(deadline_s / _END_TRY_S))


def start_script(folder: str) -> str:
    """Return the script that starts a supervised server again."""
    return f"cd {folder} && rm -f held ended && echo > start"
