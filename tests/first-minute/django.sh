#!/usr/bin/env bash
# Follows docs/start/django.md with an app that has Django sessions in SQLite.
. "$(dirname "$0")/lib.sh"
python=$root/target/frameworks/venv/bin/python

# Create the app, which a reader of the page already has.
cd "$work/app"
mkdir site_
touch site_/__init__.py
export SECRET_KEY=secret-of-the-first-minute-app-of-django DJANGO_SETTINGS_MODULE=site_.settings PYTHONPATH=$work/app
cat >site_/settings.py <<'PYTHON'
import os

DEBUG = True
SECRET_KEY = os.environ["SECRET_KEY"]
ROOT_URLCONF = "site_.urls"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PYTHON
cat >site_/views.py <<'PYTHON'
from pathlib import Path

from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpResponse


def sign_in(request):
    user, _ = User.objects.get_or_create(username="ann")
    login(request, user)
    return HttpResponse("signed in")


def index(request):
    return HttpResponse(Path("index.html").read_text())
PYTHON
cat >site_/urls.py <<'PYTHON'
from django.urls import path

from .views import index, sign_in

urlpatterns = [path("", index), path("sign-in", sign_in)]
PYTHON
"$python" -m django migrate --verbosity 0
printf '<!doctype html><title>App</title><p id="token"></p><script type="module">%s</script>' \
  "$(block django js 1 | sed 's/console.log(\(.*\));/document.getElementById("token").textContent = \1;/')" >index.html
start_app() {
  "$python" -m django runserver --noreload "$app" >"$work/app.log" 2>&1 &
  started+=($!)
  wait_for "$app" "$work/app.log"
}
start_app

step "$(block django sh 1)"
copy_request >request.txt
bash -euc "$(block django sh 1)"

connect() { block ../connect python "$1"; }
step "edit views.py"
connect 1 >>site_/views.py
step "edit urls.py"
connect 2 | sed 's/^urlpatterns = /urlpatterns += /' >>site_/urls.py
kill "${started[-1]}"
wait "${started[-1]}" 2>/dev/null || true
start_app

step "$(block django sh 2)"
bash -euc "$(block django sh 2 | sed 's/uvx rollout-token/exec rollout-token/; s/^\(ROLLOUT[^ ]*\) exec/export \1; exec/')" >"$work/service.log" 2>&1 &
started+=($!)
wait_for "$service" "$work/service.log"

page_shows_token 1
finish
