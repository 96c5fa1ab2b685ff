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

// npm passes on the SIGINT that the terminal has also sent to this process, so a repeat within half a second is the same one.
let last = { signal: "", time: 0 };
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    const time = performance.now();
    if (signal !== last.signal || time - last.time > 500) service.kill(signal);
    last = { signal, time };
  });
}

// Detached, so that a terminal's Ctrl-C reaches only this process: a second SIGINT would end the service without a drain.
const service = spawn(binary(), process.argv.slice(2), { stdio: "inherit", detached: true });
service.on("error", (error) => {
  console.error(`rollout-token: cannot start: ${error.message}`);
  process.exit(1);
});
service.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
