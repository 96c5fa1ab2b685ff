// The helper's types, by the compiler. What they are to allow and to refuse is in types.ts.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

test("the types fit the helper and its users", () => {
  const here = fileURLToPath(new URL(".", import.meta.url));
  const compiler = fileURLToPath(new URL("../../target/browser/node_modules/typescript/bin/tsc", import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, "--project", here], { encoding: "utf8" });
  assert.equal(status, 0, stdout + stderr);
});
