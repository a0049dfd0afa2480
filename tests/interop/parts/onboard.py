"""Logs in at a gateway by itself, as fastmcp does, and calls a tool: onboard.py URL TOOL ARGUMENTS [DOCUMENT], prints JSON.

The document is the client's own (Client ID Metadata Document); without one the client registers.
"""

import asyncio
import json
import sys

import fastmcp
from browse import browse, pages
from fastmcp.client.auth import OAuth

class Person(OAuth):
    async def redirect_handler(self, authorization_url):
        self.browsing = asyncio.create_task(browse(authorization_url))


async def main(url, tool, arguments, document=None):
    async with fastmcp.Client(url, auth=Person(client_metadata_url=document)) as client:
        tools = await client.list_tools()
        result = await client.call_tool(tool, json.loads(arguments))
        names = [tool.name for tool in getattr(tools, "tools", tools)]
        print(json.dumps({"tools": names, "text": result.content[0].text, "pages": pages}))


asyncio.run(main(*sys.argv[1:]))
