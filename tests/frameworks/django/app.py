"""Django with its built-in users and login views. SESSION_BACKEND selects the session backend; the other session
settings are Django's defaults."""

import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command, execute_from_command_line
from django.http import HttpResponse
from django.urls import path

FORM = "<form method=post>{% csrf_token %}{{ form }}<button>Sign in</button></form>"

settings.configure(
    SECRET_KEY=os.environ["SECRET_KEY"],
    SESSION_ENGINE=f"django.contrib.sessions.backends.{os.environ['SESSION_BACKEND']}",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"registration/login.html": FORM})]},
        }
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(os.environ["STATE"]) / "app.sqlite3"}},
    LOGIN_REDIRECT_URL="/me",
    LOGOUT_REDIRECT_URL="/login",
)
django.setup()

from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView


def me(request):
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return HttpResponse(str(request.user.pk))


def new_password(request):
    """Changes the password as if from another browser, so that Django does not renew this session."""
    user = User.objects.get(pk=request.user.pk)
    user.set_password("another")
    user.save()
    return HttpResponse(status=204)


urlpatterns = [
    path("login", LoginView.as_view()),
    path("logout", LogoutView.as_view()),
    path("me", me),
    path("new-password", new_password),
]

call_command("migrate", verbosity=0)
User.objects.create_user("first", password="of another")
User.objects.create_user(os.environ["APP_USER"], password=os.environ["APP_PASSWORD"])
execute_from_command_line([sys.argv[0], "runserver", "--noreload", f"127.0.0.1:{os.environ['PORT']}"])
