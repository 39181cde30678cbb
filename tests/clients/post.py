"""Posts rows to a stream: URL, and the file of the authority of the server's certificate."""

import base64
import gzip
import json
import ssl
import sys
import urllib.error
import urllib.request

url, authority = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
login = "Basic " + base64.b64encode(b"ann:secret").decode()


def post(records, sequence, authorization=login, kind="application/json"):
    """Sends records as the request with this number; returns what the server answers."""
    request = urllib.request.Request(
        url,
        data=gzip.compress(json.dumps(records).encode()),
        headers={
            "Authorization": authorization,
            "Content-Type": kind,
            "Content-Encoding": "gzip",
            "Windrow-Producer": "python",
            "Windrow-Sequence": str(sequence),
        },
    )
    with urllib.request.urlopen(request, context=context) as answer:
        assert answer.status == 202, answer.status
        return json.load(answer), answer.headers.get("Authorization")


token = login
for batch in range(10):
    records = [{"n": batch * 1000 + i, "t": "naïve ✓"} for i in range(1000)]
    # The login gives a token, with which the next one is cheaper.
    taken, given = post(records, batch + 1, token)
    token = given or token
    assert taken == {"rows": 1000, "bad": 0, "repeated": False}, taken
    again, _ = post(records, batch + 1, token)
    assert again == {"rows": 0, "bad": 0, "repeated": True}, again
assert token.startswith("Bearer "), "no token"

try:
    post([], 11, "Bearer nothing")
    raise AssertionError("a wrong token is taken")
except urllib.error.HTTPError as error:
    assert error.code == 401 and "error" in json.load(error), error
