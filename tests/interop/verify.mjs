// Verifies tokens with Node's jsonwebtoken, jose and fast-jwt, each called as its own documentation shows.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.LIBRARIES}/`);
const version = (name) => JSON.parse(readFileSync(`${process.env.LIBRARIES}/node_modules/${name}/package.json`)).version;
const jsonwebtoken = require("jsonwebtoken");
const jose = await import(pathToFileURL(require.resolve("jose")));
const { createVerifier } = require("fast-jwt");

const verifiers = {
  jsonwebtoken: (token, secret, issuer) => jsonwebtoken.verify(token, secret, { algorithms: ["HS512"], issuer }),
  jose: async (token, secret, issuer) =>
    (await jose.jwtVerify(token, new TextEncoder().encode(secret), { algorithms: ["HS512"], issuer })).payload,
  "fast-jwt": (token, secret, issuer) => createVerifier({ key: secret, algorithms: ["HS512"], allowedIss: issuer })(token),
};

for (const line of readFileSync(0, "utf8").trimEnd().split("\n")) {
  const [name, secret, issuer, token] = line.split("\t");
  for (const [library, verify] of Object.entries(verifiers)) {
    let answer;
    try {
      answer = ["accepted", JSON.stringify(await verify(token, secret, issuer))];
    } catch (error) {
      answer = ["refused", String(error.message)];
    }
    console.log([library, version(library), name, ...answer].join("\t"));
  }
}
