# SPDX-License-Identifier: BSD-2-Clause
"""A client in the demo's mesh.  Prints JSON.

caller.py call ADDRESS PORT COUNT   COUNT requests, each with a connection of its own
caller.py wait ADDRESS PORT         tries without pause until a connection is allowed, for 10 s at most
"""

import collections
import errno
import http.client
import json
import sys
import time


def call(address, port):
    """What answered, or the error's name."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())["version"]
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    finally:
        connection.close()


def calls(address, port, count):
    started = time.monotonic()
    answers = collections.Counter(call(address, port) for _ in range(int(count)))
    return {"answers": answers, "ms": (time.monotonic() - started) * 1000}


def wait(address, port):
    deadline = time.monotonic() + 10
    tries = 0
    while time.monotonic() < deadline:
        tries += 1
        if tries == 2:
            print("refused", flush=True)
        if call(address, port) != "EPERM":
            return {"at": time.time(), "tries": tries}
    return {"tries": tries}


print(json.dumps((calls if sys.argv[1] == "call" else wait)(*sys.argv[2:])), flush=True)
