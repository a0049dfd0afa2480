// Drives the console in Chromium. Prints what it did; ends with 1 at the first thing that is not as it should be.
import assert from "node:assert/strict";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { base, chromium: executablePath, pictures, call, tls, review, filled } = JSON.parse(process.argv[2]);
const CARRIER = "labels/ask?kind=caller&name=user%3Atest%2Fdora%20assistant";
const PAGES = [
  "", "log", "servers", "agents", "ask?object=tools/echo&action=call", "labels", CARRIER, "revocations", "policy",
  "access", "approvals", "standing", "break-glass", "mandates", "reviews", `reviews/${review}`, "definitions",
  // What has something in it, and what of that each page must show.
  ...Object.keys(filled ?? {}).filter((path) => path.includes("/")),
];
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 360, height: 740 };
const wrong = [];
// Whatever hangs ends.
setTimeout(() => { console.error("it took too long"); process.exit(1); }, 160_000).unref();

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });

// A tab in which nothing may go wrong that is not expected at that moment.
async function tab(options) {
  const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce", ...options });
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
  });
  const page = await context.newPage();
  page.expected = [];
  const complain = (what) => {
    if (!page.expected.some((expected) => what.includes(expected))) {
      wrong.push(`${page.url()}: ${what}`);
    }
  };
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complain(`console: ${message.text()}`));
  page.on("pageerror", (error) => complain(`error: ${error}`));
  page.on("requestfailed", (request) => {
    // A stream that is left with its page.
    const left = request.url().includes("/log/stream") && request.failure().errorText === "net::ERR_ABORTED";
    if (!left) {
      complain(`failed: ${request.url()} ${request.failure().errorText}`);
    }
  });
  page.on("response", (response) => response.status() >= 400 && complain(`status ${response.status()}: ${response.url()}`));
  page.on("dialog", (dialog) => { complain(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.forget = (what) => {
    const found = wrong.filter((complaint) => complaint.includes(what));
    wrong.splice(0, wrong.length, ...wrong.filter((complaint) => !complaint.includes(what)));
    return found.length;
  };
  return page;
}

const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
const go = (page, path) => page.goto(`${base}/${path}`);
const step = (text) => console.log(text);
const focused = (page) => page.evaluate(() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    tag: element.tagName, text: element.textContent.trim().slice(0, 60), id: element.id, name: element.name || "",
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    seen: box.width > 0 && box.height > 0 && box.left >= 0 && box.bottom > 0,
  };
});

async function toolCall() {
  const response = await fetch(call.url, {
    method: "POST",
    headers: { ...call.headers, authorization: `Bearer ${call.token}`, "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: call.body,
  });
  await response.text();
  return response.status;
}

// Tabs to what is called so; fails where it cannot be reached.
async function tabTo(page, text, most = 80) {
  for (let pressed = 0; pressed < most; pressed += 1) {
    await page.keyboard.press("Tab");
    const now = await focused(page);
    assert(now.outlined, `the focus cannot be seen on ${JSON.stringify(now)}`);
    if (now.text.startsWith(text) || now.name === text) {
      return now;
    }
  }
  assert.fail(`${text} cannot be reached by keyboard`);
}

async function fitsWidth(page, what) {
  const { wide, outside } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    outside: [...document.querySelectorAll("main *, header *")]
      .filter((element) => !element.closest(".unseen, thead, pre") && element.getBoundingClientRect().right > innerWidth + 1)
      .map((element) => `${element.tagName}.${element.className}`),
  }));
  assert(wide <= 0 && outside.length === 0, `${what} scrolls sideways by ${wide}: ${outside}`);
}

// Over TLS: the cookie is taken, sent with forms and streams, and forgotten.
async function overTls() {
  const page = await tab({ ignoreHTTPSErrors: true });
  await go(page, "log");
  await page.getByRole("link", { name: "Sign in with test" }).press("Enter");
  await page.waitForURL(`${base}/log`);
  await page.getByText("live", { exact: true }).waitFor();
  const [cookie, ...others] = await page.context().cookies();
  assert.deepEqual(
    [others.length, cookie.name, cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.path],
    [0, "__Host-bailiwick_session", true, true, "Lax", "/"],
  );
  await page.getByRole("button", { name: "Sign out" }).press("Enter");
  await page.getByText("You are signed out here.").waitFor();
  assert.deepEqual(await page.context().cookies(), []);
  assert.deepEqual(wrong, []);
  step("all is well");
}

