# An upstream in any transport and era, which says on its own what tests wait for: updates, changed lists, log
# messages, progress. `python3 upstream.py ERA TRANSPORT` with modern or legacy, and stdio, http or sse; over HTTP it
# prints its port.
import http.server
import itertools
import json
import queue
import sys
import threading
import time
import urllib.parse

ERA, TRANSPORT = sys.argv[1], sys.argv[2]
OPTIONS = sys.argv[3:]
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
META = "io.modelcontextprotocol/"

lock = threading.RLock()
numbers = itertools.count(1)
seen = []
cancelled = set()
connections = []
lists = {
    "tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("touch", "grow", "talk", "wait", "slow", "seen", "cut")],
    "prompts": [{"name": "first"}],
    "resources": [{"name": name, "uri": f"test://{name}"} for name in ("a", "b", "secret")],
}


class Connection:
    """A session, a process, or (modern) one listen."""

    def __init__(self):
        self.id = f"s{next(numbers)}"
        self.uris, self.kinds, self.level = set(), set(lists), "info"
        # What leaves on no request's stream; None where nothing can.
        self.say = None
        self.tag = None
        with lock:
            connections.append(self)

    def tell(self, method, params):
        if self.say is None:
            return
        if self.tag is not None:
            params = {**params, "_meta": {META + "subscriptionId": self.tag}}
        self.say({"jsonrpc": "2.0", "method": method, "params": params})


def everyone():
    with lock:
        return list(connections)


def touched(uri, extra="kept"):
    for connection in everyone():
        if any(uri == whole or uri.startswith(whole + "/") for whole in connection.uris):
            connection.tell("notifications/resources/updated", {"uri": uri, "extra": extra})


def tool(name, arguments, request, say, level):
    meta = request["params"].get("_meta", {})
    if name == "touch":
        for number in range(arguments.get("times", 0)):
            touched(arguments["uri"], str(number).ljust(arguments["length"]))
        touched(arguments["uri"])
    elif name == "grow":
        kind = arguments["kind"]
        fresh = {"name": f"fresh{next(numbers)}", "inputSchema": {"type": "object"}}
        fresh["uri"] = f"test://{fresh['name']}"
        lists[kind].append(fresh)
        for connection in everyone():
            if kind in connection.kinds:
                connection.tell(f"notifications/{kind}/list_changed", {})
    elif name == "talk":
        token = meta.get("progressToken")
        if token is not None:
            say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1, "total": 2}})
        for at in ("debug", "info", "error"):
            wanted = level is not None and LEVELS.index(at) >= LEVELS.index(level)
            if wanted or arguments.get("rude"):
                say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": at, "data": f"said at {at}"}})
    elif name == "wait":
        say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": meta.get("progressToken", "none"), "progress": 1}})
        for _ in range(400):
            with lock:
                if request["id"] in cancelled:
                    return None
            if say(None) is False:
                with lock:
                    cancelled.add(request["id"])
                return None
            time.sleep(0.05)
    elif name == "slow":
        if "progressToken" in meta:
            say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": meta["progressToken"], "progress": 1}})
        time.sleep(1)
    elif name == "seen":
        with lock:
            return json.dumps({"messages": seen, "cancelled": sorted(map(str, cancelled))})
    elif name == "cut":
        for connection in everyone():
            if connection.say is not None and TRANSPORT == "http":
                connection.say("end")
    return "done"


def answer(message, connection, say):
    """Answers one request through `say`, which also takes what belongs to it."""
    with lock:
        seen.append([message.get("method"), message.get("params", {})])
    method, params = message.get("method"), message.get("params", {})
    if method == "notifications/cancelled":
        with lock:
            cancelled.add(params.get("requestId"))
    if "id" not in message or method is None:
        return
    capabilities = {"tools": {"listChanged": True}, "prompts": {"listChanged": True}, "logging": {},
                    "resources": {"listChanged": True, "subscribe": "mute" not in OPTIONS}}
    modern = {"resultType": "complete"} if ERA == "modern" else {}
    cached = {**modern, "ttlMs": 0, "cacheScope": "private"} if ERA == "modern" else {}
    result, error = None, None
    if method == "initialize" and ERA == "legacy":
        version = "2024-11-05" if TRANSPORT == "sse" else "2025-11-25"
        result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": {"name": "python", "version": "1"}}
    elif method == "server/discover" and ERA == "modern":
        result = {**cached, "supportedVersions": ["2026-07-28"], "capabilities": capabilities}
    elif method == "ping":
        result = {}
    elif method.endswith("/list") and method.split("/")[0] in lists:
        kind = method.split("/")[0]
        result = {**cached, kind: lists[kind]}
    elif method == "resources/templates/list":
        result = {**cached, "resourceTemplates": []}
    elif method == "logging/setLevel" and ERA == "legacy":
        connection.level, result = params["level"], {}
    elif method in ("resources/subscribe", "resources/unsubscribe") and ERA == "legacy":
        if params["uri"] == "test://b" and "picky" in OPTIONS:
            error = {"code": -32002, "message": "Resource not found", "data": {"uri": params["uri"]}}
        elif method == "resources/subscribe":
            connection.uris.add(params["uri"])
        else:
            connection.uris.discard(params["uri"])
        result = {}
    elif method == "tools/call":
        level = params.get("_meta", {}).get(META + "logLevel") if ERA == "modern" else connection.level
        text = tool(params["name"], params.get("arguments", {}), message, say, level)
        if text is None:
            return
        result = {**modern, "content": [{"type": "text", "text": text}]}
    else:
        error = {"code": -32601, "message": "Method not found"}
    say({"jsonrpc": "2.0", "id": message["id"], **({"error": error} if error else {"result": result})})


