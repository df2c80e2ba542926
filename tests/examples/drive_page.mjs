// Drives examples/web in headless Chromium. Arguments: one JSON object; prints one JSON object.
// { playwright, chromium, url, files: [paths to drop], clicks: [[x, y], ...], screenshot: path or null }
import { readFileSync } from "node:fs";
import { basename } from "node:path";

const wish = JSON.parse(process.argv[2]);
const { chromium } = (await import(wish.playwright)).default;
const browser = await chromium.launch({
  executablePath: wish.chromium,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 900 } });
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfailed", (request) => problems.push(`failed: ${request.url()}`));
  const hosts = new Set();
  page.on("request", (request) => hosts.add(new URL(request.url()).hostname));
  await page.goto(wish.url);
  const files = wish.files.map((path) => ({ name: basename(path), data: readFileSync(path).toString("base64") }));
  await page.evaluate(async (given) => {
    const transfer = new DataTransfer();
    for (const { name, data } of given) {
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      transfer.items.add(new File([bytes], name, { type: name.endsWith(".png") ? "image/png" : "" }));
    }
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, files);
  const status = page.locator("#status");
  if (wish.clicks.length) {
    await page.waitForFunction(() => document.getElementById("status").textContent.includes("three clicks"), null, { timeout: 60000 });
    for (const [x, y] of wish.clicks) {
      await page.locator("#picture").click({ position: { x, y } });
    }
  }
  await page.waitForFunction(
    () => document.getElementById("status").className === "error"
      || document.getElementById("status").textContent.startsWith("Swapped"),
    null, { timeout: 60000 });
  const url = await page.evaluate(() => document.getElementById("swapped").toDataURL("image/png"));
  if (wish.screenshot) await page.screenshot({ path: wish.screenshot });
  console.log(JSON.stringify({ status: await status.textContent(), png: url.split(",")[1], problems, hosts: [...hosts] }));
} finally {
  await browser.close();
}