try {
  if (tls) {
    await overTls();
    await browser.close();
    process.exit(0);
  }
  const page = await tab({ colorScheme: "light" });
  step("signing in, by keyboard");
  await go(page, "servers");
  assert(page.url().includes("/admin/login?to=%2Fservers"));
  await picture(page, "login-wide-light");
  await page.keyboard.press("Tab");
  assert.equal((await focused(page)).text, "Skip to the content");
  await tabTo(page, "Sign in with test");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "ann" }).click();
  await page.waitForURL(`${base}/servers`);
  const cookies = (await page.context().cookies()).filter((cookie) => cookie.name.includes("session"));
  assert(cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === "Lax", JSON.stringify(cookies));
  assert.equal(await page.evaluate(() => document.cookie), "", "no script reads a cookie");

  step("every page, wide and narrow, light and dark");
  await toolCall();
  for (const path of PAGES) {
    const name = path.split("?")[0].replace("/", "-").replace(/-[0-9A-Za-z]{26,64}$/, "-one") || "overview";
    let light = null;
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const [size, viewport] of [["wide", WIDE], ["narrow", NARROW]]) {
        await page.setViewportSize(viewport);
        await go(page, path);
        assert.equal(await page.locator("h1").count(), 1, path);
        const shown = (await page.locator("main").textContent()).replace(/\s+/g, " ");
        for (const text of filled[path] ?? []) {
          assert(shown.includes(text), `${path} does not show ${text}: ${shown}`);
        }
        if (name === "log") {
          await page.getByText("live", { exact: true }).waitFor();
          await page.locator("#live li:not([data-look])").first().waitFor();
        }
        await fitsWidth(page, `${name} at ${viewport.width}`);
        await picture(page, `${name}-${size}-${colorScheme}`);
      }
      const color = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
      assert.notEqual(color, light, "the dark is dark");
      light = color;
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(WIDE);

  step("the keyboard goes through every page in its order, and is always seen");
  for (const path of PAGES) {
    await go(page, path);
    await page.keyboard.press("Tab");
    const first = await focused(page);
    assert(first.text === "Skip to the content" && first.seen, JSON.stringify(first));
    const links = await page.locator("nav a").allTextContents();
    await page.keyboard.press("Tab");
    assert.equal((await focused(page)).text, "Bailiwick");
    for (const link of links) {
      await page.keyboard.press("Tab");
      const now = await focused(page);
      assert(now.text === link && now.outlined && now.seen, `${path}: ${link} ${JSON.stringify(now)}`);
    }
    await go(page, path);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    assert.equal((await focused(page)).id, "content", "the skip link skips");
  }

  step("a page that would break its own content policy is noticed");
  await go(page, "servers");
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.inlined = true";
    document.body.append(script);
    const style = document.createElement("style");
    style.textContent = "body { display: none }";
    document.head.append(style);
    const image = new Image();
    image.src = "https://elsewhere.example/x.png";
    document.body.append(image);
  });
  for (let tries = 0; ["script-src", "style-src", "img-src"].some((part) => !wrong.some((told) => told.includes(`policy violated: ${part}`))); tries += 1) {
    assert(tries < 100, `a violation was not noticed: ${wrong.join("\n")}`);
    await page.waitForTimeout(50);
  }
  assert.equal(await page.evaluate(() => window.inlined), undefined, "the script did not run");
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).display) === "none", false);
  // What the browser itself says of the same three goes with them.
  assert(["policy violated", "Content Security Policy", "elsewhere.example"].map(page.forget)[0] >= 3);
  assert.deepEqual(wrong, []);

  step("why a server is down is said where it is listed");
  await go(page, "servers");
  const down = (await page.locator("tr", { hasText: "gone" }).textContent()).replace(/\s+/g, " ");
  assert(/down.*refused.*since \d{4}-/.test(down), down);

  step("what others wrote is text");
  await go(page, "servers");
  const hostile = page.locator("tr", { hasText: "payroll" });
  assert((await hostile.textContent()).includes("<img src=x"));
  assert.equal(await page.locator("main img").count(), 0);
  assert.equal(await hostile.locator(".odd").textContent(), "U+202E");

  step("a question is answered without leaving the page");
  await go(page, "ask");
  await page.evaluate(() => { window.stayed = true; });
  await page.locator("form:has(input[name=subject]) input[name=subject]").fill("agent:assistant");
  await page.keyboard.press("Enter");
  await page.locator("#what-answer table").waitFor();
  await page.locator("form:has(textarea) input[name=object]").fill("tools/echo");
  await page.locator("form:has(textarea) input[name=as]").fill("user:test/mallory");
  await page.getByRole("button", { name: "Explain" }).press("Enter");
  await page.locator("#explain-answer h3").waitFor();
  assert((await page.locator("#explain-answer").textContent()).includes("refused"));
  assert.equal(await page.evaluate(() => window.stayed), true);
  await picture(page, "explained-wide-light");

  step("the live log receives a call, can be opened and paused");
  await go(page, "log?subject=dora");
  await page.getByText("live", { exact: true }).waitFor();
  await page.locator("#live li:not([data-look])").first().waitFor();
  const before = await page.locator("#live li").count();
  assert.equal(await toolCall(), 200);
  await page.waitForFunction((before) => document.querySelectorAll("#live li").length > before, before);
  const row = page.locator("#live li").first();
  assert((await row.textContent()).includes("tools/echo"));
  await row.locator("summary").press("Enter");
  await row.locator("pre").waitFor();
  assert((await row.locator("pre").textContent()).includes("\"type\": \"result\""));
  await picture(page, "log-opened-wide-light");
  await page.getByRole("button", { name: "Pause" }).press("Enter");
  const paused = await page.locator("#live li").count();
  await toolCall();
  await page.getByText("paused, 1 new").waitFor();
  assert.equal(await page.locator("#live li").count(), paused);
  await page.getByRole("button", { name: "Go on" }).press("Enter");
  await page.waitForFunction((paused) => document.querySelectorAll("#live li").length > paused, paused);
  for (let more = 0; more < 105; more += 1) {
    await toolCall();
  }
  await page.waitForFunction(() => document.querySelectorAll("#live li").length === 100);
  assert.equal(await row.page().locator("#live details[open]").count(), 1, "what is being read stays");

  step("revoking by keyboard, and the refusal is in the log");
  const watching = await page.context().newPage();
  await watching.goto(`${base}/log?subject=dora&decision=deny`);
  await watching.getByText("live", { exact: true }).waitFor();
  await go(page, "revocations");
  await tabTo(page, "target");
  await page.keyboard.type("a person");
  await tabTo(page, "issuer");
  await page.keyboard.type("test");
  await tabTo(page, "value");
  await page.keyboard.type("dora");
  await tabTo(page, "note");
  await page.keyboard.type("a laptop was stolen");
  await tabTo(page, "See what it stops");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Take access back?" }).waitFor();
  await picture(page, "revoke-confirm-wide-light");
  assert.equal(await toolCall(), 200, "nothing is taken back yet");
  await tabTo(page, "Revoke");
  await page.keyboard.press("Enter");
  await page.getByText(/^It holds from epoch \d+ on\.$/).waitFor();
  assert.equal(await toolCall(), 401);
  await picture(page, "revocations-held-wide-light");
  await page.setViewportSize(NARROW);
  await fitsWidth(page, "revocations with one");
  await picture(page, "revocations-held-narrow-light");
  await page.setViewportSize(WIDE);
  await watching.close();
  await go(page, "log?decision=deny&grep=revoked");
  await page.locator("#live li", { hasText: "revoked" }).first().waitFor();

  step("lifting takes a fresh login and a reason");
  await go(page, "revocations");
  await page.getByRole("link", { name: "Lift" }).click();
  await picture(page, "lift-old-login-wide-light");
  await page.getByRole("link", { name: "Log in again" }).click();
  await page.getByRole("link", { name: "ann" }).click();
  await page.waitForURL(/\/revocations\/\d+\/lift$/);
  await picture(page, "lift-wide-light");
  await page.locator("textarea[name=note]").fill("it was found again");
  await page.getByRole("button", { name: "Lift it" }).press("Enter");
  // What was taken back with it has epochs of its own.
  await page.getByText(/^It was lifted with epoch \d+\.$/).waitFor();
  assert.equal(await toolCall(), 200);

  step("somebody without rights has their own page, on a phone, in the dark");
  const phone = await tab({ viewport: NARROW, colorScheme: "dark", isMobile: true, hasTouch: true });
  await go(phone, "");
  await picture(phone, "login-narrow-dark");
  await phone.getByRole("link", { name: "Sign in with test" }).tap();
  await phone.getByRole("link", { name: "dora" }).tap();
  await phone.waitForURL(`${base}/access`);
  await phone.getByText("echo").first().waitFor();
  await fitsWidth(phone, "my access on a phone");
  await picture(phone, "access-dora-narrow-dark");
  await phone.locator("input[name=object]").fill("payroll/pay");
  await phone.getByRole("button", { name: "Ask" }).tap();
  await phone.locator("#answer h3, #answer p").first().waitFor();
  await picture(phone, "access-asked-narrow-dark");
  phone.expected.push("403");
  await go(phone, "servers");
  await phone.getByText("p, user:test/dora, *, bailiwick/servers, admin, -, allow").waitFor();
  await fitsWidth(phone, "a refusal on a phone");
  await picture(phone, "refused-narrow-dark");

  step("signing out");
  await page.getByRole("button", { name: "Sign out" }).press("Enter");
  await page.getByText("You are signed out here.").waitFor();
  await go(page, "servers");
  assert(page.url().includes("/admin/login"));

  assert.deepEqual(wrong, []);
  step("all is well");
} catch (error) {
  console.error(error);
  console.error(wrong.join("\n"));
  for (const context of browser.contexts()) {
    for (const page of context.pages()) {
      console.error(page.url());
      await page.screenshot({ path: join(pictures, "failed.png"), fullPage: true }).catch(() => {});
    }
  }
  process.exitCode = 1;
} finally {
  await browser.close();
}
