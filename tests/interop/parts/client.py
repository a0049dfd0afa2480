"""Lists the tools of a gateway and calls one: client.py LIBRARY MODE URL TOKEN TOOL ARGUMENTS, prints JSON."""

import asyncio
import json
import sys


def connect(library, mode, url, token):
    if library == "fastmcp":
        import fastmcp

        return fastmcp.Client(url, auth=token, mode=mode)
    import httpx2
    import mcp
    from mcp.client.streamable_http import streamable_http_client

    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30)
    return mcp.Client(streamable_http_client(url, http_client=http), mode=mode)


async def main(library, mode, url, token, tool, arguments):
    async with connect(library, mode, url, token) as client:
        tools = await client.list_tools()
        result = await client.call_tool(tool, json.loads(arguments))
        names = [tool.name for tool in getattr(tools, "tools", tools)]
        print(json.dumps({"version": client.protocol_version, "tools": names, "text": result.content[0].text}))


asyncio.run(main(*sys.argv[1:]))
