"""A person's browser, played: follows redirects, keeps cookies, and allows what a consent page asks: browse.py URL.

What the pages asked goes to the end of the file that PAGES names, one line for each.
"""

import asyncio
import json
import os
import re
import sys
from urllib.parse import urljoin, urlsplit

import httpx2

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


if __name__ == "__main__":
    asyncio.run(browse(sys.argv[1]))
    if pages and "PAGES" in os.environ:
        with open(os.environ["PAGES"], "a") as file:
            file.writelines(json.dumps(page) + "\n" for page in pages)
