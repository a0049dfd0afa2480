"""A second issuer that is not JavaScript, on loopback, for tests: Canaille with its rows in memory.

It prints `listening URL`, and ends with its standard input. People log in with their name and the password `correct horse
battery`, on its own pages. What it speaks: discovery, JWKS (RS256), authorization code with PKCE, client credentials,
RFC 7662 introspection, RFC 7009 revocation. No RFC 8707 and no RFC 8693: `aud` is the clients that a client's entry lists.
"""

import logging
import os
import socket
import sys
import threading

from canaille import create_app
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

SECRETS = {name: f"{name}-secret-of-the-tests-0123456789" for name in ("nightly", "stray-nightly", "gateway")}
CALLBACK = "http://127.0.0.1:4711/callback"
GROUPS = {"alice": "developers", "bob": "auditors"}

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
key = RSAKey.generate_key(2048, {"kid": "canaille-1", "use": "sig", "alg": "RS256"})
place = f"127.0.0.1:{listener.getsockname()[1]}"
app = create_app(
    {
        "SECRET_KEY": os.urandom(32).hex(),
        "SERVER_NAME": place,
        "PREFERRED_URL_SCHEME": "http",
        # The browser of a test keeps cookies on plain HTTP.
        "SESSION_COOKIE_SECURE": False,
        "CANAILLE": {"DATABASE": "memory", "SMTP": None, "SMPP": None, "JAVASCRIPT": False, "HTMX": False},
        "CANAILLE_OIDC": {
            "REQUIRE_NONCE": False,
            "ACTIVE_JWKS": [key.as_dict(private=True)],
        },
    }
)


def populate():
    from canaille.app import models
    from canaille.backends import Backend

    def client(name, audience, **more):
        row = models.Client(
            client_id=name,
            client_name=name,
            # A client of a trusted place is not asked for consent.
            client_uri=f"http://{place}",
            scope=["openid", "profile", "groups"],
            audience=audience,
            **more,
        )
        Backend.instance.save(row)
        return row

    people = {}
    for name in GROUPS:
        people[name] = models.User(
            user_name=name, formatted_name=name.title(), family_name=name.title(), emails=[f"{name}@corp.example"]
        )
        Backend.instance.save(people[name])
        Backend.instance.set_user_password(people[name], "correct horse battery")
    for name, group in GROUPS.items():
        Backend.instance.save(models.Group(display_name=group, members=[people[name]]))
    # The gateway is a client as well: tokens are for it where another client's entry lists it.
    gateway = client("gateway", [], client_secret=SECRETS["gateway"], token_endpoint_auth_method="client_secret_basic")
    person = {
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code"],
        "redirect_uris": [CALLBACK],
        "response_types": ["code"],
    }
    client("assistant", [gateway], **person)
    stray = client("stray", [], **person)
    stray.audience = [stray]
    Backend.instance.save(stray)
    machine = {"token_endpoint_auth_method": "client_secret_basic", "grant_types": ["client_credentials"]}
    client("nightly", [gateway], client_secret=SECRETS["nightly"], **machine)
    client("stray-nightly", [stray], client_secret=SECRETS["stray-nightly"], **machine)


with app.app_context(), app.test_request_context():
    populate()
logging.getLogger("werkzeug").setLevel(logging.WARNING)
server = make_server("127.0.0.1", 0, app, threaded=True, fd=listener.fileno())
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(f"listening http://{place}", flush=True)
server.serve_forever()
