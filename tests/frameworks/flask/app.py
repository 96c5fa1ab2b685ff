"""Flask with Flask-Login, as in their quick-start guides."""

import os

from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
login_manager = LoginManager(app)
# With `strong`, Flask-Login ends a session when the client's address or User-Agent changes (tested by endpoints.py).
login_manager.session_protection = os.environ.get("SESSION_PROTECTION", "basic")


class User(UserMixin):
    id = 17


@login_manager.user_loader
def load_user(user_id):
    return User() if user_id == "17" else None


@app.post("/login")
def login():
    if (request.form["username"], request.form["password"]) != (os.environ["APP_USER"], os.environ["APP_PASSWORD"]):
        return "wrong", 403
    login_user(User())
    return "ok"


@app.post("/logout")
@login_required
def logout():
    logout_user()
    return "ok"


@app.get("/me")
@login_required
def me():
    return str(current_user.id)


@app.get("/api/me")
@app.post("/api/whoami")
@login_required
def api_me():
    return {"id": current_user.id}


app.run(port=int(os.environ["PORT"]))
