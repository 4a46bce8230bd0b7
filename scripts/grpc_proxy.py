"""Optuna's gRPC proxy in front of PostgreSQL: thousands of workers over a few database connections.

    python scripts/grpc_proxy.py --storage postgresql+psycopg://actlab@db/actlab --host 0.0.0.0 --port 13000

Workers then use `--storage grpc://HOST:13000`. The connection is not encrypted: keep it inside the cluster's network.
"""

import argparse
import signal
import sys
from types import FrameType

from actlab.engine import storage as database
from actlab.engine.optuna_private import make_proxy_server, with_cache
from actlab.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="the database, without a password")
    parser.add_argument("--host", default="localhost", help="where to listen")
    parser.add_argument("--port", type=int, default=13000)
    parser.add_argument("--threads", type=int, default=32, help="requests that are served at the same time")
    asked = parser.parse_args()
    database.ENGINE |= {"pool_size": asked.threads, "max_overflow": 4}
    try:
        storage = with_cache(database.open_storage(asked.storage))
    except InputError as error:
        print(f"grpc_proxy: {error}", file=sys.stderr)
        sys.exit(2)
    server = make_proxy_server(storage, asked.host, asked.port, asked.threads)

    def stop(number: int, frame: FrameType | None) -> None:
        server.stop(grace=5)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.start()
    print(f"proxy for {asked.storage} on {asked.host}:{asked.port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
