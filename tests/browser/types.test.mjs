// Checks client.d.ts with the TypeScript compiler, which compiles the valid and invalid uses in types.ts.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

test("client.d.ts accepts the valid uses in types.ts and rejects the invalid ones", () => {
  const here = fileURLToPath(new URL(".", import.meta.url));
  const compiler = fileURLToPath(new URL("../../target/browser/node_modules/typescript/bin/tsc", import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, "--project", here], { encoding: "utf8" });
  assert.equal(status, 0, stdout + stderr);
});
