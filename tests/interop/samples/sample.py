"""The Python sample from Rollout's page "Getting your API Key": it prints a token for each user id in its arguments."""

import os
import sys
import time

import jwt


def generate_token(user_id: str) -> str:
    return jwt.encode(
        {
            "iss": os.environ.get("ROLLOUT_CLIENT_ID"),
            "sub": user_id,
            "iat": int(time.time()),
            "exp": int(time.time()) + 900,  # 15 minutes
        },
        os.environ.get("ROLLOUT_CLIENT_SECRET"),
        algorithm="HS512",
    )


for user_id in sys.argv[1:]:
    print(generate_token(user_id))
