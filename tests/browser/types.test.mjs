// Checks the helper's types with the compiler. types.ts contains valid and invalid uses.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

test("the types match the helper and its use", () => {
  const here = fileURLToPath(new URL(".", import.meta.url));
  const compiler = fileURLToPath(new URL("../../target/browser/node_modules/typescript/bin/tsc", import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, "--project", here], { encoding: "utf8" });
  assert.equal(status, 0, stdout + stderr);
});
