"""Logs in at a gateway by itself, as fastmcp does, and calls a tool: onboard.py URL TOOL ARGUMENTS, prints JSON.

A person's browser is played: it follows redirects, keeps cookies, and allows what a consent page asks.
"""

import asyncio
import json
import re
import sys
from urllib.parse import urljoin, urlsplit

import fastmcp
import httpx2
from fastmcp.client.auth import OAuth

pages = []


async def browse(url):
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as browser:
        answer = await visit(browser, url)
        for _ in range(20):
            if answer.is_redirect:
                url = urljoin(url, answer.headers["location"])
                answer = await visit(browser, url)
            elif nonce := re.search(r'name="nonce" value="([^"]+)"', answer.text):
                pages.append(re.sub(r"<[^>]+>", " ", answer.text.split("<body>")[1]))
                action = re.search(r'action="([^"]+)"', answer.text)[1]
                parts = urlsplit(action)
                origin = f"{parts.scheme}://{parts.netloc}"
                form = {"nonce": nonce[1], "answer": "allow"}
                url, answer = action, await browser.post(action, data=form, headers={"origin": origin})
            else:
                return


async def visit(browser, url):
    # The client begins to listen for its answer a moment after it has opened the browser.
    for _ in range(100):
        try:
            return await browser.get(url)
        except httpx2.ConnectError:
            await asyncio.sleep(0.1)
    raise RuntimeError(f"nobody listens at {url}")


class Person(OAuth):
    async def redirect_handler(self, authorization_url):
        self.browsing = asyncio.create_task(browse(authorization_url))


async def main(url, tool, arguments):
    async with fastmcp.Client(url, auth=Person()) as client:
        tools = await client.list_tools()
        result = await client.call_tool(tool, json.loads(arguments))
        names = [tool.name for tool in getattr(tools, "tools", tools)]
        print(json.dumps({"tools": names, "text": result.content[0].text, "pages": pages}))


asyncio.run(main(*sys.argv[1:]))