def listen(message, say):
    """A modern listen: the connection that it is, acknowledged."""
    with lock:
        seen.append([message["method"], message["params"]])
    wanted = message["params"]["notifications"]
    connection = Connection()
    connection.tag, connection.say = message["id"], say
    connection.kinds = {kind for kind in lists if wanted.get(f"{kind}ListChanged")}
    connection.uris = {uri for uri in wanted.get("resourceSubscriptions", []) if not (uri == "test://b" and "picky" in OPTIONS)}
    honoured = {**wanted}
    if "resourceSubscriptions" in wanted:
        honoured["resourceSubscriptions"] = sorted(connection.uris)
    connection.tell("notifications/subscriptions/acknowledged", {"notifications": honoured})
    return connection


def stdio():
    def say(message):
        if message is not None and message != "end":
            with lock:
                print(json.dumps(message), flush=True)

    process = Connection()
    process.say = say if ERA == "legacy" else None
    listens = {}
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "subscriptions/listen" and ERA == "modern":
            listens[message["id"]] = listen(message, say)
        elif message.get("method") == "notifications/cancelled" and message["params"].get("requestId") in listens:
            with lock:
                seen.append([message["method"], message["params"]])
                connections.remove(listens.pop(message["params"]["requestId"]))
        elif message.get("method") == "tools/call":
            threading.Thread(target=answer, args=(message, process, say), daemon=True).start()
        else:
            answer(message, process, say)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sessions = {}

    def log_message(self, *arguments):
        pass

    def begin(self, status, kind, session=None, length=None):
        self.send_response(status)
        self.send_header("content-type", kind)
        if session is not None:
            self.send_header("mcp-session-id", session)
        if length is None:
            self.send_header("connection", "close")
            self.close_connection = True
        else:
            self.send_header("content-length", str(length))
        self.end_headers()

    def event(self, message):
        try:
            if message == "end":
                return False
            self.wfile.write((": alive\n\n" if message is None else f"data: {json.dumps(message)}\n\n").encode())
            self.wfile.flush()
            return True
        except OSError:
            return False

    def drain(self, connection, first=None):
        """Writes what a connection says until its reader is gone."""
        waiting = queue.Queue()
        connection.say = waiting.put
        if first is not None:
            waiting.put(first)
        while True:
            try:
                message = waiting.get(timeout=0.2)
            except queue.Empty:
                message = None
            if not self.event(message):
                break
        if connection.say == waiting.put:
            connection.say = None

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def plain(self, status, message, session=None):
        body = json.dumps(message).encode() if message is not None else b""
        self.begin(status, "application/json", session, len(body))
        self.wfile.write(body)

    def refuse(self, status, code, text, number=None):
        self.plain(status, {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}})

    def do_POST(self):
        message = self.body()
        if TRANSPORT == "sse":
            return self.post_sse(message)
        if ERA == "modern":
            if message.get("method") == "initialize":
                return self.refuse(404, -32601, "Method not found", message["id"])
            if message.get("method") == "subscriptions/listen":
                self.begin(200, "text/event-stream")
                waiting = queue.Queue()
                connection = listen(message, waiting.put)
                first = waiting.get()
                self.drain(connection, first)
                with lock:
                    seen.append(["listen ended", {}])
                    connections.remove(connection)
                return None
            return self.respond(message, None)
        if message.get("method") == "initialize":
            session = Connection()
            self.sessions[session.id] = session
            return self.respond(message, session, session.id)
        session = self.sessions.get(self.headers.get("mcp-session-id"))
        if session is None:
            known = self.headers.get("mcp-session-id") is not None
            return self.refuse(404 if known else 400, -32600, "no session")
        return self.respond(message, session)

    def respond(self, message, connection, session=None):
        if "id" not in message or "method" not in message:
            answer(message, connection, None)
            return self.plain(202, None)
        if message["method"] == "tools/call":
            self.begin(200, "text/event-stream")
            return answer(message, connection, self.event)
        return answer(message, connection, lambda reply: self.plain(200, reply, session))

    def post_sse(self, message):
        path = urllib.parse.urlparse(self.path)
        session = self.sessions.get(urllib.parse.parse_qs(path.query).get("session", [""])[0])
        if path.path != "/messages" or session is None:
            return self.refuse(405, -32600, "Method not allowed")
        self.plain(202, None)
        threading.Thread(target=answer, args=(message, session, session.say), daemon=True).start()
        return None

    def do_GET(self):
        if ERA == "modern" or "no-stream" in OPTIONS:
            return self.refuse(405, -32600, "Method not allowed")
        if TRANSPORT == "sse":
            session = Connection()
            self.sessions[session.id] = session
            self.begin(200, "text/event-stream")
            place = f"/messages?session={session.id}"
            foreign = [option for option in OPTIONS if option.startswith("http")]
            self.wfile.write(f"event: endpoint\ndata: {foreign[0] if foreign else place}\n\n".encode())
            self.wfile.flush()
            self.drain(session)
            with lock:
                connections.remove(session)
            return None
        session = self.sessions.get(self.headers.get("mcp-session-id"))
        if session is None:
            return self.refuse(404, -32600, "no session")
        if session.say is not None:
            return self.refuse(409, -32600, "one stream for each session")
        with lock:
            seen.append(["GET", {"lastEventId": self.headers.get("last-event-id")}])
        self.begin(200, "text/event-stream")
        self.drain(session)
        return None

    def do_DELETE(self):
        self.sessions.pop(self.headers.get("mcp-session-id"), None)
        self.plain(200, None)


if TRANSPORT == "stdio":
    stdio()
else:
    port = next((int(option[5:]) for option in OPTIONS if option.startswith("port=")), 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
