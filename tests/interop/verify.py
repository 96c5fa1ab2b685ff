"""Verifies a token as Rollout's Python users would: PyJWT, no leeway."""

import sys

import jwt

token, secret, client_id, subject = sys.argv[1:]
claims = jwt.decode(token, secret, algorithms=["HS512"], issuer=client_id, options={"require": ["iss", "sub", "iat", "exp"]})
assert claims["sub"] == subject, claims
assert claims["exp"] - claims["iat"] == 900, claims
assert set(claims) == {"iss", "sub", "iat", "exp"}, claims
assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "HS512"}
