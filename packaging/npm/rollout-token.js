#!/usr/bin/env node
// Starts the binary from this platform's package, which npm installs as an optional dependency.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { constants } from "node:os";

const platform = `rollout-token-${process.platform}-${process.arch}`;

function binary() {
  try {
    return createRequire(import.meta.url).resolve(`${platform}/rollout-token`);
  } catch {
    console.error(
      `rollout-token: the package ${platform} is not installed. If npm ran with --omit=optional, install again without it. ` +
        "If there is no package for this platform, use the container image or build from source.",
    );
    process.exit(1);
  }
}

const service = spawn(binary(), process.argv.slice(2), { stdio: "inherit" });
service.on("error", (error) => {
  console.error(`rollout-token: cannot start: ${error.message}`);
  process.exit(1);
});
// A terminal sends SIGINT to both processes; other senders signal only this one. The service drains and then exits.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => service.kill(signal));
service.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
