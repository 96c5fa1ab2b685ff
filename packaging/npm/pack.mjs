// Packs the npm packages: `node packaging/npm/pack.mjs BINARY FOLDER`. The package `rollout-token` contains the helper
// from web/ and starts the binary, which is in a separate package for each platform. There is no install script, and
// nothing is downloaded.
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [binary, folder] = process.argv.slice(2);
const root = join(import.meta.dirname, "../..");
const helper = JSON.parse(readFileSync(join(root, "web/package.json"), "utf8"));
const { version, license } = helper;
const repository = process.env.REPOSITORY_URL && { type: "git", url: process.env.REPOSITORY_URL };
// Node's names for the binary's platform.
const [os, cpu] = (process.env.NPM_PLATFORM ?? `${process.platform}-${process.arch}`).split("-");
const PLATFORMS = ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"];
const work = mkdtempSync(join(tmpdir(), "rollout-token-"));

function pack(name, manifest, files) {
  const place = join(work, name);
  mkdirSync(place);
  writeFileSync(join(place, "package.json"), JSON.stringify({ name, version, license, repository, ...manifest }, null, 2) + "\n");
  for (const [from, to, mode] of files) {
    copyFileSync(resolve(root, from), join(place, to));
    chmodSync(join(place, to), mode);
  }
  execFileSync("npm", ["pack", "--silent", "--pack-destination", folder], { cwd: place, stdio: ["ignore", "ignore", "inherit"] });
}

const { name, files: _, ...shared } = helper;
const licences = [["LICENSE-MIT", "LICENSE-MIT", 0o644], ["LICENSE-APACHE", "LICENSE-APACHE", 0o644]];
pack(
  name,
  {
    ...shared,
    bin: { "rollout-token": "rollout-token.js" },
    optionalDependencies: Object.fromEntries(PLATFORMS.map((platform) => [`${name}-${platform}`, version])),
  },
  [
    ["packaging/npm/rollout-token.js", "rollout-token.js", 0o755],
    ["packaging/npm/README.md", "README.md", 0o644],
    ["web/client.js", "client.js", 0o644],
    ["web/client.d.ts", "client.d.ts", 0o644],
    ...licences,
  ],
);
pack(
  `${name}-${os}-${cpu}`,
  { description: `The binary of ${name} for ${os}-${cpu}.`, os: [os], cpu: [cpu], preferUnplugged: true },
  [[resolve(binary), "rollout-token", 0o755], ...licences],
);
rmSync(work, { recursive: true });
