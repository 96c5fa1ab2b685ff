#!/usr/bin/env python3
"""Writes idp-token-classes.json: tokens of all classes that identity providers sign with the keys of session tokens.

Providers sign more than session tokens with these keys: ID tokens, service tokens, tokens for other apps. Each case is
one such token in the provider's format, with invented names and ids. `decides` cites the provider's code that
determines the token's class (repository at a commit, file, line), or its documentation if no code does. `oracle` is
PyJWT's result if it checks only the signature, issuer and audience: if it is "authenticated" and `expect` is
"rejected", the token must be rejected because of its class alone.

PyJWT creates the tokens, not the code under test. Keys come from fixed seeds and times are fixed, so each run writes
the same file:

    pip install PyJWT==2.15.1 cryptography && python3 tests/vectors/idp-token-classes.py
"""

import base64
import hashlib
import json
import pathlib
import random

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

NOW = 1_795_566_606
IAT = NOW - 3
EXP = NOW + 315_360_000

CLERK = "clerk/javascript@e21ae9a4cf:packages/backend/src/tokens/"
SUPABASE = "supabase/auth@bc32168e13:internal/tokens/service.go:"
COGNITO = "awslabs/aws-jwt-verify@a7fce8e161:src/"
AUTH0 = "auth0/node-oauth2-jwt-bearer@8701dab5c4:packages/access-token-jwt/src/validate.ts:"
AUTH0_DOCS = "auth0.com/docs/secure/tokens/access-tokens/access-token-profiles"
KEYCLOAK_TYPE = "keycloak/keycloak@03f8a2f6c1:core/src/main/java/org/keycloak/TokenVerifier.java:135"
KEYCLOAK_SERVICE = (
    "keycloak/keycloak@091ec956bb:common/src/main/java/org/keycloak/common/constants/ServiceAccountConstants.java:"
)
ENTRA = "AzureAD/microsoft-identity-web@dfeab82385:src/Microsoft.Identity.Web/"
FIREBASE = "firebase/firebase-admin-node@5a203f6737:src/auth/token-verifier.ts:"
OKTA = "okta/okta-jwt-verifier-js@701353c47c:lib.js:"
WORKOS = "workos/authkit-nextjs@621202995c:src/interfaces.ts:75"
WORKOS_DOCS = "workos.com/docs/authkit/connect/token-claims"
ACCESS = "cloudflare/pages-plugins@b139e8e7b8:packages/cloudflare-access/"
IAP = "googleapis/google-auth-library-nodejs@a95b827219:src/auth/oauth2client.ts:1545"
ALB = "awslabs/aws-jwt-verify@a7fce8e161:src/alb-verifier.ts:284"


def prime(source):
    """Returns a 1,024-bit prime whose two highest bits are set, so that the product of two has 2,048 bits."""
    while True:
        number = source.getrandbits(1024) | 3 << 1022 | 1
        if number % 65537 != 1 and all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11)):
            return number


def rsa_key(seed):
    source = random.Random(seed)
    p, q = prime(source), prime(source)
    d = pow(65537, -1, (p - 1) * (q - 1))
    parts = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, d, *parts, rsa.RSAPublicNumbers(65537, p * q)).private_key()


