"""Rank a sealed method's scores in a process of its own, which alone reads the test targets.

`benchmark.sandbox.seal` starts it. It gets scores batch by batch, ranks each before the next one is made, and sends the
rankings once, when every case has scores. JSON and numbers go over the socket; nothing that a method sends is executed.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.contract import Cases, batches_of, check_scores
from benchmark.data.store import checked_part, read_about, read_test
from benchmark.errors import InputError, command, command_line
from benchmark.evaluate import rank
from benchmark.processes import end_with_parent

STARTING = 120.0  # seconds that the evaluator may need until it listens


def read_targets(data: Path, test: Cases) -> np.ndarray:
    """The test cases' targets, int [n]. Raises InputError where they are other cases' or were damaged."""
    answers = pq.read_table(checked_part(data, "test_targets.parquet", read_about(data)))
    if not np.array_equal(answers.column("case").to_numpy(), test.case):
        raise InputError(
            f"{data}: test_targets.parquet and test.parquet hold different cases; prepare the dataset again"
        )
    target: np.ndarray = answers.column("target").to_numpy()
    return target


def rank_by(socket: str, batches: Iterable[np.ndarray], n_items: int, method: str) -> pa.Table:
    """Send score batches [b, n_items] to the evaluator; the table of `benchmark.evaluate.rank`.

    Raises InputError for what the evaluator refuses, and where it has ended or has given its rankings already.
    """
    with _spoken(method):
        connection = _connected(socket)
    with connection:
        for batch in batches_of(batches, method):
            scores = np.ascontiguousarray(check_scores(batch, n_items, method))
            with _spoken(method):
                connection.send_bytes(json.dumps({"dtype": scores.dtype.str, "shape": scores.shape}).encode())
                connection.send_bytes(scores.data.cast("B") if scores.size else b"")
                _answer(connection)
        with _spoken(method):
            connection.send_bytes(b"null")
            return pa.ipc.open_stream(_answer(connection)).read_all()


@contextmanager
def _spoken(method: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise InputError(
            f"{method}: its evaluator has ended ({type(error).__name__}: see above), or has given its rankings before"
        ) from None


def _connected(socket: str) -> Connection:
    """Connect to the evaluator, and wait for it, as it may still be starting after a fast fit."""
    until = time.monotonic() + STARTING
    while True:
        try:
            return Client(socket, family="AF_UNIX")
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _answer(connection: Connection) -> bytes:
    """The content of the evaluator's answer. Raises InputError with its message where it refuses."""
    kind, content = connection.recv_bytes(), connection.recv_bytes()
    if kind == b"refused":
        raise InputError(content.decode())
    return content


def received(connection: Connection, n_items: int) -> Iterator[np.ndarray]:
    """The batches of scores that arrive; each is acknowledged once it is ranked, when the next one is asked for."""
    while (about := json.loads(connection.recv_bytes())) is not None:
        dtype, (rows, columns) = np.dtype(about["dtype"]), about["shape"]
        if dtype.kind != "f" or columns != n_items:
            raise InputError(f"the evaluator got {dtype} [{rows}, {columns}]")
        yield np.frombuffer(connection.recv_bytes(), dtype).reshape(rows, columns)
        connection.send_bytes(b"ranked")
        connection.send_bytes(b"")


def serve(connection: Connection, data: Path, method: str) -> None:
    """Rank the scores that arrive, and send the rankings, or the reason for a refusal."""
    try:
        about = read_about(data)
        test = read_test(data, about)
        n_items = pq.read_metadata(checked_part(data, "items.parquet", about)).num_rows
        table = rank(received(connection, n_items), test, read_targets(data, test), n_items, method)
    except InputError as problem:
        connection.send_bytes(b"refused")
        connection.send_bytes(str(problem).encode())
        return
    except (EOFError, ConnectionError):  # the method's process has ended, and says why
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    connection.send_bytes(b"rankings")
    connection.send_bytes(memoryview(sink.getvalue()))


@command
def main() -> None:
    parser = command_line("benchmark.sandbox.evaluator", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared dataset")
    parser.add_argument("--method", required=True, help="name of its row in the tables")
    parser.add_argument("--socket", required=True, help="where the method's process connects, once")
    parser.add_argument("--parent", type=int, required=True, help="the method's process, with which this one ends")
    args = parser.parse_args()
    end_with_parent(args.parent)
    with Listener(args.socket, family="AF_UNIX") as listener:
        os.chmod(args.socket, 0o600)
        connection = listener.accept()
    with connection:  # nobody else is listened to
        serve(connection, args.data, args.method)


if __name__ == "__main__":
    main()
