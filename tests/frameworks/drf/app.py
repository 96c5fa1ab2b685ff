"""Django REST framework with session and token authentication, and Django's built-in login views. With SSL_REDIRECT the
app requires HTTPS, as in production. The recipe contains the route /api/me."""

import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command, execute_from_command_line
from django.urls import path

FORM = "<form method=post>{% csrf_token %}{{ form }}<button>Sign in</button></form>"
AUTHENTICATION = os.environ.get("AUTHENTICATION", "Session,Token").split(",")

settings.configure(
    SECRET_KEY=os.environ["SECRET_KEY"],
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    SECURE_SSL_REDIRECT="SSL_REDIRECT" in os.environ,
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "rest_framework.authtoken",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
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
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    LOGIN_REDIRECT_URL="/api/me",
    LOGOUT_REDIRECT_URL="/login",
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [f"rest_framework.authentication.{name}Authentication" for name in AUTHENTICATION]
    },
)
django.setup()

from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from rest_framework.authtoken.models import Token
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response


@api_view(["GET"])
@permission_classes([IsAuthenticated])
def me(request):
    return Response({"id": request.user.pk})


@api_view(["POST"])
@permission_classes([IsAuthenticated])
def token(request):
    """Returns the user's API token, which a mobile app would have received at sign-in."""
    return Response({"token": Token.objects.get_or_create(user=request.user)[0].key})


urlpatterns = [
    path("login", LoginView.as_view()),
    path("logout", LogoutView.as_view()),
    path("api/me", me),
    path("api/token", token),
]

call_command("migrate", verbosity=0)
User.objects.create_user("first", password="of another")
User.objects.create_user(os.environ["APP_USER"], password=os.environ["APP_PASSWORD"])
execute_from_command_line([sys.argv[0], "runserver", "--noreload", f"127.0.0.1:{os.environ['PORT']}"])
