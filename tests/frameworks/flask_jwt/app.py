"""Flask with Flask-JWT-Extended's cookies. A request without a token gets 401; a malformed token gets 422."""

import os

from flask import Flask, jsonify, request
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    get_jwt_identity,
    jwt_required,
    set_access_cookies,
    unset_jwt_cookies,
)

app = Flask(__name__)
app.config.update(JWT_SECRET_KEY=os.environ["SECRET_KEY"], JWT_TOKEN_LOCATION=["cookies"], JWT_COOKIE_CSRF_PROTECT=False)
JWTManager(app)


@app.post("/login")
def login():
    if (request.form["username"], request.form["password"]) != (os.environ["APP_USER"], os.environ["APP_PASSWORD"]):
        return "wrong", 403
    answer = jsonify(ok=True)
    set_access_cookies(answer, create_access_token(identity="17"))
    return answer


@app.post("/logout")
def logout():
    answer = jsonify(ok=True)
    unset_jwt_cookies(answer)
    return answer


@app.get("/api/me")
@jwt_required()
def me():
    return jsonify(id=get_jwt_identity())


app.run(port=int(os.environ["PORT"]))
