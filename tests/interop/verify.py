"""Verifies tokens with Python's PyJWT, joserfc and Authlib, each called as its own documentation shows."""

import json
import sys
import warnings
from importlib.metadata import version

import jwt
from authlib.jose import JsonWebToken
from joserfc.jwk import OctKey
from joserfc.jwt import JWTClaimsRegistry
from joserfc.jwt import decode as joserfc_decode


def pyjwt(token: str, secret: str, issuer: str) -> dict:
    return jwt.decode(token, secret, algorithms=["HS512"], issuer=issuer, options={"require": ["exp", "iat", "sub"]})


def joserfc(token: str, secret: str, issuer: str) -> dict:
    claims = joserfc_decode(token, OctKey.import_key(secret), algorithms=["HS512"]).claims
    JWTClaimsRegistry(iss={"essential": True, "value": issuer}, exp={"essential": True}).validate(claims)
    return claims


def authlib(token: str, secret: str, issuer: str) -> dict:
    options = {"iss": {"essential": True, "value": issuer}, "exp": {"essential": True}}
    claims = JsonWebToken(["HS512"]).decode(token, secret, claims_options=options)
    claims.validate()
    return dict(claims)


for line in sys.stdin:
    name, secret, issuer, token = line.rstrip("\n").split("\t")
    for library, verify in {"PyJWT": pyjwt, "joserfc": joserfc, "Authlib": authlib}.items():
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                claims = json.dumps(verify(token, secret, issuer))
                answer = "accepted with a warning" if warned else "accepted", claims
            except Exception as error:  # Any error counts as a refusal. A bug in this script would be noticed, because valid tokens would be refused.
                answer = "refused", repr(error)
        print(library, version(library), name, *answer, sep="\t")
