// Tests the helper's package: its content and its size. client.test.mjs tests its behaviour.
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

test("the helper with its comments, as the service serves it, is at most 3 kB compressed", () => {
  assert.ok(gzipSync(readFileSync(new URL("client.js", web))).length < 3 * 1024);
});

test("the package has the version of the service", () => {
  const version = (text, pattern) => pattern.exec(text)[1];
  const cargo = readFileSync(new URL("../Cargo.toml", web), "utf8");
  const npm = readFileSync(new URL("package.json", web), "utf8");
  assert.equal(version(npm, /"version": "(.+)"/), version(cargo, /^version = "(.+)"/m));
});
