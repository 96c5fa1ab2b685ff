// Verifies a token as Rollout's JavaScript users would: jsonwebtoken.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [, , modules, token, secret, issuer, subject] = process.argv;
const jwt = createRequire(`${modules}/`)("jsonwebtoken");
const { header, payload } = jwt.verify(token, secret, { algorithms: ["HS512"], issuer, subject, complete: true });
assert.deepEqual(header, { typ: "JWT", alg: "HS512" });
assert.equal(payload.exp - payload.iat, 900);
assert.deepEqual(Object.keys(payload).sort(), ["exp", "iat", "iss", "sub"]);
