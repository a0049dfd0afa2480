"""Asks Codex, as an editor does, which tools its MCP servers have: mcp_status.py CODEX. Prints their names as JSON."""

import json
import subprocess
import sys

codex = subprocess.Popen(
    [sys.argv[1], "app-server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
)


def say(message):
    codex.stdin.write(json.dumps(message) + "\n")
    codex.stdin.flush()


def answer(number):
    for line in codex.stdout:
        message = json.loads(line)
        if message.get("id") == number:
            return message["result"]
    raise SystemExit("codex said nothing more")


say({"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "tests", "title": "tests", "version": "1"}}})
answer(1)
say({"method": "initialized"})
say({"id": 2, "method": "mcpServerStatus/list", "params": {}})
print(json.dumps({server["name"]: sorted(server["tools"]) for server in answer(2)["data"]}))
codex.kill()
