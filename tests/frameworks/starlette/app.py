"""FastAPI with Starlette's SessionMiddleware."""

import os
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, HTTPException, Request
from starlette.middleware.sessions import SessionMiddleware

app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key=os.environ["SECRET_KEY"])


@app.post("/login")
def login(request: Request, username: Annotated[str, Form()], password: Annotated[str, Form()]):
    if (username, password) != (os.environ["APP_USER"], os.environ["APP_PASSWORD"]):
        raise HTTPException(403)
    request.session["user_id"] = 42


@app.post("/logout")
def logout(request: Request):
    request.session.clear()


@app.get("/me")
def me(request: Request):
    if "user_id" not in request.session:
        raise HTTPException(401)
    return request.session["user_id"]


uvicorn.run(app, port=int(os.environ["PORT"]))
