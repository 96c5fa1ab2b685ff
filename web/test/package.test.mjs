// Tests the content, size and version of the npm package. client.test.mjs tests the helper's behaviour.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const web = new URL("..", import.meta.url);

test("the package contains the helper and no files of the development page", () => {
  const answer = execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: web, stdio: ["ignore", "pipe", "ignore"] });
  const packed = JSON.parse(answer);
  const [{ files }] = Array.isArray(packed) ? packed : Object.values(packed); // npm 10, npm 11
  assert.deepEqual(files.map(({ path }) => path).sort(), ["LICENSE", "README.md", "client.d.ts", "client.js", "package.json"]);
});

test("client.js with its comments, as the service serves it, is less than 3 KiB compressed", () => {
  assert.ok(gzipSync(readFileSync(new URL("client.js", web))).length < 3 * 1024);
});

test("the package has the version of the service", () => {
  const version = (text, pattern) => pattern.exec(text)[1];
  const cargo = readFileSync(new URL("../Cargo.toml", web), "utf8");
  const npm = readFileSync(new URL("package.json", web), "utf8");
  assert.equal(version(npm, /"version": "(.+)"/), version(cargo, /^version = "(.+)"/m));
});
