"""The token route in FastAPI with PyJWT, as `uvicorn fastapi_app:app` serves it."""

import os
import time

import jwt
from fastapi import FastAPI, Header, HTTPException

SESSION_SECRET = os.environ["SESSION_SECRET"]
CLIENT_ID = os.environ["ROLLOUT_CLIENT_ID"]
CLIENT_SECRET = os.environ["ROLLOUT_CLIENT_SECRET"]

app = FastAPI()


@app.post("/rollout/token")
async def token(authorization: str = Header("")):
    scheme, _, session = authorization.partition(" ")
    try:
        if scheme != "Bearer":
            raise jwt.InvalidTokenError
        user = jwt.decode(session, SESSION_SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(401)
    iat = int(time.time())
    claims = {"iss": CLIENT_ID, "sub": user["sub"], "iat": iat, "exp": iat + 900}
    return {"token": jwt.encode(claims, CLIENT_SECRET, algorithm="HS512"), "expires_in": 900}