class Es256(jwt.algorithms.ECAlgorithm):
    """ES256 with deterministic signatures (RFC 6979)."""

    def sign(self, msg, key):
        r, s = decode_dss_signature(key.sign(msg, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


jwt.unregister_algorithm("ES256")
jwt.register_algorithm("ES256", Es256(Es256.SHA256))

RSA = rsa_key("rollout-token vectors")
EC = ec.derive_private_key(int.from_bytes(hashlib.sha256(b"rollout-token vectors").digest(), "big"), ec.SECP256R1())
HMAC = b"the key of a realm's refresh tokens, which it keeps for itself; 64 b"
KEYS = {"RS256": RSA, "ES256": EC, "HS512": HMAC}


def jwk(alg):
    kind = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm}[alg]
    public = json.loads(kind.to_jwk(KEYS[alg].public_key()))
    public.pop("key_ops", None)
    return {**public, "kid": "key-1", "alg": alg, "use": "sig"}


class Provider:
    def __init__(self, name, claims, *, alg="RS256", audience=None, place="authorization", header=None, config=None):
        self.name, self.claims, self.alg, self.header = name, claims, alg, header or {}
        self.config = {
            "scheme": "jwt",
            "provider": name,
            "jwks": {"keys": [jwk(alg)]},
            "algorithms": [alg],
            "issuer": claims["iss"],
            "audience": audience,
            "leeway": 0,
            "subject_path": "/sub",
            "locations": [place],
            **(config or {}),
        }

    def token(self, claims=None, header=None, without=(), alg=None):
        alg = alg or self.alg
        payload = {**self.claims, **(claims or {})}
        payload = {name: value for name, value in payload.items() if name not in without}
        fields = {"kid": "key-1", "typ": "JWT", **self.header, **(header or {})}
        fields = {name: value for name, value in fields.items() if value is not None}
        if self.config.get("padded_base64"):
            part = lambda data: base64.urlsafe_b64encode(data).decode()
            head = json.dumps({"alg": alg, **fields}, separators=(",", ":")).encode()
            signed = part(head) + "." + part(json.dumps(payload, separators=(",", ":")).encode())
            signature = jwt.get_algorithm_by_name(alg).sign(signed.encode(), KEYS[alg])
            return payload, signed + "." + part(signature)
        return payload, jwt.encode(payload, KEYS[alg], alg, headers=fields)

    def oracle(self, token, issuer):
        options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_sub": False}
        audience = self.config["audience"]
        if self.config.get("padded_base64"):
            token = token.replace("=", "")
            options["verify_signature"] = False
        try:
            options["verify_aud"] = audience is not None
            jwt.decode(
                token,
                KEYS[self.alg].public_key(),
                [self.alg],
                audience=audience,
                issuer=issuer,
                options=options,
            )
            return "authenticated"
        except jwt.InvalidTokenError as error:
            return type(error).__name__


CASES = []


def case(provider, cls, what, decides, outcome=None, *, config=None, headers=None, cookies=None, **changes):
    """Adds a case for a token of class `cls`. By default, acceptance is expected only for the class `session`."""
    payload, token = provider.token(**changes)
    merged = {**provider.config, **(config or {})}
    place = provider.config["locations"][0]
    if headers is None:
        name = "authorization" if place == "authorization" else place.removeprefix("header:")
        headers = {name: f"Bearer {token}" if name == "authorization" else token}
    outcome = outcome or ("authenticated" if cls == "session" else "rejected")
    expect = {"outcome": outcome}
    if outcome == "authenticated":
        path = merged["subject_path"].removeprefix("/")
        expect |= {"session": payload, "subject_path": merged["subject_path"], "subject": payload[path]}
    else:
        expect["reason"] = "token_class"
    CASES.append(
        {
            "name": f"{provider.name}-{cls}-{what}",
            "class": cls,
            "decides": decides,
            "config": merged,
            "request": {"cookies": cookies or {}, "headers": headers},
            "now": NOW,
            "expect": expect,
            "oracle": provider.oracle(token, merged["issuer"]),
        }
    )


# Clerk. Checking `azp` would refuse some of these tokens too. The cases do not configure `azp`, so that only the preset
# refuses them.
clerk = Provider(
    "clerk",
    {
        "azp": "https://app.example.com",
        "exp": EXP,
        "iat": IAT,
        "iss": "https://clerk.example.com",
        "jti": "bcf2efb906ca97fe903f",
        "nbf": IAT - 10,
        "sid": "sess_2f1445bbd70da1ee80e6dec8c",
        "sts": "active",
        "sub": "user_2a45bbcb9cc42b61e11a13604",
        "v": 2,
    },
    header={"cat": "cl_B7d4PD111AAA"},
)
NO_SESSION = ("sid", "sts", "v")
case(clerk, "session", "category-session", CLERK + "jwtCategories.ts:18")
case(clerk, "session", "category-ignore", CLERK + "jwtCategories.ts:18", header={"cat": "cl_I7d4PD111III"})
case(clerk, "session", "no-category", CLERK + "jwtCategories.ts:18", header={"cat": None})
case(clerk, "template", "category-template", CLERK + "request.ts:428", header={"cat": "cl_B7d4PD222AAA"},
     without=NO_SESSION)
case(clerk, "template", "category-template-with-sid", CLERK + "request.ts:428", header={"cat": "cl_B7d4PD222AAA"})
case(clerk, "template", "category-ignore", "clerk.com/docs/guides/sessions/jwt-templates",
     header={"cat": "cl_I7d4PD111III"}, without=NO_SESSION)
case(clerk, "machine", "category-machine", CLERK + "request.ts:428", header={"cat": "cl_B7d4PD333AAA"},
     claims={"sub": "mch_2vYVtestTESTtestTESTtestTESTtest"}, without=(*NO_SESSION, "azp"))
case(clerk, "machine", "no-category", CLERK + "machine.ts:62", header={"cat": None},
     claims={"sub": "mch_2vYVtestTESTtestTESTtestTESTtest"}, without=(*NO_SESSION, "azp"))
for typ in ("at+jwt", "application/at+jwt"):
    case(clerk, "oauth-application", typ.replace("/", "-").replace("+", "-"), CLERK + "machine.ts:42",
         header={"typ": typ, "cat": None}, without=NO_SESSION,
         claims={"client_id": "client_2VTWUzvGC5UhdJCNx6xG1D98edc", "scope": "openid profile"})
# ID tokens for OAuth applications: `aud` is the application's client id; `nonce` and `at_hash` come from its sign-in.
OIDC_ID_TOKEN = "openid.net/specs/openid-connect-core-1_0.html#IDToken"
ID_TOKEN = {"aud": "client_2VTWUzvGC5UhdJCNx6xG1D98edc", "auth_time": IAT, "email": "ada@example.com"}
case(clerk, "id", "id-token", OIDC_ID_TOKEN, claims={**ID_TOKEN, "nonce": "n-1"}, header={"cat": None},
     without=(*NO_SESSION, "azp"))
case(clerk, "id", "id-token-with-sid-and-nonce", OIDC_ID_TOKEN, claims={**ID_TOKEN, "nonce": "n-1"},
     header={"cat": None}, without=("sts", "v"))
case(clerk, "id", "id-token-with-sid-and-at-hash", OIDC_ID_TOKEN, header={"cat": None}, without=("sts", "v"),
     claims={**ID_TOKEN, "at_hash": "77QmUPtjPfzWtF2AnpK9RQ"})
# These cases use the preset's default locations: the header is read before the cookie, which may contain an older
# token.
FRESH = {"authorization": "Bearer " + clerk.token()[1]}
for what, changes in (
    ("beside-a-stale-cookie", {"claims": {"exp": NOW - 3600, "sub": "user_of_the_cookie"}}),
    ("beside-another-apps-cookie", {"claims": {"iss": "https://clerk.other.example"}}),
):
    case(clerk, "session", what, CLERK + "request.ts:894", headers=FRESH,
         cookies={"__session": clerk.token(**changes)[1]}, config={"locations": None})

# Supabase. Its ID tokens are for other apps; its refresh tokens are opaque.
supabase = Provider(
    "supabase",
    {
        "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
        "sub": "79e03b34-25f2-4413-8e00-a7e16deac288",
        "aud": "authenticated",
        "exp": EXP,
        "iat": IAT,
        "email": "ada@example.com",
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {},
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": IAT}],
        "session_id": "dfc3e891-f42c-45de-8870-6d22bea81d50",
        "is_anonymous": False,
    },
    alg="ES256",
    audience="authenticated",
)
OTHER_APP = "9a8b7c6d-1111-4222-8333-444455556666"
case(supabase, "session", "access-token", SUPABASE + "84")
case(supabase, "oauth-application", "access-token", SUPABASE + "84",
     claims={"client_id": OTHER_APP, "scope": "openid email"})
case(supabase, "id", "id-token", SUPABASE + "101", claims={"aud": OTHER_APP, "client_id": OTHER_APP, "auth_time": IAT},
     without=("role", "aal", "amr", "session_id", "is_anonymous", "app_metadata", "user_metadata"))
for role in ("anon", "service_role"):
    case(supabase, "machine", role.replace("_", "-") + "-key", SUPABASE + "79", claims={"role": role},
         without=("aud", "sub", "email", "phone", "session_id", "aal", "amr"))

# Firebase. Its ID tokens are the session tokens; its refresh tokens are opaque.
firebase = Provider(
    "firebase",
    {
        "iss": "https://securetoken.google.com/demo-project-1",
        "aud": "demo-project-1",
        "auth_time": IAT,
        "user_id": "d8e743e6a7a643b4263ecbc7a032",
        "sub": "d8e743e6a7a643b4263ecbc7a032",
        "iat": IAT,
        "exp": EXP,
        "email": "a@example.com",
        "email_verified": True,
        "firebase": {"identities": {"email": ["a@example.com"]}, "sign_in_provider": "password"},
    },
    audience="demo-project-1",
)
case(firebase, "session", "id-token", FIREBASE + "529")
case(firebase, "session-cookie", "of-the-admin-sdk", FIREBASE + "630",
     claims={"iss": "https://session.firebase.google.com/demo-project-1"})
SERVICE = "firebase-adminsdk@demo-project-1.iam.gserviceaccount.com"
case(firebase, "custom", "custom-token", FIREBASE + "505", claims={
    "iss": SERVICE, "sub": SERVICE, "uid": "d8e743e6a7a643b4263ecbc7a032",
    "aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit",
}, without=("user_id", "firebase", "email", "email_verified", "auth_time"))
case(firebase, "machine", "app-check", FIREBASE + "529", claims={
    "iss": "https://firebaseappcheck.googleapis.com/123456789012", "sub": "1:123456789012:web:abcdef",
    "aud": ["projects/123456789012", "projects/demo-project-1"],
}, without=("user_id", "firebase", "email", "email_verified", "auth_time"))

# Auth0, with both of its access token profiles. Its refresh tokens are opaque.
auth0 = Provider(
    "auth0",
    {
        "iss": "https://tenant.eu.auth0.com/",
        "sub": "auth0|5a13d798f5b1fb28db870b4b",
        "aud": ["https://api.example.com", "https://tenant.eu.auth0.com/userinfo"],
        "iat": IAT,
        "exp": EXP,
        "scope": "openid profile",
        "azp": "664b3de4a0547ef3",
    },
    audience="https://api.example.com",
)
RFC_9068 = {"jti": "k8TYcGc3Ux2VpGJ6", "client_id": "664b3de4a0547ef3"}
case(auth0, "session", "auth0-profile", AUTH0 + "75")
case(auth0, "session", "auth0-profile-refreshed", AUTH0 + "75", claims={"gty": "refresh_token"})
case(auth0, "session", "rfc9068-profile", AUTH0 + "73", header={"typ": "at+jwt"}, claims=RFC_9068, without=("azp",))
case(auth0, "id", "id-token", AUTH0 + "75", claims={"aud": "664b3de4a0547ef3", "nonce": "n"},
     without=("scope", "azp"))
MACHINE = {"sub": "664b3de4a0547ef3@clients", "aud": "https://api.example.com", "scope": "read:x"}
case(auth0, "machine", "auth0-profile", AUTH0_DOCS, claims={**MACHINE, "gty": "client-credentials"})
case(auth0, "machine", "rfc9068-profile", AUTH0_DOCS, header={"typ": "at+jwt"}, claims={**MACHINE, **RFC_9068},
     without=("azp",))

# Amazon Cognito. Its refresh tokens are encrypted.
cognito = Provider(
    "cognito",
    {
        "sub": "435f6206-f2a4-46a4-a4dd-87c0afecce65",
        "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc123",
        "version": 2,
        "client_id": "1d0e1a79de47de7af713c15fbb",
        "origin_jti": "b699a9e4-c247-4707-bd96-1b347bb10a24",
        "token_use": "access",
        "scope": "openid",
        "auth_time": IAT,
        "exp": EXP,
        "iat": IAT,
        "jti": "ea473fd9-4562-44a6-86c6-fead0f2b351f",
        "username": "ada",
    },
    config={"claims": {"client_id": "1d0e1a79de47de7af713c15fbb"}},
)
case(cognito, "session", "access-token", COGNITO + "jwt-model.ts:83")
case(cognito, "machine", "client-credentials", COGNITO + "jwt-model.ts:83",
     claims={"sub": "1d0e1a79de47de7af713c15fbb", "scope": "api/read"}, without=("username", "origin_jti"))
case(cognito, "id", "id-token", COGNITO + "cognito-verifier.ts:182",
     claims={"token_use": "id", "aud": "1d0e1a79de47de7af713c15fbb", "cognito:username": "ada"},
     without=("client_id", "username", "scope", "version"))
case(cognito, "oauth-application", "another-client", COGNITO + "cognito-verifier.ts:205",
     claims={"client_id": "2otherclientofthepool00000"})

# Keycloak. Current versions sign refresh tokens with a separate secret; old versions use the realm's key for all
# tokens.
keycloak = Provider(
    "keycloak",
    {
        "exp": EXP,
        "iat": IAT,
        "auth_time": IAT,
        "jti": "onrtac:b6abb30a-ccb9-446a-84ff-dc11c7bbc357",
        "iss": "https://kc.example.com/realms/main",
        "aud": ["your-api", "account"],
        "sub": "7ca44954-620b-4df6-901b-3cffd3bbba1e",
        "typ": "Bearer",
        "azp": "web",
        "sid": "f58a5ab4-1667-4fca-a538-223688d3f741",
        "acr": "1",
        "realm_access": {"roles": ["offline_access", "user"]},
        "scope": "openid profile",
        "preferred_username": "ada",
    },
    audience="your-api",
)
case(keycloak, "session", "access-token", KEYCLOAK_TYPE)
case(keycloak, "session", "access-token-of-an-offline-session", KEYCLOAK_TYPE,
     claims={"scope": "openid profile offline_access"})
case(keycloak, "id", "id-token", KEYCLOAK_TYPE, claims={"typ": "ID", "aud": "your-api"}, without=("realm_access",))
for typ in ("Refresh", "Offline"):
    for alg in ("HS512", "RS256"):
        case(keycloak, "refresh", f"{typ}-{alg}".lower(), KEYCLOAK_TYPE, alg=alg,
             claims={"typ": typ, "aud": ["https://kc.example.com/realms/main", "your-api"]},
             without=("realm_access", "preferred_username"))
ADDRESS = {"clientHost": "10.0.0.7", "clientAddress": "10.0.0.7", "client_id": "batch", "azp": "batch"}
case(keycloak, "machine", "service-account", KEYCLOAK_SERVICE + "27",
     claims={**ADDRESS, "preferred_username": "service-account-batch"}, without=("sid", "auth_time"))
case(keycloak, "machine", "service-account-without-profile", KEYCLOAK_SERVICE + "35", claims=ADDRESS,
     without=("sid", "auth_time", "preferred_username"))
case(keycloak, "machine", "service-account-without-any-scope", KEYCLOAK_SERVICE + "27",
     claims={"azp": "batch", "scope": ""}, without=("sid", "auth_time", "preferred_username"))
case(keycloak, "machine", "service-account-without-its-scope", KEYCLOAK_SERVICE + "27",
     claims={"azp": "batch", "preferred_username": "service-account-batch"}, without=("sid", "auth_time"))

# Microsoft Entra ID. The front end and the API share one app registration, so ID tokens have the API's audience.
TENANT = "8b5abb95-0643-4c5e-837e-8bea3904411f"
entra = Provider(
    "entra",
    {
        "aud": "0b9ba38b-4de7-4fa7-8a04-6f56f75dd8da",
        "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
        "iat": IAT,
        "nbf": IAT,
        "exp": EXP,
        "azp": "323e667d-faf1-46b9-9fd4-d6c06d84fcb9",
        "azpacr": "0",
        "oid": "8ece503b-3234-4bbb-9650-75d06c7681a6",
        "scp": "access_as_user",
        "sub": "bfdf02321b9ce02a817fae9d17cc99a6",
        "tid": TENANT,
        "ver": "2.0",
    },
    audience="0b9ba38b-4de7-4fa7-8a04-6f56f75dd8da",
    config={"subject_path": "/oid", "claims": {"tid": TENANT}},
)
case(entra, "session", "delegated", ENTRA + "Policy/ScopeAuthorizationHandler.cs:78")
case(entra, "machine", "app-only", ENTRA + "Policy/ScopeAuthorizationHandler.cs:82",
     claims={"roles": ["Task.Read"], "azpacr": "1", "sub": "8ece503b-3234-4bbb-9650-75d06c7681a6"}, without=("scp",))
case(entra, "machine", "app-only-with-idtyp", ENTRA + "Policy/ScopeAuthorizationHandler.cs:82",
     claims={"idtyp": "app", "azpacr": "2"}, without=("scp",))
case(entra, "id", "id-token",
     ENTRA + "WebApiExtensions/MicrosoftIdentityWebApiAuthenticationBuilderExtensions.cs:251",
     claims={"nonce": "n", "preferred_username": "a@example.com"}, without=("scp", "azp", "azpacr"))

# Okta. Its refresh tokens are opaque. Without a `uid`, the subject is `sub`, whose value an app may have chosen.
okta = Provider(
    "okta",
    {
        "ver": 1,
        "jti": "AT.f32b21f86590704f6f426f39",
        "iss": "https://dev-1.okta.com/oauth2/default",
        "aud": "api://default",
        "iat": IAT,
        "exp": EXP,
        "cid": "0oa23726cf7c67028b6",
        "uid": "00uebd2f8d9276be95f",
        "scp": ["openid"],
        "auth_time": IAT,
        "sub": "a@example.com",
    },
    audience="api://default",
    config={"subject_path": "/uid"},
)
BY_LOGIN = {"subject_path": "/sub"}
case(okta, "session", "access-token", OKTA + "255")
case(okta, "machine", "client-credentials", "developer.okta.com/docs/guides/implement-grant-type/clientcreds/main",
     config=BY_LOGIN, claims={"sub": "0oa23726cf7c67028b6", "scp": ["api"]}, without=("uid", "auth_time"))
case(okta, "id", "id-token", OKTA + "262", config=BY_LOGIN, claims={"aud": "0oa23726cf7c67028b6", "jti": "ID.1", "amr": ["pwd"]},
     without=("uid", "cid", "scp"))

# WorkOS. If AuthKit has a custom domain, that domain is the issuer of session tokens and Connect tokens.
workos = Provider(
    "workos",
    {
        "iss": "https://api.workos.com/user_management/client_011B1F84A0FC5A51BF177E",
        "sub": "user_01E11F4030879284D785FC",
        "org_id": "org_0176483ef0041678d3",
        "role": "admin",
        "permissions": ["x"],
        "sid": "session_016acbaf01bf5b9f6a",
        "jti": "932ed99cd527c421",
        "exp": EXP,
        "iat": IAT,
    },
)
DOMAIN = {"iss": "https://auth.example.com"}
AT_DOMAIN = {"issuer": "https://auth.example.com"}
ENVIRONMENT = "client_011B1F84A0FC5A51BF177E"
case(workos, "session", "access-token", WORKOS)
case(workos, "session", "access-token-at-a-domain", WORKOS, claims=DOMAIN, config=AT_DOMAIN)
case(workos, "oauth-application", "access-token", WORKOS_DOCS, config=AT_DOMAIN,
     claims={**DOMAIN, "aud": ENVIRONMENT, "sid": "app_consent_01JQ0E27", "client_id": "client_01JP8BD0", "scope": "openid"},
     without=("role", "permissions"))
case(workos, "machine", "client-credentials", WORKOS_DOCS, config=AT_DOMAIN,
     claims={**DOMAIN, "aud": ENVIRONMENT, "sub": "client_01JM2M", "client_id": "client_01JM2M", "scope": "api"},
     without=("sid", "role", "permissions"))
case(workos, "id", "id-token", WORKOS_DOCS, config=AT_DOMAIN,
     claims={**DOMAIN, "aud": "client_01JP8BD0", "email": "a@example.com", "name": "Ada"},
     without=("sid", "role", "permissions", "org_id"))

# Proxies.
access = Provider(
    "cloudflare-access",
    {
        "aud": ["c564a5e9887463d56faa35527be2a2b59258fab7926ae8106d81ae82e55826da"],
        "email": "a@example.com",
        "exp": EXP,
        "iat": IAT,
        "nbf": IAT,
        "iss": "https://team.cloudflareaccess.com",
        "type": "app",
        "identity_nonce": "f26650d4ed94a441",
        "sub": "0151e22e-0b0a-4f51-840f-4e4d22529807",
        "country": "US",
    },
    audience="c564a5e9887463d56faa35527be2a2b59258fab7926ae8106d81ae82e55826da",
    place="header:cf-access-jwt-assertion",
)
case(access, "session", "application", ACCESS + "index.d.ts:35")
case(access, "machine", "service-token", ACCESS + "index.d.ts:35",
     claims={"sub": "", "common_name": "e367826f93b8d71185e03fe518aff3b4.access"},
     without=("email", "identity_nonce", "country"))
case(access, "other", "team-session", ACCESS + "functions/_middleware.ts:91",
     claims={"type": "org", "aud": "11aa22bb33cc44dd55ee66ff7788990011aa22bb33cc44dd55ee66ff77889900"})

BACKEND = "/projects/123456789012/global/backendServices/987654321"
iap = Provider(
    "google-iap",
    {
        "aud": BACKEND,
        "azp": BACKEND,
        "email": "a@example.com",
        "exp": EXP,
        "hd": "example.com",
        "iat": IAT,
        "iss": "https://cloud.google.com/iap",
        "sub": "accounts.google.com:1098765432109876",
    },
    alg="ES256",
    audience=BACKEND,
    place="header:x-goog-iap-jwt-assertion",
)
case(iap, "session", "user", IAP)
case(iap, "machine", "service-account", "cloud.google.com/iap/docs/authentication-howto",
     claims={"email": "batch@demo-project-1.iam.gserviceaccount.com", "sub": "accounts.google.com:1234"}, without=("hd",))
case(iap, "id", "google-id-token", IAP, claims={"iss": "https://accounts.google.com"})

BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/lb/abc"
alb = Provider(
    "aws-alb",
    {"sub": "u-1", "email": "a@example.com", "username": "x", "exp": EXP, "iss": "https://idp.example.com"},
    alg="ES256",
    place="header:x-amzn-oidc-data",
    header={"iss": "https://idp.example.com", "client": "cid", "signer": BALANCER, "exp": EXP},
    config={"header_claims": {"signer": BALANCER}, "padded_base64": True},
)
case(alb, "session", "user", ALB)
case(alb, "other", "another-balancer", ALB, header={"signer": BALANCER.replace("lb/abc", "other/def")})

FAMILY = {
    "family": "idp-token-classes",
    "library": f"PyJWT=={jwt.__version__}",
    "generator": "idp-token-classes.py",
    "cases": CASES,
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(FAMILY, indent=1, ensure_ascii=False) + "\n")
print(f"{len(CASES)} cases, {sum(case['expect']['outcome'] == 'authenticated' for case in CASES)} of them accepted")
