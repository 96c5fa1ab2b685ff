// Tests packaging/npm/rollout-token.js, which starts the service from the npm package.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";

// Runs in place of the service: prints whether it has its own process group, then a line for each SIGINT. It exits with
// code 3 at SIGTERM.
const SERVICE = `#!/usr/bin/env node
const { readFileSync } = require("node:fs");
process.on("SIGINT", () => console.log("SIGINT"));
process.on("SIGTERM", () => process.exit(3));
setInterval(() => {}, 1000);
const group = readFileSync("/proc/self/stat", "utf8").split(") ")[1].split(" ")[2];
console.log("own group:", Number(group) === process.pid);
`;

test("a repeated SIGINT reaches the service only once, and the service has its own process group and determines the exit code", async () => {
  const folder = mkdtempSync(join(tmpdir(), "launcher-"));
  try {
    const platform = join(folder, "node_modules", `rollout-token-${process.platform}-${process.arch}`);
    mkdirSync(platform, { recursive: true });
    writeFileSync(join(platform, "rollout-token"), SERVICE, { mode: 0o755 });
    writeFileSync(join(platform, "package.json"), "{}");
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    const script = join(folder, "rollout-token.js");
    copyFileSync(new URL("../../packaging/npm/rollout-token.js", import.meta.url), script);
    const launcher = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] });
    const code = new Promise((resolve) => launcher.on("exit", resolve));

    const lines = [];
    for await (const line of createInterface({ input: launcher.stdout })) {
      lines.push(line);
      if (line === "SIGINT") {
        launcher.kill("SIGTERM");
      } else {
        launcher.kill("SIGINT");
        launcher.kill("SIGINT");
      }
    }
    assert.deepEqual([lines, await code], [["own group: true", "SIGINT"], 3]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
